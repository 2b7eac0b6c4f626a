"""Claims about starts: what each does to which weights, and that it can do what it is for."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from headsurgeon.data import as_windows
from headsurgeon.errors import HeadError, SettingsError
from headsurgeon.evaluation import ablate, evaluate
from headsurgeon.heads import HeadId
from headsurgeon.measurement import measure
from headsurgeon.measurement.one_head_map import attention_map
from headsurgeon.models.token_loss import next_token_loss
from headsurgeon.operation import Patient, apply_patch, operate
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.starts import (
    INITS,
    OUTPUT_STARTS,
    Calibration,
    HeadTensors,
    Start,
    StartContext,
    choose_init,
)
from tests.pico import pico, tokens
from tests.pico_families import pico_family
from tests.planted import PLANTED, collapse

# interleaved QKV with biases, transposed weights, shared keys and values
FAMILIES = ("bloom", "gpt2", "llama")
CALIBRATION = tokens(6, 24)
PARTS = ("query", "key", "value", "output")


def model_of(family: str) -> PreTrainedModel:
    return pico(family) if family == "bloom" else pico_family(family)


def plan(*heads: str, init: str = "none", output_start: str = "keep_output") -> Plan:
    planned = tuple(PlannedHead(id=HeadId.parse(head)) for head in heads)
    return Plan(model="pico", rule="heads", heads=planned, init=init, output_start=output_start)


def started(model: PreTrainedModel, *heads: str, **starts: str) -> Patient:
    return operate(model, plan(*heads, **starts), seed=1, calibration=CALIBRATION)


def state_of(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(model: PreTrainedModel, before: dict[str, Tensor], head: HeadId) -> set[str]:
    """The parts of a head, weight or bias, that are not what they were."""
    layout, now = layout_of(model), state_of(model)
    return {
        part
        for part in PARTS
        for block in layout.blocks(part, head.layer, head.head)
        if not torch.equal(block.of(now[block.parameter]), block.of(before[block.parameter]))
    }


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("init", "parts"),
    [
        ("qk_only", {"query", "key"}),
        ("vo_only", {"value"}),
        ("partial_reset", {"query", "key", "value"}),
        ("partial_reset(rho=1)", set()),
        ("unpin", {"key"}),
        ("gradient_matched", {"query", "key", "value"}),
        ("induction", {"query", "key", "value"}),
        ("induction_gradient_matched", {"query", "key", "value"}),
        ("canonical", {"query", "key", "value"}),
    ],
)
def test_a_start_changes_its_parts_of_the_operated_heads_and_nothing_else(
    family: str, init: str, parts: set[str]
) -> None:
    model = model_of(family)
    layout, stock = layout_of(model), state_of(model)
    group = layout.sharing(1)
    patient = started(model, *(f"L1H{head}" for head in group), init=init)
    seen = set().union(*(changed(model, stock, HeadId(1, head)) for head in group))
    assert seen == parts
    outside = {HeadId(0, 0), HeadId(1, next(h for h in range(layout.heads) if h not in group))}
    assert not set().union(*(changed(model, stock, head) for head in outside))
    touched = set(patient.maps)
    now = state_of(model)
    assert all(torch.equal(now[name], stock[name]) for name in stock if name not in touched)
    patient.revert()
    assert all(torch.equal(tensor, stock[name]) for name, tensor in state_of(model).items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_start_may_read_the_other_heads_of_its_layer_and_changes_none(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(family)
    layout, stock = layout_of(model), state_of(model)
    group = layout.sharing(1)
    untouched = next(head for head in range(layout.heads) if head not in group)
    seen: list[HeadTensors] = []

    def copying(heads: Sequence[HeadTensors], context: StartContext) -> None:
        for refused in (group[0], layout.heads):
            with pytest.raises(HeadError):
                context.other(refused)
        seen.append(context.other(untouched))
        for head in heads:
            head.weights["query"].copy_(seen[0].weights["query"])
            head.weights["output"].copy_(seen[0].weights["output"])
        seen[0].weights["query"].zero_()

    monkeypatch.setitem(INITS, "copying", Start(copying))
    patient = started(model, *(f"L1H{head}" for head in group), init="copying")
    patient.merge()
    now = state_of(model)
    assert not changed(model, stock, HeadId(1, untouched))
    assert set(seen[0].weights) == {*PARTS}
    for part in ("query", "output"):
        theirs, ours = (
            next(b.of(now[b.parameter]) for b in layout.blocks(part, 1, head))
            for head in (untouched, group[0])
        )
        # what the output is at step 0 is the output start's affair
        assert torch.equal(ours, theirs) == (part == "query")
    for part, (block, *bias) in layout.head_blocks(1, untouched).items():
        held = block.of(stock[block.parameter])
        down = held if block.axis == (1 if part == "output" else 0) else held.T
        if part != "query":
            assert torch.equal(seen[0].weights[part], down)
        assert (part in seen[0].biases) == bool(bias)


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_keys_and_values_stay_where_only_one_head_of_the_group_is_operated_on(
    family: str,
) -> None:
    model = model_of(family)
    layout, stock = layout_of(model), state_of(model)
    started(model, "L1H1", init="induction_gradient_matched")
    alone = len(layout.sharing(1)) == 1
    assert changed(model, stock, HeadId(1, 1)) == ({*PARTS} - {"output"} if alone else {"query"})


@pytest.mark.parametrize("name", sorted(INITS))
def test_a_start_that_looks_at_text_needs_some_and_says_so(name: str) -> None:
    model = pico("bloom")
    if not INITS[name].calibrated:
        assert operate(model, plan("L1H1", init=name)).calibration_tokens == 0
        return
    with pytest.raises(SettingsError, match=f"{name} looks at text.*calibration="):
        operate(model, plan("L1H1", init=name))
    assert started(model, "L1H1", init=name).calibration_tokens == CALIBRATION.numel()


@pytest.mark.parametrize("name", sorted(OUTPUT_STARTS))
def test_every_output_start_comes_back_from_its_patch(name: str, tmp_path: Path) -> None:
    model = pico("bloom")
    stock = state_of(model)
    patient = started(model, "L1H1", "L2H0", init="xavier_normal", output_start=name)
    inside = state_of(model)
    patch = patient.save(tmp_path / "patch.safetensors")
    patient.merge()
    assert all(torch.equal(tensor, inside[key]) for key, tensor in state_of(model).items())
    patient.revert()
    assert all(torch.equal(tensor, stock[key]) for key, tensor in state_of(model).items())
    again = apply_patch(model, patch)
    assert all(torch.equal(tensor, inside[key]) for key, tensor in state_of(model).items())
    assert (again.init, again.output_start) == ("xavier_normal", name)
    assert again.calibration == patient.calibration
    again.revert()
    assert all(torch.equal(tensor, stock[key]) for key, tensor in state_of(model).items())


@pytest.mark.parametrize("name", ["carry", "carry_value"])
def test_a_carried_mean_costs_what_mean_ablation_costs(name: str) -> None:
    expected = ablate(pico("bloom"), ["L1H1", "L2H0"], CALIBRATION, mode="mean", singles=False)
    zero = ablate(pico("bloom"), ["L1H1", "L2H0"], CALIBRATION, singles=False).ablated.nll
    model = pico("bloom")
    started(model, "L1H1", "L2H0", init="xavier_uniform_head", output_start=name)
    assert evaluate(model, CALIBRATION).nll == pytest.approx(expected.ablated.nll, abs=1e-5)
    assert abs(zero - expected.ablated.nll) > 1e-3


def test_a_carried_bias_is_never_trained() -> None:
    model = pico("bloom")
    patient = started(model, "L1H1", init="xavier_uniform_head", output_start="carry")
    bias = layout_of(model).output.path(1) + ".bias"
    assert bias in patient.contents()
    assert bias not in patient.named_slices()
    assert not patient.contents()[bias].requires_grad


def test_a_family_without_a_bias_to_carry_in_is_refused_in_words() -> None:
    for name in ("carry", "carry_value"):
        model = model_of("llama")
        stock = state_of(model)
        with pytest.raises(SettingsError, match=f"{name} keeps a constant"):
            started(model, "L1H0", "L1H1", init="xavier_normal", output_start=name)
        assert all(torch.equal(tensor, stock[key]) for key, tensor in state_of(model).items())


def test_unpinning_wakes_heads_that_look_for_the_first_token_and_erases_nothing_else() -> None:
    model = pico("bloom", layers=2)
    collapse(model, PLANTED)
    # every window begins as those do that the collapse was made for
    text = tokens(6, 24)
    text[:, 0] = 0
    before = measure(model, text).first_token_mass
    operate(model, plan(*map(str, PLANTED), init="unpin"), calibration=text)
    after = measure(model, text).first_token_mass
    for head in PLANTED:
        assert before[head] > 0.8
        assert after[head] < 0.5


def first_gradient(model: PreTrainedModel, patient: Patient, text: Tensor) -> float:
    next_token_loss(model, text).backward()
    outputs = patient.named_slices()
    gradients = [outputs[name].grad for name in patient.outputs()]
    return sum(float(g.square().sum()) for g in gradients if g is not None) ** 0.5


def test_gradient_matched_values_give_the_output_a_larger_first_gradient() -> None:
    sizes = {}
    for init in ("xavier_uniform_head", "gradient_matched"):
        model = pico("bloom")
        patient = started(model, "L1H1", "L1H2", init=init, output_start="zero_output")
        # what the heads put out may be large or small: it is the direction that counts
        seen = Calibration(model, layout_of(model), as_windows(CALIBRATION))
        energy = float(seen.energy[1, [1, 2]].sum())
        sizes[init] = first_gradient(model, patient, CALIBRATION) / energy**0.5
    assert sizes["gradient_matched"] > 1.3 * sizes["xavier_uniform_head"]


def test_induction_heads_look_behind_earlier_places_of_the_present_token() -> None:
    half = tokens(8, 16)
    text = torch.cat([half, half], dim=1)
    seen = {}
    for init in ("xavier_uniform_head", "induction", "canonical"):
        model = pico("bloom", hidden=64)
        operate(model, plan("L2H3", init=init), seed=0, calibration=text)
        mass = 0.0
        for window in text:
            attention = attention_map(model, window, HeadId(2, 3))
            # from t in the second half to the token after t's first occurrence
            mass += sum(attention[t, t - 15] for t in range(16, 32)) / 16
        seen[init] = mass / len(text)
    assert seen["induction"] > 3.0 * seen["xavier_uniform_head"]
    assert seen["canonical"] > 3.0 * seen["xavier_uniform_head"]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("partial_reset(rho=2)", "expected 0 to 1"),
        ("partial_reset(rho=x)", "expected"),
        ("partial_reset(r=0.5)", "no parameter 'r'"),
        ("partial_reset(rho=0.5, rho=0.4)", "given twice"),
        ("none(rho=1)", "takes no parameters"),
        ("partial", "known are"),
        ("partial_reset(rho=0.5", "known are"),
        ("partial_reset(rho=nan)", "expected"),
    ],
)
def test_a_start_that_is_written_wrongly_is_refused_in_words(written: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        choose_init(written)


def test_the_name_of_a_start_may_hold_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INITS, "rank_16", INITS["partial_reset"])
    assert choose_init("rank_16").name == "rank_16(rho=0.5)"
    assert choose_init("rank_16(rho=0.25)").name == "rank_16(rho=0.25)"


def test_parameters_are_written_out_where_they_are_recorded() -> None:
    assert choose_init("partial_reset").name == "partial_reset(rho=0.5)"
    assert choose_init(" partial_reset( rho = .25 ) ").name == "partial_reset(rho=0.25)"
    patient = started(pico("bloom"), "L1H1", init="partial_reset(rho=0.25)")
    assert patient.init == "partial_reset(rho=0.25)"
