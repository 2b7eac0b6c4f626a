"""A patient's states, what it refuses, and how its heads start."""

from math import sqrt
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BloomConfig

import headsurgeon as hs
from headsurgeon.arch import Layout, layout_for, layout_of
from headsurgeon.errors import (
    HeadError,
    ModelError,
    PlanError,
    SettingsError,
    StateError,
    UnsupportedModel,
)
from headsurgeon.heads import HeadId
from headsurgeon.models.fingerprint import fingerprint
from headsurgeon.operation import Patient, operate
from headsurgeon.operation.patient import operated
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.starts import HeadTensors, StartContext, choose_init
from tests.pico import PICO, pico, tokens

FAMILIES = sorted(PICO)
STEPS = st.lists(st.sampled_from(["merge", "revert", "reopen", "disturb"]), max_size=8)


def plan(*heads: str, init: str = "xavier_uniform_head", output_start: str = "zero_output") -> Plan:
    planned = tuple(PlannedHead(id=HeadId.parse(head)) for head in heads)
    return Plan(model="pico", rule="heads", heads=planned, init=init, output_start=output_start)


def state_of(patient: Patient) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in patient.model.state_dict().items()}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[n], right[n]) for n in left)


@given(family=st.sampled_from(FAMILIES), steps=STEPS, bf16=st.booleans())
def test_merge_revert_and_reopen_work_in_any_order(
    family: str, steps: list[str], bf16: bool
) -> None:
    model = pico(family).to(torch.bfloat16 if bf16 else torch.float32)
    model.get_output_embeddings().weight.requires_grad_(False)
    modules = dict(model.named_modules())
    trainable = {name: p.requires_grad for name, p in model.named_parameters()}
    stock = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    patient = operate(model, plan("L1H1", "L2H2", "L2H3"))
    states = {"merge": "merged", "revert": "reverted", "reopen": "open"}
    for step in steps:
        if step == "disturb":
            with torch.no_grad():
                for slice_ in patient.slices():
                    slice_.add_(0.125)
            continue
        change = getattr(patient, step)()
        assert change.state == patient.state == states[step]
        assert equal(state_of(patient), stock if step == "revert" else _expected(stock, patient))
        if step == "reopen":
            model(tokens(), labels=tokens()).loss.backward()
            assert all(slice_.grad is not None for slice_ in patient.slices())
        else:
            assert dict(model.named_modules()) == modules
            assert {n: p.requires_grad for n, p in model.named_parameters()} == trainable
    patient.revert()
    assert equal(state_of(patient), stock)


def _expected(stock: dict[str, Tensor], patient: Patient) -> dict[str, Tensor]:
    merged = {name: tensor.clone() for name, tensor in stock.items()}
    for name, slice_ in patient.named_slices().items():
        patient.maps[name].write(merged[name], slice_.detach())
    return merged


@pytest.mark.parametrize("family", FAMILIES)
def test_revert_restores_every_logit_bit_for_bit(family: str) -> None:
    model, batch = pico(family), tokens()
    before = model(batch).logits
    patient = operate(model, plan("L1H1", "L2H2"))
    assert not torch.equal(model(batch).logits, before)
    patient.revert()
    assert torch.equal(model(batch).logits, before)


def test_the_record_says_how_large_the_change_is() -> None:
    model = pico("bloom")
    patient = operate(model, plan("L1H1"))
    with torch.no_grad():
        patient.slices()[0][0, 0] += 100.0
    opened, merged, reverted = patient.change(), patient.merge(), patient.revert()
    assert opened.largest == merged.largest == pytest.approx(100.0, abs=1.0)
    assert reverted.largest == 0.0
    assert merged.tensors == 3
    assert merged.parameters == 4 * 8 * 32 + 3 * 8


def test_training_a_merged_or_reverted_patient_is_refused_until_it_is_reopened() -> None:
    patient = operate(pico("bloom"), plan("L1H1"))
    for step in (patient.merge, patient.revert):
        step()
        with pytest.raises(StateError, match="reopen"):
            patient.require_open()
    patient.reopen()
    patient.require_open()


def test_a_model_moved_while_merged_is_reopened_where_it_is() -> None:
    model = pico("bloom")
    patient = operate(model, plan("L1H1"))
    patient.merge()
    model.to(torch.bfloat16)
    patient.reopen()
    model(tokens(), labels=tokens()).loss.backward()
    assert all(slice_.grad.dtype == torch.float32 for slice_ in patient.slices())
    assert patient.model.state_dict()[patient_name(patient)].dtype == torch.bfloat16


def patient_name(patient: Patient) -> str:
    return next(iter(patient.maps))


def test_a_patient_does_not_write_over_a_later_operation_on_the_same_head() -> None:
    model = pico("bloom")
    first = operate(model, plan("L1H1"))
    first.merge()
    second = operate(model, plan("L1H1", "L2H2"), 1)
    second.merge()
    state = state_of(second)
    for step in (first.revert, first.merge, first.reopen):
        with pytest.raises(StateError, match="changed since"):
            step()
        assert first.state == "merged"
        assert equal(state_of(second), state)
    second.revert()
    first.revert()
    assert equal(state_of(first), dict(pico("bloom").state_dict()))
    # the second was made for the first's weights, which are gone
    with pytest.raises(StateError, match="changed since"):
        second.merge()


def test_operations_on_different_heads_may_be_taken_back_in_any_order() -> None:
    model = pico("bloom")
    first = operate(model, plan("L1H1"))
    first.merge()
    second = operate(model, plan("L1H2"), 1)
    second.merge()
    first.revert()
    second.revert()
    assert equal(state_of(first), dict(pico("bloom").state_dict()))


def test_a_patient_that_diverged_can_still_be_taken_back() -> None:
    patient = operate(pico("bloom"), plan("L1H1"))
    with torch.no_grad():
        patient.slices()[0].fill_(float("nan"))
    patient.merge()
    patient.revert()
    assert equal(state_of(patient), dict(pico("bloom").state_dict()))


def test_a_second_operation_on_an_open_patient_is_refused_and_on_a_merged_one_is_not() -> None:
    model = pico("bloom")
    first = operate(model, plan("L1H1"))
    with pytest.raises(StateError, match="being operated on already"):
        operate(model, plan("L2H2"))
    first.merge()
    second = operate(model, plan("L2H2"))
    with pytest.raises(StateError, match="another patient"):
        first.revert()
    second.revert()
    first.revert()
    assert equal(dict(model.state_dict()), dict(pico("bloom").state_dict()))


# --- key/value sharing ---------------------------------------------------------------------------


def test_keys_and_values_of_an_incomplete_group_stay_frozen_and_the_patient_says_so() -> None:
    model = pico("falcon-new")
    stock = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # kv head 0 serves heads 0 and 1, kv head 1 serves heads 2 and 3
    patient = operate(model, plan("L1H0", "L2H2", "L2H3"))
    assert patient.frozen_key_values == (HeadId(1, 0),)
    layout, state = layout_of(model), model.state_dict()
    for part in ("key", "value"):
        (frozen,) = layout.blocks(part, 1, 0)
        (changed,) = layout.blocks(part, 2, 2)
        assert torch.equal(frozen.of(state[frozen.parameter]), frozen.of(stock[frozen.parameter]))
        same = changed.of(state[changed.parameter]) == changed.of(stock[changed.parameter])
        assert not same.any()
    parts = {head.id: sorted(head.weights) for head in patient.head_tensors()}
    assert parts == {
        HeadId(1, 0): ["output", "query"],
        HeadId(2, 2): ["key", "output", "query", "value"],
        HeadId(2, 3): ["output", "query"],
    }


def test_no_family_without_sharing_has_frozen_keys() -> None:
    assert operate(pico("mpt"), plan("L1H1")).frozen_key_values == ()


# --- starts --------------------------------------------------------------------------------------


def one_head(name: str, layout: Layout, seed: int = 0) -> HeadTensors:
    width, hidden = layout.head_dim, layout.hidden
    shapes = {"query": (width, hidden), "key": (width, hidden), "value": (width, hidden)}
    weights = {part: torch.ones(shape) for part, shape in shapes.items()}
    weights["output"] = torch.ones(hidden, width)
    biases = {part: torch.ones(width) for part in shapes}
    head = HeadTensors(HeadId(0, 0), weights, biases)
    generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
    context = StartContext(layout, 0, *generators, other=lambda head: pytest.fail("not blind"))
    choose_init(name).apply([head], context)
    return head


@pytest.mark.parametrize(
    ("name", "deviation"),
    [("xavier_uniform_head", 0.0287), ("xavier_normal", 0.0287), ("model", 0.02)],
)
def test_initialisations_have_the_published_spread_on_bloom_1b7(
    name: str, deviation: float
) -> None:
    layout = layout_for(BloomConfig(hidden_size=2048, n_layer=1, n_head=16))
    head = one_head(name, layout)
    drawn = torch.cat([head.weights[part] for part in ("query", "key", "value")])
    assert drawn.std().item() == pytest.approx(deviation, abs=2e-4)
    assert abs(drawn.mean().item()) < 2e-4
    assert all((bias == 0.0).all() for bias in head.biases.values())
    assert (head.weights["output"] == 1.0).all()


def test_xavier_uniform_is_one_draw_over_the_fused_block_within_its_bound() -> None:
    head = one_head("xavier_uniform_head", layout_of(pico("bloom")))
    bound = sqrt(6.0 / (32 + 24))
    expected = torch.empty(24, 32).uniform_(
        -bound, bound, generator=torch.Generator().manual_seed(0)
    )
    drawn = torch.cat([head.weights[part] for part in ("query", "key", "value")])
    assert torch.equal(drawn, expected)
    assert drawn.abs().max() <= bound


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("init", ["xavier_uniform_head", "xavier_normal", "model", "none"])
@pytest.mark.parametrize("output_start", ["zero_output", "keep_output"])
def test_every_start_changes_the_planned_blocks_and_nothing_else(
    family: str, init: str, output_start: str
) -> None:
    model = pico(family)
    layout = layout_of(model)
    stock = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    group = [f"L1H{head}" for head in layout.sharing(1)]
    operate(model, plan(*group, init=init, output_start=output_start))
    state = model.state_dict()
    for part in ("query", "key", "value"):
        for block in layout.blocks(part, 1, 1):
            new, old = block.of(state[block.parameter]), block.of(stock[block.parameter])
            assert torch.equal(new, old) == (init == "none")
            if init != "none":
                assert (new == 0.0).all() == block.parameter.endswith("bias")
    (columns,) = layout.blocks("output", 1, 1)
    new, old = columns.of(state[columns.parameter]), columns.of(stock[columns.parameter])
    assert torch.equal(new, old if output_start == "keep_output" else torch.zeros_like(old))
    for name in set(state) - {
        block.parameter for blocks in layout.head_blocks(1, 1).values() for block in blocks
    }:
        assert torch.equal(state[name], stock[name])


def test_seeds_repeat_and_differ_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first, again, other = (
        operate(pico("bloom"), plan("L1H1"), seed).slices()[-1] for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_seed_and_starts_come_from_the_plan_unless_given() -> None:
    planned = plan("L1H1").replace(seed=11, init="xavier_normal", output_start="keep_output")
    patient = operate(pico("bloom"), planned)
    assert (patient.seed, patient.init, patient.output_start) == (
        11,
        "xavier_normal",
        "keep_output",
    )
    patient = operate(pico("bloom"), planned, 2, init="none", output_start="zero_output")
    assert (patient.seed, patient.init, patient.output_start) == (2, "none", "zero_output")


# --- refusals ------------------------------------------------------------------------------------


def test_an_unknown_family_and_an_encoder_are_refused() -> None:
    encoder = BertModel(
        BertConfig(
            vocab_size=97,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        )
    )
    with pytest.raises(UnsupportedModel, match="bert"):
        operate(encoder, plan("L0H0"))


def test_heads_out_of_range_are_named() -> None:
    with pytest.raises(HeadError, match=r"L7H1.*layers 0–2 and heads 0–3"):
        operate(pico("bloom"), plan("L1H1", "L7H1"))


def test_a_plan_that_only_watches_is_refused() -> None:
    watching = Plan(model="pico", rule="band", heads=(PlannedHead(id=HeadId(1, 1), role="watch"),))
    with pytest.raises(PlanError, match="operates on no head"):
        operate(pico("bloom"), watching)


def test_a_plan_for_other_weights_is_refused_with_both_fingerprints() -> None:
    other = pico("bloom", seed=1)
    expected = fingerprint(other, layout_of(other))
    model = pico("bloom")
    found = fingerprint(model, layout_of(model))
    with pytest.raises(PlanError, match=f"{expected}.*{found}"):
        operate(model, plan("L1H1").replace(fingerprint=expected))
    operate(model, plan("L1H1").replace(fingerprint=found))


def test_a_plan_may_be_edited_in_every_way_and_still_fits_its_model() -> None:
    model = pico("bloom")
    made = plan("L1H1", "L2H2").replace(fingerprint=fingerprint(model, layout_of(model)))
    fewer = made.replace(heads=made.heads[:1])
    more = made.replace(heads=(PlannedHead(id=HeadId(0, 3)), *made.heads))
    watching = made.replace(heads=(made.heads[0], made.heads[1].replace(role="watch")))
    promoted = watching.replace(heads=(made.heads[0].replace(role="watch"), made.heads[1]))
    for edited in (made, fewer, more, watching, promoted):
        patient = operate(model, edited)
        assert patient.base_fingerprint == made.fingerprint
        patient.revert()


@pytest.mark.parametrize(
    "name",
    ["transformer.h.2.mlp.dense_h_to_4h.weight", "transformer.ln_f.bias", "lm_head.weight"],
)
def test_a_plan_made_on_a_model_whose_other_weights_differ_is_refused(name: str) -> None:
    made_on, model = pico("bloom"), pico("bloom")
    diagnosis = hs.diagnose(hs.measure(made_on, tokens(2)))
    made = hs.plan(diagnosis, "heads", heads=["L1H1"], model=made_on)
    hs.operate(model, made).revert()
    with torch.no_grad():
        model.get_parameter(name)[0] += 0.5
    with pytest.raises(PlanError, match=r"other weights besides .*make a new plan"):
        hs.operate(model, made)
    assert not operated(model)
    hs.operate(model, made.replace(others=None)).revert()
    # a plan without fingerprint is meant for several models, as in a study with a twin
    hs.operate(model, made.replace(fingerprint=None)).revert()


def test_without_a_fingerprint_the_model_is_known_by_its_name(tmp_path: Path) -> None:
    model = pico("bloom")
    operate(model, plan("L1H1")).revert()
    model.name_or_path = "org/other"
    with pytest.raises(PlanError, match=r"made for pico.*org/other"):
        operate(model, plan("L1H1"))
    operate(model, plan("L1H1").replace(model="org/other")).revert()
    operate(model, plan("L1H1").replace(model="unnamed")).revert()
    found = fingerprint(model, layout_of(model))
    operate(model, plan("L1H1").replace(fingerprint=found)).revert()
    (tmp_path / "model").mkdir()
    model.name_or_path = f"{tmp_path}/model/"
    operate(model, plan("L1H1").replace(model=f"{tmp_path}/./model")).revert()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(poison: float) -> None:
    model = pico("bloom")
    name = "transformer.h.1.self_attention.query_key_value.weight"
    with torch.no_grad():
        model.get_parameter(name)[3, 5] = poison
    with pytest.raises(ModelError, match=name):
        operate(model, plan("L1H1"))
    operate(model, plan("L2H1"))


def test_quantised_and_offloaded_weights_are_refused() -> None:
    model = pico("bloom")
    attention = model.transformer.h[1].self_attention
    kept = attention.dense.weight
    attention.dense.weight = nn.Parameter(kept.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match="quantised"):
        operate(model, plan("L1H1"))
    attention.dense.weight = nn.Parameter(kept.detach().to("meta"))
    with pytest.raises(ModelError, match="not in memory"):
        operate(model, plan("L1H1"))
    attention.dense.weight = kept


@pytest.mark.parametrize(
    ("argument", "match"), [("init", "xavier_uniform_head"), ("output_start", "zero_output")]
)
def test_unknown_starts_list_the_known_ones(argument: str, match: str) -> None:
    model = pico("bloom")
    with pytest.raises(SettingsError, match=match):
        operate(model, plan("L1H1"), **{argument: "magic"})
    assert not any("slice_" in name for name, _ in model.named_parameters())
