"""Which text commands read: mixtures, packings, given texts; recorded, and printed to be reused."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from headsurgeon.cli.further_texts import anchor_windows, probe_windows
from headsurgeon.cli.option_texts import mixed_corpus
from headsurgeon.diagnosis import Diagnosis
from headsurgeon.errors import CorpusError, SettingsError
from headsurgeon.training import TrainSettings
from tests.char_tokenizer import char_tokenizer
from tests.clinic import checkpoint, run, sick_bloom, write_text

MIXED = "2*text:docs/*.txt+text:more/*.txt"
BOTH = ("--corpus", "text:docs/*.txt", "--corpus", "text:more/*.txt", "--weights", "2,1")


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("texts")
    checkpoint(folder / "sick", sick_bloom())
    write_text(folder / "docs", characters=90)
    write_text(folder / "more", characters=120)
    (folder / "probe.txt").write_text("the head looked at the first token")
    (folder / "probes.json").write_text(json.dumps(["a short one", "a text of another length"]))
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        yield folder


def test_a_mixture_and_a_packing_go_from_the_diagnosis_to_the_evaluation(clinic: Path) -> None:
    reading = ("--length", "24", "--packing", "separated")
    said = run("diagnose", "sick", "--corpus", MIXED, *reading, "--count", "6", "--output", "out")
    assert said.exit_code == 0, said.stderr
    found = Diagnosis.load(clinic / "out" / "diagnosis.json").stats
    assert (found.provenance.corpus, found.provenance.packing) == (MIXED, "separated")
    assert sum(name.startswith("text:docs/*.txt::") for name in found.documents) == 4
    said = run("plan", "out", "--rule", "sick", "-o", "plan.yaml", "--no-costs")
    assert f"--corpus '{MIXED}' --length 24 --packing separated" in said.stdout.replace("\n", " ")
    said = run(
        *("operate", "sick", "--plan", "plan.yaml", *BOTH, *reading, "--output", "run", "--yes"),
        *("--max-tokens", "192", "--dev-windows", "2", "--batch-size", "1"),
    )
    assert said.exit_code == 0, said.stderr
    identity = json.loads((clinic / "run" / "run.json").read_text())["identity"]
    assert identity["train"]["corpus"] == MIXED
    assert identity["settings"]["packing"] == "separated"
    assert f"--corpus '{MIXED}' --length 24 --packing separated" in said.stdout.replace("\n", " ")


def test_one_given_text_is_diagnosed_whole(clinic: Path) -> None:
    said = run("diagnose", "sick", "--corpus", "texts:probe.txt", "--output", "one")
    assert said.exit_code == 0, said.stderr
    found = Diagnosis.load(clinic / "one" / "diagnosis.json").stats
    assert found.documents == ("probe.txt",)
    assert found.provenance.length == len((clinic / "probe.txt").read_text()) + 1
    said = run("plan", "one", "--rule", "sick", "-o", "one.yaml")
    assert said.exit_code == 0, said.stderr
    assert "--corpus SPEC" in said.stdout


def test_given_texts_are_scored_under_both_weightings(clinic: Path) -> None:
    said = run("evaluate", "sick", "--corpus", "texts:probes.json", "--output", "scores.json")
    assert said.exit_code == 0, said.stderr
    assert "weighted by T" in " ".join(said.stdout.split())
    (found,) = json.loads((clinic / "scores.json").read_text())["evaluations"].values()
    assert found["tokens"] == len("a short one") + len("a text of another length")
    assert found["perplexity"] != found["perplexity_weighted_by_length"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("diagnose", "sick", "--corpus", "texts:none.txt", "--output", "o"), "cannot be read"),
        (
            ("diagnose", "sick", "--corpus", "texts:probe.txt,text:docs/*.txt", "--output", "o"),
            "put them into one file",
        ),
        (
            (
                "diagnose",
                "sick",
                "--corpus",
                "texts:probe.txt",
                "--first-token-test",
                "--output",
                "o",
            ),
            "needs windows of one length",
        ),
        (
            ("diagnose", "sick", "--corpus", MIXED, "--packing", "lines", "--output", "o"),
            "expected a packing",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(
    clinic: Path, arguments: tuple[str, ...], message: str
) -> None:
    said = run(*arguments)
    assert said.exit_code == 2
    assert message in " ".join(said.stderr.split())


def test_weights_on_the_command_line_are_numbers_one_per_corpus() -> None:
    corpora = ["text:docs/*.txt", "text:more/*.txt"]
    assert mixed_corpus(corpora, "2,1") == MIXED
    assert mixed_corpus(corpora, None) == "text:docs/*.txt+text:more/*.txt"
    assert mixed_corpus(corpora[:1], None) == corpora[0]
    with pytest.raises(SettingsError, match="--weights: expected a number per --corpus"):
        mixed_corpus(corpora, "two,one")
    with pytest.raises(SettingsError, match="3 weights for 2 corpora"):
        mixed_corpus(corpora, "1,2,3")
    with pytest.raises(CorpusError):
        mixed_corpus(["nonsense", "package:a"], None)


def test_given_texts_are_no_corpus_to_train_on(clinic: Path) -> None:
    from headsurgeon.data import documents

    with pytest.raises(CorpusError, match="read whole, to measure or to score"):
        list(documents("texts:probe.txt"))


@pytest.mark.usefixtures("clinic")
def test_given_texts_are_no_probe_and_no_anchor() -> None:
    settings, tokenizer = TrainSettings(max_tokens=64, length=8, dev_windows=2), char_tokenizer()
    with pytest.raises(SettingsError, match="given texts are not cut into windows"):
        probe_windows(["short=texts:probes.json"], tokenizer, settings)
    with pytest.raises(SettingsError, match="given texts are not cut into windows"):
        anchor_windows("texts:probes.json", tokenizer, settings)
