"""Models held in 8 or 4 bit: measured and evaluated, and never operated on."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor
from transformers import PreTrainedModel

import headsurgeon as hs
from headsurgeon.arch import layout_of
from headsurgeon.diagnosis import mlp_dormancy
from headsurgeon.errors import ModelError, PlanError, SettingsError
from headsurgeon.heads import STATISTICS, HeadId
from headsurgeon.models.weights import precision, weight_of
from headsurgeon.planning import Plan, PlannedHead
from tests.char_tokenizer import char_tokenizer
from tests.clinic import CORPUS, run, write_text
from tests.pico import tokens
from tests.pico_families import pico_family

# form: its configuration as from_pretrained takes it, error of one weight
FORMS: dict[str, tuple[Callable[[], object], float]] = {
    "8bit": (lambda: hf.BitsAndBytesConfig(load_in_8bit=True), 0.01),
    "4bit": (
        lambda: hf.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
        0.15,
    ),
}
WITHOUT_BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is None
CASES = [
    pytest.param(
        (family, form),
        marks=pytest.mark.skipif(WITHOUT_BITSANDBYTES, reason="bitsandbytes is not installed"),
        id=f"{family}-{form}",
    )
    for form in FORMS
    for family in ("llama", "gpt_neox", "gpt2")
]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A whole checkpoint, and the form in which it is to be held."""
    family, form = request.param
    return saved(family, tmp_path / "whole"), form


def saved(family: str, folder: Path) -> Path:
    # widths that the libraries can pack, and more numbers than bitsandbytes leaves alone
    pico_family(family, hidden_size=64, intermediate_size=128).save_pretrained(folder)
    char_tokenizer().save_pretrained(folder)
    return folder


def held(folder: Path, form: str) -> PreTrainedModel:
    return hs.load(str(folder), quantization_config=FORMS[form][0]())[0]  # type: ignore[arg-type]


def test_the_weight_that_is_read_is_nearly_the_stored_one_and_exactly_the_one_in_use(
    case: tuple[Path, str],
) -> None:
    folder, form = case
    whole, _ = hs.load(str(folder))
    packed = held(folder, form)
    layout = layout_of(whole)
    path = layout.output.path(1)
    weight = weight_of(whole.get_submodule(path), layout.output.axis == 0)
    module = packed.get_submodule(path)
    read = weight_of(module, layout.output.axis == 0)
    assert read.shape == weight.shape
    error = (read - weight).abs().max() / weight.abs().max()
    assert error < FORMS[form][1]
    vectors = torch.randn(5, weight.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        used = module(vectors) - (0 if module.bias is None else module.bias)
    # bitsandbytes rounds the vectors, too, to 8 bit
    torch.testing.assert_close(vectors @ read.T, used, atol=0.05, rtol=0.0)


def test_statistics_losses_and_dormancy_are_near_those_of_the_whole_model(
    case: tuple[Path, str],
) -> None:
    folder, form = case
    whole, _ = hs.load(str(folder))
    packed = held(folder, form)
    batch = tokens(4, 16)
    with torch.no_grad():
        before = packed(batch).logits
    expected, found = hs.measure(whole, batch), hs.measure(packed, batch)
    # rough: a random model of this size follows every rounding
    close = 0.4 if form == "4bit" else 0.05
    assert expected.provenance.dtype == "float32"
    assert found.provenance.dtype.startswith("float32, quantised (")
    for name in STATISTICS:
        difference = np.abs(found.mean(name) - expected.mean(name)).mean()
        assert difference < close * np.abs(expected.mean(name)).mean(), name
    loss = hs.evaluate(whole, batch).nll
    assert abs(hs.evaluate(packed, batch).nll - loss) < close * loss
    assert np.isfinite(hs.ablate(packed, ["L1H1"], batch).joint.value)
    np.testing.assert_array_equal(
        mlp_dormancy(packed, layout_of(packed)), mlp_dormancy(whole, layout_of(whole))
    )
    with torch.no_grad():
        assert torch.equal(packed(batch).logits, before)


def test_a_model_in_few_bits_is_refused_by_operate_and_patch_and_stays_as_it_was(
    case: tuple[Path, str], tmp_path: Path
) -> None:
    folder, form = case
    whole, _ = hs.load(str(folder))
    diagnosis = hs.diagnose(hs.measure(whole, tokens(4, 16)))
    plan = hs.plan(diagnosis, rule="heads", heads=["L1H1"])
    patch = hs.operate(whole, plan).save(tmp_path / "patch")
    packed = held(folder, form)
    modules = list(packed.modules())
    for refused in (lambda: hs.operate(packed, plan), lambda: hs.apply_patch(packed, patch)):
        with pytest.raises(ModelError, match=r"quantised.*not operated on.*bf16, fp16 or fp32"):
            refused()
    assert list(packed.modules()) == modules


def test_a_plan_made_in_few_bits_is_carried_out_on_the_whole_model_of_that_name(
    case: tuple[Path, str],
) -> None:
    folder, form = case
    packed = held(folder, form)
    diagnosis = hs.diagnose(hs.measure(packed, tokens(4, 16)))
    plan = hs.plan(diagnosis, rule="heads", heads=["L1H1"], model=packed)
    assert plan.fingerprint is None
    assert any("8 or 4 bit" in note for note in plan.notes)
    whole, _ = hs.load(str(folder))
    hs.operate(whole, plan).revert()
    whole.name_or_path = "another"
    with pytest.raises(PlanError, match="another"):
        hs.operate(whole, plan)


@pytest.mark.skipif(WITHOUT_BITSANDBYTES, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("form", ["8bit", "4bit"])
def test_a_checkpoint_stored_in_few_bits_loads_as_any_other(tmp_path: Path, form: str) -> None:
    packed = held(saved("llama", tmp_path / "whole"), form)
    packed.save_pretrained(tmp_path / "packed")
    char_tokenizer().save_pretrained(tmp_path / "packed")
    again, _ = hs.load(str(tmp_path / "packed"))
    batch = tokens(2, 16)
    expected, found = hs.measure(packed, batch), hs.measure(again, batch)
    np.testing.assert_array_equal(found.first_token_mass, expected.first_token_mass)
    with pytest.raises(ModelError, match="quantised"):
        hs.operate(
            again, Plan(model="unnamed", rule="heads", heads=(PlannedHead(id=HeadId(0, 1)),))
        )


class Packed(nn.Linear):
    """Stands for a library's module: a weight of other numbers, a forward of its own."""

    def __init__(self, stands_for: nn.Linear) -> None:
        super().__init__(stands_for.in_features, stands_for.out_features, bias=False)
        self.scale = float(stands_for.weight.detach().abs().max()) / 127
        packed = (stands_for.weight.detach() / self.scale).round().to(torch.int8)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = stands_for.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(input, self.weight.float() * self.scale, self.bias)


# code of one's own in a model is refused; that of libraries which hold weights in few bits is not
for part in (Packed, Packed.__init__, Packed.forward):
    part.__module__ = "bitsandbytes.example"


def test_a_weight_of_whatever_form_is_read_through_its_module() -> None:
    model = pico_family("starcoder2")
    batch = tokens(3, 16)
    expected = hs.measure(model, batch)
    attention = model.model.layers[1].self_attn
    weight = attention.o_proj.weight.detach()
    attention.o_proj = Packed(attention.o_proj)
    torch.testing.assert_close(
        weight_of(attention.o_proj), weight, atol=float(weight.abs().max()) / 250, rtol=0.0
    )
    found = hs.measure(model, batch)
    np.testing.assert_allclose(found.output_norm, expected.output_norm, rtol=0.02)
    with pytest.raises(ModelError, match=r"layers\.1\.self_attn\.o_proj\.weight is quantised"):
        # other layers are not operated on either
        hs.operate(
            model, Plan(model="unnamed", rule="heads", heads=(PlannedHead(id=HeadId(0, 1)),))
        )


def test_a_tensor_that_wraps_others_is_no_plain_weight_whatever_dtype_it_names() -> None:
    model = pico_family("llama")
    projection = model.model.layers[1].self_attn.o_proj
    weight = projection.weight.detach()
    projection.weight = nn.Parameter(TwoTensor(weight, weight.clone()), requires_grad=False)
    assert projection.weight.dtype == torch.float32
    assert precision(model) == "float32, quantised (TwoTensor)"
    with pytest.raises(ModelError, match=r"layers\.1\.self_attn\.o_proj\.weight is quantised"):
        hs.operate(
            model, Plan(model="unnamed", rule="heads", heads=(PlannedHead(id=HeadId(0, 1)),))
        )


@pytest.mark.skipif(WITHOUT_BITSANDBYTES, reason="bitsandbytes is not installed")
def test_operate_and_merge_refuse_a_checkpoint_stored_in_few_bits_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, tokenizer = hs.load(
        str(saved("llama", tmp_path / "whole")),
        quantization_config=hf.BitsAndBytesConfig(load_in_8bit=True),
    )
    model.save_pretrained("packed")
    tokenizer.save_pretrained("packed")
    write_text(tmp_path / "docs")
    whole, _ = hs.load("whole")
    plan = Plan(model="packed", rule="heads", heads=(PlannedHead(id=HeadId(1, 1)),))
    hs.operate(whole, plan.replace(model="whole")).save("patch")
    Path("plan.yaml").write_text(plan.to_yaml(), encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    for words in (
        ("operate", "packed", "--plan", "plan.yaml", "--corpus", CORPUS, "--yes"),
        ("merge", "packed", "--patch", "patch"),
    ):
        said = run(*words, "--output", "new")
        assert said.exit_code == 2
        assert "is quantised" in said.stderr
        assert sorted(tmp_path.rglob("*")) == before


def test_a_library_that_is_missing_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pico_family("llama").save_pretrained(tmp_path)
    char_tokenizer().save_pretrained(tmp_path)
    monkeypatch.setattr(
        "transformers.quantizers.quantizer_bnb_8bit.is_bitsandbytes_available", lambda: False
    )
    with pytest.raises(ModelError, match=r'pip install "headsurgeon\[quantised\]"') as caught:
        hs.load(str(tmp_path), quantization_config=hf.BitsAndBytesConfig(load_in_8bit=True))
    assert "\n" not in str(caught.value)


def test_few_bits_and_a_memory_limit_exclude_each_other() -> None:
    few = hf.BitsAndBytesConfig(load_in_8bit=True)
    with pytest.raises(SettingsError, match="choose one"):
        hs.load("anything", quantization_config=few, max_memory={"cpu": "1GB"})
