"""What a study says in words depends on its intervals alone, whoever wins."""

from typing import Any

import numpy as np
import pytest

from headsurgeon.report.study_before import verdicts
from headsurgeon.report.study_tables import losses
from headsurgeon.report.wording import ceiling_in_words, sentence, shares_in_words
from headsurgeon.study import Study, load_results
from headsurgeon.study.decision_rule import Decision, Share, decisions_of
from tests.documented import ROOT
from tests.head_stats import diagnosis_of
from tests.studies import with_arms

TWINS_HARM = ROOT / "docs" / "results" / "twins-harm"


def decision(**changes: Any) -> Decision:
    fields = {
        "contrast": "q",
        "question": "improves",
        "arm": "paper",
        "against": "untouched",
        "trained_on": "code",
        "text": "code",
        "value": -0.02,
        "low": -0.03,
        "high": -0.01,
        "level": 0.95,
        "margin": 0.0,
        "documents": 91,
        "seeds": 1,
        "minimum_detectable": 0.01,
        "outcome": "better",
    }
    return Decision.model_validate({**fields, **changes})


@pytest.mark.parametrize("question", ["improves", "mechanism", "pruning", "harms", "compare"])
def test_each_outcome_of_a_question_has_a_sentence_of_its_own_with_the_figures(
    question: str,
) -> None:
    outcomes = ("better", "worse", "equivalent", "undecided")
    said = [sentence(decision(question=question, outcome=each)) for each in outcomes]
    assert len(set(said)) == 4
    for each in said:
        assert "−0.0200 [−0.0300, −0.0100] nats per token" in each
        assert "91 documents, one seed" in each


def test_an_open_question_is_never_told_as_a_victory() -> None:
    for question in ("improves", "mechanism", "pruning", "recovers"):
        text = sentence(decision(question=question, outcome="undecided"))
        assert "NOT" in text


def test_of_recovery_the_growth_of_the_cost_is_told() -> None:
    text = sentence(decision(question="recovers", outcome="better"))
    assert "cost now − cost before = +0.0200 [+0.0100, +0.0300]" in text


def test_one_document_gives_no_interval() -> None:
    text = sentence(decision(low=None, high=None, outcome="undecided"))
    assert "no interval" in text


def test_a_share_is_given_only_where_the_gap_is_real() -> None:
    known = Share(
        arm="paper", trained_on="code", text="code", value=0.08, low=0.05, high=0.1, gap=0.33
    )
    study = Study.load("twins-quick")
    assert "paper 8 % [5, 10]" in shares_in_words([known], study)
    little = known.model_copy(update={"value": -0.001, "low": -0.02, "high": 0.004})
    assert "paper 0 % [−2, 0]" in shares_in_words([little], study)
    unclear = known.model_copy(update={"value": None, "low": None, "high": None, "gap": 0.01})
    assert "undefined" in shares_in_words([unclear], study)
    assert "%" not in shares_in_words([unclear], study)
    assert shares_in_words([], study) == ""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "the healthy twin, its same slices trained on the same tokens"),
        ({"method": "full"}, "the healthy twin, the whole of it trained on the same tokens"),
        ({"method": "lora"}, "the healthy twin, adapters on it trained on the same tokens"),
        ({"method": "none"}, "the healthy twin, as it is"),
    ],
)
def test_what_all_of_it_would_be_is_said_of_the_ceiling_of_the_study(
    fields: dict[str, Any], words: str
) -> None:
    study = with_arms(Study.load("twins"), "paper", {"name": "ceiling", **fields})
    assert ceiling_in_words(study) == words


def test_verdicts_on_every_text_stand_side_by_side() -> None:
    code = diagnosis_of([[0.1, 0.2], [0.6, 0.9], [0.7, 0.1]])
    prose = diagnosis_of([[0.1, 0.2], [0.1, 0.8], [0.97, 0.1]])
    table = verdicts({"code": code, "prose": prose})
    assert table.columns == ("verdict", "code", "prose")
    rows = {name: cells for name, *cells in table.rows}
    assert rows["sink"] == ["3", "1"]
    assert rows["dead"] == ["0", "1"]
    assert rows["sick: sink or dead"] == ["3", "2"]
    assert "On code an untrained head would show" in table.note
    assert "0.600 to 0.900" in table.note
    assert not np.isnan(code.stats.null_mass).any()


def test_what_is_open_about_a_harm_is_whether_it_goes_beyond_the_margin() -> None:
    harm = {"question": "harms", "value": 0.005, "low": 0.003, "high": 0.007}
    text = sentence(decision(**harm, margin=0.005, outcome="undecided"))
    assert "by more than 0.005 nats is open" in text
    text = sentence(decision(**{**harm, "low": -0.003}, outcome="undecided"))
    assert "which it was not trained on, is open" in text


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        ("other", "which it was not trained on"),
        ("anchor", "which it was held to the untouched model on"),
        ("part", "which it was trained on among others"),
        ("trained", "which it was trained on"),
    ],
)
def test_a_harm_is_told_with_what_the_arm_read_of_the_text(reading: str, words: str) -> None:
    found = decision(
        text="prose", question="harms", value=0.02, low=0.01, high=0.03, outcome="worse"
    )
    assert f"HARMED prose, {words}: " in sentence(found.model_copy(update={"reading": reading}))


def test_texts_that_share_a_corpus_with_the_trained_one_are_no_others() -> None:
    study = Study.load("twins")
    assert study.others("own") == ("prose", "unseen")
    assert study.reading("paper", "own", "own") == "trained"
    assert study.reading("paper", "own", "scripture") == "part"
    assert study.reading("paper", "own", "prose") == "other"
    assert study.reading("mixed", "own", "prose") == "part"
    assert study.reading("anchor", "own", "prose") == "anchor"
    assert study.reading("ablate_mean", "own", "own") == "other"
    harms = [
        each.text for each in decisions_of(load_results(TWINS_HARM)) if each.contrast == "harms"
    ]
    assert harms == ["prose", "networks", "scripture", "unseen"]
    title = losses(load_results(TWINS_HARM), "code", "prose").title
    assert title.endswith("read besides by recommended_mixed, recommended_anchored, paper_mixed)")
