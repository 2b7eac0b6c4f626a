"""The best step and its interval, chosen on dev text, reported on test; when a run turns bad."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headsurgeon as hs
from headsurgeon.errors import InputError
from headsurgeon.evaluation import DocumentLosses, LossCurve

STEPS = (0, 1, 2, 3, 4, 5)
VALLEY = np.array([2.0, 1.5, 1.0, 1.2, 1.4, 1.6])


def curve(
    course: Any = VALLEY, noise: float = 0.0, documents: int = 12, **fields: Any
) -> LossCurve:
    """A loss over time; `noise` differs by document and moment, and cancels over documents."""
    course = np.asarray(course, dtype=np.float64)
    drawn = np.random.default_rng(0).normal(size=(len(course), documents)) * noise
    loss = course[:, None] + drawn - drawn.mean(axis=1, keepdims=True)
    tokens = np.full(documents, 50.0)
    found = DocumentLosses(tokens=tokens, loss=loss, untouched=np.full(documents, 1.8))
    return LossCurve(
        **{"name": "dev", "untouched": 1.8, "loss": course, "documents": found, **fields}
    )


def sweep(dev: LossCurve, *probes: LossCurve) -> hs.Sweep:
    steps = STEPS[: len(dev.loss)]
    return hs.Sweep(run="first", model="pico", steps=steps, dev=dev, probes=probes)


def test_a_clear_minimum_has_a_narrow_interval() -> None:
    found = sweep(curve()).minimum
    assert (found.step, found.low, found.high, found.share) == (2, 2, 2, 1.0)
    assert found.loss == 1.0
    assert found.change.value == pytest.approx(-0.8)


def test_a_minimum_that_documents_disagree_on_has_a_wide_one() -> None:
    found = sweep(curve([1.2, 1.01, 1.0, 1.01, 1.02, 1.5], noise=0.3)).minimum
    assert found.step == 2
    assert found.low < 2 < found.high
    # bounds are steps that were evaluated
    assert {found.low, found.high} <= set(STEPS)
    assert 0.1 < found.share < 0.9


def test_documents_count_by_their_tokens() -> None:
    loss = np.array([[1.0, 3.0], [2.0, 1.0]])
    found = DocumentLosses(tokens=np.array([99.0, 1.0]), loss=loss, untouched=np.array([2.0, 2.0]))
    few = LossCurve(name="dev", untouched=2.0, loss=loss @ [0.99, 0.01], documents=found)
    minimum = sweep(few).minimum
    assert minimum.step == 0
    # a draw of the short document alone has its minimum elsewhere
    assert minimum.share == pytest.approx(0.75, abs=0.02)


def test_onset_is_where_the_loss_stays_worse_than_its_minimum() -> None:
    assert sweep(curve()).onset.step == 3
    late = sweep(curve([2.0, 1.5, 1.0, 1.001, 1.4, 1.6], noise=0.05)).onset
    assert (late.step, late.known) == (4, True)
    assert late.excess.value == pytest.approx(0.6)
    assert late.excess.low > 0.5


def test_a_loss_that_comes_back_has_not_turned_bad_before() -> None:
    assert sweep(curve([2.0, 1.0, 1.6, 1.001, 1.4, 1.6], noise=0.05)).onset.step == 4
    assert sweep(curve([2.0, 1.0, 1.6, 1.4, 1.3, 1.001], noise=0.05)).onset.step is None
    assert sweep(curve([2.0, 1.8, 1.6, 1.4, 1.3, 1.0])).onset.step is None


@pytest.mark.parametrize("dev", [curve(documents=1), curve(documents=1).replace(documents=None)])
def test_without_several_documents_there_is_a_minimum_and_no_interval(dev: LossCurve) -> None:
    found = sweep(dev)
    assert found.minimum.step == 2
    assert np.isnan([found.minimum.low, found.minimum.high, found.minimum.share]).all()
    assert (found.onset.step, found.onset.known) == (None, False)
    assert np.isnan(found.onset.excess.low)


def test_the_step_is_chosen_on_dev_and_reported_on_test() -> None:
    test = curve(VALLEY[::-1] + 0.1, name="held", split="test")
    other = curve(VALLEY[::-1], name="far", split="dev")
    found = sweep(curve(), test, other)
    assert found.minimum.step == 2
    assert [each.name for each in found.reported] == ["held"]
    assert found.reported[0].loss == pytest.approx(VALLEY[::-1][2] + 0.1)
    assert found.reported[0].change.value == pytest.approx(VALLEY[::-1][2] + 0.1 - 1.8)
    # its own minimum is elsewhere, and chose nothing
    assert found.probe_minima["held"].step == 3


def test_losses_of_other_steps_or_documents_are_refused() -> None:
    with pytest.raises(InputError, match="expected a loss at each step"):
        sweep(curve(), curve(VALLEY[:3], name="far"))
    with pytest.raises(InputError, match="a loss is no finite number"):
        curve([1.0, np.nan])
    with pytest.raises(InputError, match="expected a loss of each document at each moment"):
        curve(loss=VALLEY[:2])


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    found = sweep(curve(noise=0.1), curve(name="held", split="test").replace(documents=None))
    found.save(tmp_path / "sweep.json")
    same = hs.Sweep.load(tmp_path / "sweep.json")
    assert same.minimum == found.minimum
    assert same.onset == found.onset
    assert str(same.reported) == str(found.reported)
