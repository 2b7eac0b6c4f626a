"""Recovered means function: random heads are not, heads that work again are."""

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from headsurgeon.data import Windows
from headsurgeon.errors import StateError
from headsurgeon.evaluation import Recovery, ablate, empirical_null, evaluate, recovery
from headsurgeon.evaluation.recovery_rule import measure_and_ablate
from headsurgeon.heads import HeadId
from headsurgeon.measurement import measure
from headsurgeon.measurement.layer_capture import LayerCapture
from headsurgeon.measurement.projection_hooks import capturing
from headsurgeon.operation import operate
from headsurgeon.planning import Plan, PlannedHead
from tests.pico import pico
from tests.stand_ins import windows_of

HEADS = (HeadId(1, 2), HeadId(2, 3))
PLAN = Plan(model="pico", rule="heads", heads=tuple(PlannedHead(id=head) for head in HEADS))


def with_part(model: PreTrainedModel, part: str, factor: float) -> None:
    """Scales one part (weight and bias) of the operated heads."""
    layout = layout_of(model)
    for head in HEADS:
        for block in layout.blocks(part, *head):
            with torch.no_grad():
                block.of(model.get_parameter(block.parameter)).mul_(factor)


def working_model() -> PreTrainedModel:
    """A model whose operated heads are sharp, as untrained heads never are, and loud."""
    model = pico("bloom")
    for part in ("query", "key", "output"):
        with_part(model, part, 4.0)
    return model


def text_of(model: PreTrainedModel, documents: int = 12, length: int = 24) -> Windows:
    """Text drawn from the model itself: by construction all that it does lowers the loss on it.

    Every window starts with the same token, so that position 0 always holds the same keys.
    """
    generator = torch.Generator().manual_seed(3)
    tokens = torch.zeros(4 * documents, 1, dtype=torch.long)
    with torch.no_grad():
        for _ in range(length - 1):
            odds = model(tokens).logits[:, -1].softmax(-1)
            tokens = torch.cat([tokens, torch.multinomial(odds, 1, generator=generator)], dim=1)
    return windows_of(tokens, documents=[f"d{index // 4}" for index in range(4 * documents)])


@pytest.fixture(scope="module")
def text() -> Windows:
    return text_of(working_model())


def asleep() -> PreTrainedModel:
    """The same model with its heads collapsed onto the first token and their outputs gone."""
    model = working_model()
    layout = layout_of(model)
    with_part(model, "output", 0.0)
    for head in HEADS:
        weight, bias = layout.blocks("query", *head)
        first = first_key(model, head)
        with torch.no_grad():
            weight.of(model.get_parameter(weight.parameter)).zero_()
            bias.of(model.get_parameter(bias.parameter)).copy_(200.0 * first / first.norm() ** 2)
    return model


def first_key(model: PreTrainedModel, head: HeadId) -> Tensor:
    """The head's key at position 0 of the text."""
    found = {}

    def keep(layer: int, capture: LayerCapture) -> None:
        found[layer] = capture.key[0, :, 0]

    with torch.no_grad(), capturing(model, layout_of(model), keep):
        model(torch.zeros(1, 1, dtype=torch.long))
    return found[head.layer][head.head]


@pytest.mark.parametrize("output_start", ["zero_output", "keep_output"])
@pytest.mark.parametrize("init", ["xavier_uniform_head", "xavier_normal", "model"])
def test_reinitialised_untrained_heads_count_as_none_recovered(
    text: Windows, init: str, output_start: str
) -> None:
    patient = operate(asleep(), PLAN.replace(init=init, output_start=output_start), seed=7)
    found = recovery(patient, text)
    assert found.was_sick.all()
    assert found.left_sick.all()  # which is why leaving the sick class proves nothing
    assert found.recovered == ()


def test_untrained_heads_are_not_recovered_even_if_the_stock_heads_did_harm(text: Windows) -> None:
    model = working_model()
    with_part(model, "output", -1.0)  # adds the opposite of what the text was written with
    patient = operate(model, PLAN, seed=7)
    found = recovery(patient, text, sick_mass=0.0)
    assert found.stock[0].joint.below_zero
    assert found.function[0].above_zero  # doing nothing is better than doing harm …
    assert not found.functional  # … but it is not work


def test_heads_that_work_again_are_recovered(text: Windows) -> None:
    patient = operate(asleep(), PLAN, seed=7)
    healthy = working_model()
    with torch.no_grad():
        for name, part in patient.named_slices().items():
            part.copy_(patient.maps[name].read(healthy.get_parameter(name)))
    found = recovery(patient, [text, text])
    assert found.functional
    assert found.unlike_null.all()
    assert found.left_sick.all()
    assert found.recovered == HEADS
    assert patient.state == "merged"


def test_a_head_that_never_was_sick_cannot_leave_the_sick_class(text: Windows) -> None:
    patient = operate(working_model(), PLAN, seed=7)
    found = recovery(patient, text, sick_mass=0.99)
    assert not found.was_sick.any()
    assert not found.left_sick.any()
    assert found.recovered == ()


def test_the_costs_are_those_that_ablation_measures(text: Windows) -> None:
    patient = operate(working_model(), PLAN, seed=7)
    found = recovery(patient, text)
    patient.revert()
    assert found.stock[0].joint == ablate(patient.model, PLAN, text, singles=False).joint
    assert found.revived[0].joint.value == 0.0


def test_the_null_of_the_gradient_only_control_is_still_untrained(text: Windows) -> None:
    patient = operate(asleep(), PLAN.replace(init="none", output_start="keep_output"))
    patient.revert()
    null = empirical_null(patient, text, (1, 2, 3))
    masses = np.array([[n.first_token_mass[head] for head in HEADS] for n in null])
    assert (masses.std(axis=0) > 0).all()


def test_a_null_is_what_each_seed_reinitialises_and_the_model_is_stock_again(text: Windows) -> None:
    start = {"init": "model", "output_start": "keep_output"}
    patient = operate(working_model(), PLAN.replace(**start), seed=7)
    patient.revert()
    null = empirical_null(patient, text, (8, 9), attention="stock")
    for stats, seed in zip(null, (8, 9), strict=True):
        other = operate(working_model(), PLAN, seed=seed, **start)
        expected = measure(other.model, text, attention="stock")
        assert stats.provenance.attention == expected.provenance.attention
        assert np.array_equal(stats.entropy, expected.entropy)
    assert patient.state == "reverted"
    assert torch.equal(
        patient.model(text.tokens[:1]).logits, working_model()(text.tokens[:1]).logits
    )


def test_statistics_may_be_of_other_windows_and_a_known_loss_is_taken_as_it_is(
    text: Windows,
) -> None:
    model, other = working_model(), text_of(working_model(), documents=2)
    known = evaluate(model, text).model_copy(update={"model": "known"})
    found = measure_and_ablate(
        model, HEADS, text, measured=other, score=known, batch_size=3, attention="stock"
    )
    assert found.stats.documents == other.documents
    assert found.ablation.baseline.model == "known"
    assert found.ablation.singles == {}
    assert found.ablation.ablated.documents == known.documents
    # statistics on the library's attention are computed in blocks beside it
    assert found.stats.provenance.attention == "blocks"
    assert found.ablation.ablated.attention == "stock"


def test_sick_is_what_the_plan_says_unless_a_mass_is_given(text: Windows) -> None:
    thresholds = {"thresholds": {**PLAN.thresholds, "sink": 0.0}}
    for sick_mass, expected in ((None, True), (0.99, False)):
        patient = operate(working_model(), PLAN.replace(**thresholds), seed=7)
        found = recovery(patient, text, sick_mass=sick_mass, null_seeds=(1, 2))
        assert found.was_sick.all() == expected


def test_a_plan_that_operates_on_nothing_has_nothing_to_recover(text: Windows) -> None:
    patient = operate(working_model(), PLAN)
    patient.plan = Plan(model="pico", rule="heads", heads=())
    with pytest.raises(StateError, match="no head"):
        recovery(patient, text)


def test_without_a_corpus_nothing_is_functional() -> None:
    nothing = np.zeros(2, dtype=bool)
    assert not Recovery(
        heads=HEADS,
        was_sick=nothing,
        left_sick=nothing,
        unlike_null=nothing,
        stock=(),
        revived=(),
        function=(),
        null=(),
    ).functional
