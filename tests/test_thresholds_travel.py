"""What counts as sick in the diagnosis counts as sick in plan, training, evaluation and report."""

import numpy as np
import pytest

import headsurgeon as hs
from headsurgeon.diagnosis import Thresholds
from headsurgeon.errors import SettingsError
from headsurgeon.evaluation import drift, recovery
from headsurgeon.evaluation.recovery_rule import _pick
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.report.data import HeadView
from headsurgeon.report.head_map_figure import legend
from headsurgeon.report.mass_figure import MassPanel, mass_histogram
from headsurgeon.training import train, train_settings
from tests.head_stats import stats_of
from tests.pico import pico, tokens
from tests.stand_ins import windows_of

BEFORE = np.array([[[0.6, 0.8], [0.2, 0.65]]])
AFTER = np.array([[[0.1, 0.6], [0.75, 0.65]]])


def plan_at(sink: float, **changes: object) -> Plan:
    diagnosis = hs.diagnose(stats_of(BEFORE), Thresholds(sink=sink), draws=20)
    return hs.plan(diagnosis, **changes)  # type: ignore[arg-type]


def test_a_plan_holds_the_limits_of_its_diagnosis_also_as_a_file() -> None:
    plan = plan_at(0.7)
    assert [str(head) for head in plan.operated] == ["L0H1"]
    assert Plan.from_yaml(plan.to_yaml()).limits == Thresholds(sink=0.7)
    assert Plan(model="m", rule="heads", heads=()).limits == Thresholds()


def test_limits_that_make_no_sense_are_refused_when_they_are_used() -> None:
    with pytest.raises(SettingsError, match="thresholds"):
        _ = Plan(model="m", rule="heads", heads=(), thresholds={"sink": 1.5}).limits


@pytest.mark.parametrize(("sink", "fell_sick"), [(0.5, 1), (0.7, 1), (0.78, 0)])
def test_drift_judges_by_the_limits_of_the_plan(sink: float, fell_sick: int) -> None:
    plan = plan_at(sink, rule="heads", heads=["L0H1"])
    table = drift(stats_of(BEFORE), stats_of(AFTER), plan).transitions
    assert table["untouched"]["healthy", "sick"] == fell_sick


def test_watched_heads_are_counted_apart_from_those_outside() -> None:
    heads = (
        PlannedHead(id=hs.HeadId(0, 1)),
        PlannedHead(id=hs.HeadId(1, 0), role="watch"),
    )
    found = drift(stats_of(BEFORE), stats_of(AFTER), Plan(model="m", rule="band", heads=heads))
    assert found.watched == (hs.HeadId(1, 0),)
    assert found.zones["watched"] == {"heads": 1, "could_drift": 1, "drifted": 1}
    # L0H0 lies in the lowest operated layer, but it did change, so it could
    assert found.zones["outside"]["heads"] == 2
    assert found.transitions["watched"]["healthy", "sick"] == 1
    assert sum(found.transitions["outside"].values()) == 2
    assert found.model_dump()["zones"] == found.zones


def test_recovery_and_training_judge_by_the_limits_of_the_plan(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = pico("bloom")
    masses = hs.measure(model, tokens(2, 16)).first_token_mass
    head = hs.HeadId(*map(int, np.unravel_index(masses.argmax(), masses.shape)))
    assert masses.max() < 0.5
    below = float(masses.max()) - 1e-3
    plan = Plan(model="m", rule="heads", heads=(PlannedHead(id=head),), thresholds={"sink": below})
    found = recovery(hs.operate(model, plan), windows_of(tokens(2, 16)), null_seeds=(1, 2))
    assert found.was_sick.tolist() == [True]
    assert _pick(masses, [head]) < 0.5

    fresh = pico("bloom")
    counted = []
    for limits in ({}, {"sink": 0.0, "dead": 0.95}):
        patient = hs.operate(
            fresh, Plan(model="m", rule="heads", heads=(PlannedHead(id=head),), thresholds=limits)
        )
        settings = train_settings(
            length=16, max_tokens=16, batch_size=1, dev_windows=2, statistics_windows=2
        )
        train(
            patient,
            windows_of(tokens(2, 16), corpus="train"),
            windows_of(tokens(2, 16)),
            output=tmp_path / str(len(counted)),
            settings=settings,
            on_step=lambda event: counted.append(event.healthy),
        )
        patient.revert()
    assert counted[0] > counted[-1] == 0


def test_pictures_name_the_limits_that_were_used() -> None:
    diagnosis = hs.diagnose(stats_of(BEFORE), Thresholds(sink=0.7, dead=0.9), draws=20)
    limits = diagnosis.thresholds
    view = HeadView.of("m", diagnosis.stats, diagnosis.verdicts, diagnosis.borderline, limits)
    assert legend([view]).startswith("S sink (mass > 0.7), D dead (mass > 0.9)")
    mass = BEFORE.ravel()
    figure = mass_histogram([MassPanel.of("m", mass, mass / 9)], thresholds=limits, title="t")
    notes = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"sick above 0.7", "dead above 0.9"} <= notes
