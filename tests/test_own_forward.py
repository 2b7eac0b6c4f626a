"""What runs in a model is what its layout describes: compared with the object at hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import headsurgeon as hs
from headsurgeon.arch import layout_of
from headsurgeon.errors import ModelError, UnsupportedModel
from headsurgeon.measurement import own_forward
from headsurgeon.measurement.own_forward import check_own_attention
from headsurgeon.planning import PlannedHead
from tests.pico import PICO, pico, tokens
from tests.pico_families import NAMES, pico_family


@pytest.mark.parametrize("name", [*PICO, *NAMES])
def test_every_family_computes_the_attention_that_its_layout_describes(name: str) -> None:
    model = pico(name) if name in PICO else pico_family(name)
    check_own_attention(model, layout_of(model), tokens(1, 40))
    own_forward._agreed.clear()
    check_own_attention(model.bfloat16(), layout_of(model), tokens(1, 40))


@pytest.mark.parametrize(
    ("family", "attribute", "value"),
    [
        ("bloom", "beta", 1.05),
        ("bloom", "inv_norm_factor", 0.3),
        ("falcon-new", "beta", 0.0),
        ("mpt", "softmax_scale", 0.2),
        ("mpt-clip", "clip_qkv", 0.4),
        ("mpt", "clip_qkv", 0.4),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_number_of_attention_changed_after_loading_is_refused(
    family: str, attribute: str, value: float, dtype: torch.dtype
) -> None:
    model = pico(family).to(dtype)
    module = next(m for m in model.modules() if hasattr(m, attribute))
    setattr(module, attribute, value)
    for use in (hs.measure, hs.evaluate):
        with pytest.raises(UnsupportedModel, match=rf"\.{attribute} is {value}, where the config"):
            use(model, tokens())


def test_a_configuration_changed_after_loading_is_refused() -> None:
    model = pico("mpt")
    model.config.attn_config.softmax_scale = 0.5
    with pytest.raises(UnsupportedModel, match="softmax_scale"):
        hs.measure(model, tokens())


@pytest.mark.parametrize("before", [False, True])
def test_a_hook_inside_of_attention_that_would_not_be_called_is_refused(before: bool) -> None:
    model = pico("bloom")
    hs.measure(model, tokens())
    inner = model.transformer.h[1].self_attention.attention_dropout
    if before:
        handle = inner.register_forward_pre_hook(lambda module, inputs: None)
    else:
        handle = inner.register_forward_hook(lambda module, inputs, output: None)
    with pytest.raises(UnsupportedModel, match=r"a hook .*h\.1\.self_attention\.attention_dropout"):
        hs.measure(model, tokens())
    handle.remove()
    hs.measure(model, tokens())


@pytest.mark.parametrize("family", ["bloom", "falcon-mq", "mpt"])
@pytest.mark.parametrize("place", ["query", "output", "module"])
def test_a_hook_that_both_ways_call_counts_in_both(family: str, place: str) -> None:
    model = pico(family)
    layout = layout_of(model)
    projection = layout.query if place == "query" else layout.output
    path = projection.path(1)
    path = path.rpartition(".")[0] if place == "module" else path

    def larger(module: Any, inputs: Any, output: Any) -> Any:
        return (output[0] * 1.5, *output[1:]) if isinstance(output, tuple) else output * 1.5

    plain = hs.measure(model, tokens())
    model.get_submodule(path).register_forward_hook(larger)
    fused = hs.measure(model, tokens(), attention="fast")
    stock = hs.measure(model, tokens(), attention="stock")
    assert abs(fused.first_token_mass - stock.first_token_mass).max() < 1e-4
    assert abs(fused.first_token_mass - plain.first_token_mass).max() > 1e-4


def test_a_method_put_on_one_module_is_refused() -> None:
    model = pico("bloom")
    stock = model.transformer.build_alibi_tensor
    model.transformer.build_alibi_tensor = lambda *given, **named: stock(*given, **named) * 2
    with pytest.raises(UnsupportedModel, match=r"a build_alibi_tensor from .* at transformer"):
        hs.measure(model, tokens())


@pytest.mark.parametrize(
    ("family", "wrong"),
    [("bloom", {"slopes": (0.1,) * 4}), ("falcon-rw", {"scale": 0.5}), ("mpt", {"clip": 0.1})],
)
def test_a_layout_that_describes_another_attention_is_found_out(
    family: str, wrong: dict[str, Any]
) -> None:
    model = pico(family)
    with pytest.raises(ModelError, match="attention in layer 0 computes something else"):
        check_own_attention(model, replace(layout_of(model), **wrong), tokens(1))


def test_a_model_is_compared_once_and_again_when_something_was_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[int] = []
    stock = own_forward._difference

    def counted(*given: Any) -> torch.Tensor:
        compared.append(1)
        return stock(*given)

    monkeypatch.setattr(own_forward, "_difference", counted)
    model = pico("bloom", layers=2)
    for _ in range(3):
        hs.measure(model, tokens())
        hs.evaluate(model, tokens())
        hs.ablate(model, ["L0H1"], tokens())
    assert len(compared) == 2
    model.transformer.ln_f.eps = 1e-3
    hs.measure(model, tokens())
    hs.measure(model, tokens())
    assert len(compared) == 4


def test_a_hook_put_on_the_head_after_an_evaluation_is_seen() -> None:
    model = pico("bloom")
    hs.evaluate(model, tokens())
    model.lm_head.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 3,))
    with pytest.raises(ModelError, match="its own forward has a loss"):
        hs.evaluate(model, tokens())


def test_an_ablation_in_progress_is_no_fault_of_attention() -> None:
    from headsurgeon.evaluation.ablation import ablating

    model = pico("bloom")
    layout = layout_of(model)
    with ablating(model, layout, [hs.HeadId(1, 2)]):
        check_own_attention(model, layout, tokens(1))


def test_a_model_under_operation_is_compared_and_agrees() -> None:
    model = pico("bloom")
    plan = hs.Plan(model="any", rule="heads", heads=(PlannedHead(id=hs.HeadId(1, 2)),))
    patient = hs.operate(model, plan)
    hs.measure(model, tokens())
    patient.merge()
    hs.evaluate(model, tokens())
