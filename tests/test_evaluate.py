"""Loss, ablation and their intervals."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import headsurgeon
from headsurgeon.arch import layout_of
from headsurgeon.errors import HeadError, InputError, SettingsError
from headsurgeon.evaluation import ablate, ablating, ablation_cost, drift, evaluate
from headsurgeon.heads import HeadId
from headsurgeon.measurement import measure
from headsurgeon.planning import AblationMode
from headsurgeon.records import Record
from headsurgeon.scores import Evaluation, difference, difference_of_differences, recovered_share
from tests.pico import PICO, pico
from tests.pico import tokens as random_tokens
from tests.stand_ins import windows_of


def scored(nll: list[float], tokens: list[float] | None = None, name: str = "m") -> Evaluation:
    """An evaluation with the given summed losses, ten tokens a document unless said otherwise."""
    weights = np.array(tokens or [10.0] * len(nll))
    return Evaluation(
        model=name,
        corpus="stand-in",
        split="test",
        length=11,
        stride=11,
        corpus_hash="0",
        count=len(nll),
        first_token="none",
        seed=0,
        documents=tuple(f"d{index}" for index in range(len(nll))),
        document_nll=np.array(nll),
        document_tokens=weights,
    )


def test_loss_is_the_token_weighted_cross_entropy_of_the_model() -> None:
    model = pico("bloom")
    windows = windows_of(random_tokens(5, 12), documents="aabbc")
    evaluation = evaluate(model, windows, batch_size=2)
    with torch.no_grad():
        logits = model(windows.tokens).logits
    loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), windows.tokens[:, 1:].flatten())
    assert evaluation.nll == pytest.approx(float(loss), abs=1e-5)
    assert evaluation.perplexity == pytest.approx(math.exp(float(loss)), rel=1e-4)
    assert evaluation.documents == ("a", "b", "c")
    assert evaluation.document_tokens.tolist() == [22.0, 22.0, 11.0]


def test_evaluating_does_not_switch_dropout_on_or_off_for_good() -> None:
    model = pico("bloom", hidden_dropout=0.5).train()
    windows = windows_of(random_tokens(2, 8))
    assert evaluate(model, windows).nll == evaluate(model, windows).nll
    assert all(module.training for module in model.modules())


def test_a_single_document_has_a_loss_but_no_interval() -> None:
    interval = scored([30.0]).interval()
    assert interval.value == 3.0
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert not interval.above_zero


def test_difference_is_paired() -> None:
    hard_and_easy = [10.0, 90.0, 40.0, 55.0, 20.0, 71.0]
    better = scored([value - 1.0 for value in hard_and_easy])
    gain = difference(scored(hard_and_easy), better)
    assert gain.value == pytest.approx(0.1)
    # unpaired, the spread between documents would drown a constant gain
    assert gain.low == pytest.approx(0.1)
    assert gain.high == pytest.approx(0.1)


def test_different_documents_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="different windows"):
        difference(scored([1.0, 2.0]), scored([1.0, 2.0, 3.0]))


def test_difference_of_differences_cancels_what_both_share() -> None:
    base = scored([10.0, 20.0, 30.0])
    worse = scored([12.0, 22.0, 32.0])
    assert difference_of_differences((worse, base), (worse, base)).value == 0.0


@settings(max_examples=30, deadline=None)
@given(st.floats(0.0, 1.5), st.integers(0, 1000))
def test_recovered_share_returns_the_share_that_was_put_in(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ceiling = rng.uniform(20, 40, size=12)
    sick = ceiling + rng.uniform(1, 2, size=12)
    repaired = sick - share * (sick - ceiling)
    estimate = recovered_share(
        scored(list(sick)), scored(list(repaired)), scored(list(ceiling)), draws=200
    )
    assert estimate.value == pytest.approx(share)
    assert estimate.low == pytest.approx(share)
    assert estimate.high == pytest.approx(share)


def test_recovered_share_is_undefined_without_a_real_gap() -> None:
    sick, ceiling = scored([10.0, 12.0, 9.0, 11.0]), scored([12.0, 10.0, 11.0, 9.0])
    assert math.isnan(recovered_share(sick, sick, ceiling).value)


@pytest.mark.parametrize("family", PICO)
def test_ablating_a_head_equals_zeroing_its_output_columns(family: str) -> None:
    model = pico(family)
    layout = layout_of(model)
    tokens = random_tokens(2, 9)
    with torch.no_grad(), ablating(model, layout, [HeadId(1, 2), HeadId(2, 0)]):
        silent = model(tokens).logits
    for layer, head in [(1, 2), (2, 0)]:
        (block,) = layout.blocks("output", layer, head)
        with torch.no_grad():
            block.of(model.get_parameter(block.parameter)).zero_()
    with torch.no_grad():
        assert torch.allclose(silent, model(tokens).logits, atol=1e-6)


def test_ablating_leaves_no_hook_behind_even_after_an_error() -> None:
    model = pico("bloom")
    with pytest.raises(KeyError), ablating(model, layout_of(model), [HeadId(0, 0)]):
        raise KeyError
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_ablating_a_head_that_adds_nothing_costs_nothing() -> None:
    model = pico("bloom")
    layout = layout_of(model)
    (block,) = layout.blocks("output", 1, 1)
    with torch.no_grad():
        block.of(model.get_parameter(block.parameter)).zero_()
    result = ablate(model, ["L1H1", "L0H2"], windows_of(random_tokens(6, 10), documents="aabbcc"))
    assert result.singles[HeadId(1, 1)].value == 0.0
    assert result.singles[HeadId(0, 2)].value != 0.0
    assert result.joint.value == pytest.approx(result.singles[HeadId(0, 2)].value, abs=1e-6)


def test_mean_ablation_of_a_constant_head_costs_nothing() -> None:
    model = pico("bloom")
    layout = layout_of(model)
    value_weight, value_bias = layout.blocks("value", 1, 3)
    with torch.no_grad():
        value_weight.of(model.get_parameter(value_weight.parameter)).zero_()
        value_bias.of(model.get_parameter(value_bias.parameter)).fill_(0.7)
    windows = windows_of(random_tokens(4, 10))
    zero = ablate(model, ["L1H3"], windows, singles=False)
    mean = ablate(model, ["L1H3"], windows, mode="mean", singles=False)
    assert abs(mean.joint.value) < 1e-6 < abs(zero.joint.value)


def test_ablating_a_head_the_model_lacks_is_an_error() -> None:
    with pytest.raises(HeadError, match="L9H0"):
        ablate(pico("bloom"), ["L9H0"], windows_of(random_tokens(2, 8)))


def test_ablating_nothing_is_an_error() -> None:
    with pytest.raises(SettingsError):
        ablate(pico("bloom"), [], windows_of(random_tokens(2, 8)))


def test_the_cost_of_a_set_is_what_ablation_measures() -> None:
    model = pico("bloom")
    windows = windows_of(random_tokens(4, 10))
    cost = ablation_cost(model, windows)
    measured = ablate(model, ["L0H1", "L2H3"], windows)
    assert cost([HeadId(0, 1), HeadId(2, 3)]) == pytest.approx(measured.joint.value)
    assert cost([HeadId(0, 1)]) == pytest.approx(measured.singles[HeadId(0, 1)].value)


@pytest.mark.parametrize(
    "changes",
    [{"corpus_hash": "1"}, {"split": "dev"}, {"length": 12}, {"seed": 1}, {"first_token": "</s>"}],
)
def test_documents_of_one_name_from_other_text_cannot_be_compared(
    changes: dict[str, object],
) -> None:
    first = scored([1.0, 2.0])
    with pytest.raises(InputError, match=f"different: {next(iter(changes))}"):
        difference(first, first.replace(**changes))


def test_recovered_share_is_undefined_where_draws_without_a_gap_are_not_rare() -> None:
    # 1 % of draws have no gap, though the interval of the gap excludes 0
    gaps = np.array([3.1, -0.9, 2.6, -0.5, 2.1, -0.3, 1.5, 0.7])
    sick, ceiling = scored(list(20.0 + gaps)), scored([20.0] * len(gaps))
    gap = difference(sick, ceiling)
    assert gap.above_zero
    assert gap.low < 0.2
    assert math.isnan(recovered_share(sick, sick, ceiling).value)


def test_bare_token_ids_can_be_evaluated_and_ablated() -> None:
    model, tokens = pico("bloom"), random_tokens(4, 10)
    named = evaluate(model, windows_of(tokens))
    bare = evaluate(model, tokens)
    assert bare.nll == named.nll
    assert bare.documents == ("window-0", "window-1", "window-2", "window-3")
    assert ablate(model, ["L0H1"], tokens).baseline.nll == named.nll
    assert ablation_cost(model, tokens)([HeadId(0, 1)]) != 0.0
    with pytest.raises(SettingsError, match=r"shape \[10\]"):
        evaluate(model, tokens[0])


def test_bare_tokens_that_differ_cannot_be_compared() -> None:
    model = pico("bloom")
    with pytest.raises(InputError, match="corpus_hash"):
        difference(evaluate(model, random_tokens(3, 8)), evaluate(model, random_tokens(3, 8) * 0))


def test_the_stride_leaves_out_every_added_token() -> None:
    windows = replace(windows_of(random_tokens(2, 8)), first_token="<s></s>", prefix=2)
    assert evaluate(pico("bloom"), windows).stride == 6


def test_the_file_holds_every_document_and_how_windows_were_chosen() -> None:
    windows = replace(windows_of(random_tokens(3, 8), documents="aab"), seed=5, first_token="x")
    found = evaluate(pico("bloom"), windows).model_dump()
    assert (found["count"], found["seed"], found["first_token"]) == (3, 5, "x")
    assert [(part["document"], part["tokens"]) for part in found["per_document"]] == [
        ("a", 14),
        ("b", 7),
    ]
    total = sum(part["nll"] for part in found["per_document"])
    assert total / 21 == pytest.approx(found["nll"]["value"])


@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_the_batch_size_reaches_every_forward_pass_of_ablation(mode: AblationMode) -> None:
    model, windows = pico("bloom"), windows_of(random_tokens(4, 10))
    # compares the model's own loss with ours, once
    evaluate(model, windows)
    sizes: set[int] = set()
    model.base_model.register_forward_pre_hook(
        lambda module, inputs, named: sizes.add(len(named["input_ids"])), with_kwargs=True
    )
    ablate(model, ["L0H1"], windows, mode=mode, batch_size=2)
    ablation_cost(model, windows, batch_size=2)([HeadId(0, 1)])
    assert sizes == {2}


def test_results_that_hold_arrays_can_be_asked_whether_they_are_equal() -> None:
    windows = windows_of(random_tokens(2, 8))
    evaluation = evaluate(pico("bloom"), windows)
    stats = measure(pico("bloom"), windows)
    for result in (windows, evaluation, stats, drift(stats, stats)):
        again = result.replace() if isinstance(result, Record) else replace(result)
        assert result != again
        assert len({result, result}) == 1


def test_double_precision_exists_on_the_cpu_alone() -> None:
    sources = Path(str(headsurgeon.__file__)).parent.rglob("*.py")
    calls = [
        f"{path.name}: {line.strip()}"
        for path in sources
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.replace(".cpu().double()", "").count(".double()")
    ]
    assert calls == []


def test_costs_under_mean_are_those_of_ablate_and_need_not_be_those_under_zero() -> None:
    model, batch = pico("bloom"), random_tokens(4, 24)
    heads = [HeadId(1, 0), HeadId(2, 3)]
    costs = {mode: ablation_cost(model, batch, mode=mode)(heads) for mode in ("zero", "mean")}
    for mode, cost in costs.items():
        expected = ablate(model, heads, batch, mode=mode, singles=False).joint.value
        assert cost == pytest.approx(expected, abs=1e-6)
    assert costs["zero"] != costs["mean"]
