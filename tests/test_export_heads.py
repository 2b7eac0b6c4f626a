"""A diagnosis in the forms of tools for KV caches: what they read is what was measured."""

import json
from pathlib import Path

import numpy as np
import pytest

from headsurgeon.diagnosis import Diagnosis, cache_roles
from headsurgeon.errors import SettingsError
from tests.clinic import READING, checkpoint, run, sick_bloom, write_text


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("export")
    checkpoint(home / "pico", sick_bloom())
    write_text(home / "docs")
    corpus = f"text:{home}/docs/*.txt"
    reading = (READING[0], corpus, *READING[2:])
    said = run("diagnose", home / "pico", *reading, "--output", home / "sick")
    assert said.exit_code == 0, said.output
    return home / "sick"


@pytest.fixture(scope="module")
def diagnosis(sick: Path) -> Diagnosis:
    return Diagnosis.load(sick / "diagnosis.json")


def test_duoattention_reads_the_gates_as_it_reads_its_own(sick: Path, tmp_path: Path) -> None:
    said = run("export-heads", sick, "--format", "tsv", "--output", tmp_path / "out")
    assert said.exit_code == 0, said.output
    # as its load_attn_pattern and kvpress' DuoAttentionPress do
    gates = np.loadtxt(tmp_path / "out" / "full_attention_heads.tsv", dtype=float, delimiter="\t")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    diagnosis = Diagnosis.load(sick / "diagnosis.json")
    assert gates.shape == diagnosis.stats.shape
    assert np.allclose(gates, cache_roles.elsewhere(diagnosis), atol=1e-6)
    assert (config["sink_size"], config["recent_size"]) == (128, 256)
    # the two heads that look at the first token alone need no more of their cache
    assert gates[1, 2] < 0.1
    assert gates[1, 3] < 0.1


def test_headkv_reads_the_scores_as_it_reads_its_own(
    sick: Path, diagnosis: Diagnosis, tmp_path: Path
) -> None:
    said = run("export-heads", sick / "diagnosis.json", "--output", tmp_path / "out")
    assert said.exit_code == 0, said.output
    head_list = json.loads((tmp_path / "out" / "heads.json").read_text())
    found = {
        tuple(int(part) for part in name.split("-")): np.mean(scores)
        for name, scores in head_list.items()
    }
    assert set(found) == set(np.ndindex(*diagnosis.stats.shape))
    assert min(found, key=lambda head: found[head]) in {(1, 2), (1, 3)}


def test_roles_are_sinks_where_heads_are_sick_and_say_what_they_were_measured_on(
    sick: Path, diagnosis: Diagnosis, tmp_path: Path
) -> None:
    run("export-heads", sick, "--output", tmp_path / "out")
    content = json.loads((tmp_path / "out" / "roles.json").read_text())
    assert content["kind"] == "cache_roles"
    assert content["measured_on"]["count"] == 24
    named = np.array(content["roles"])
    assert np.array_equal(named == "sink", diagnosis.is_sick)
    healthy = ~diagnosis.is_sick
    share = np.array(content["elsewhere"])
    assert np.array_equal(named[healthy] == "retrieval_like", share[healthy] > 0.5)


def test_attention_on_first_and_nearest_tokens_is_not_elsewhere(diagnosis: Diagnosis) -> None:
    share = cache_roles.elsewhere(diagnosis)
    stats = diagnosis.stats
    bound = 1 - stats.first_token_mass - stats.local_mass
    assert np.all(share >= bound - 1e-12)
    # rows 0 to 2 alone can count a token twice
    assert np.all(share - bound <= 3 / stats.provenance.length + 1e-9)


def test_heads_that_share_a_cache_need_what_the_neediest_of_them_needs() -> None:
    scores = np.array([[0.1, 0.9, 0.2, 0.3]])
    assert cache_roles.per_key_value_head(scores, 2).tolist() == [[0.9, 0.3]]
    with pytest.raises(SettingsError, match="divides 4, got 3"):
        cache_roles.per_key_value_head(scores, 3)


def test_layers_without_attention_have_no_line_in_a_table() -> None:
    with pytest.raises(SettingsError, match="choose --format json"):
        cache_roles.as_gates(np.array([[np.nan, np.nan], [0.1, 0.2]]))
    scores = np.array([[[np.nan], [0.25]]])
    assert cache_roles.as_scores(scores) == {"1-0": [0.25]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "yaml"), "expected json or tsv"),
        (("--format", "tsv", "--key-value-heads", "3"), "divides"),
        (("--limit", "1.5"), "expected a fraction"),
    ],
)
def test_what_makes_no_sense_is_refused(
    words: tuple[str, ...], message: str, sick: Path, tmp_path: Path
) -> None:
    said = run("export-heads", sick, "--output", tmp_path / "out", *words)
    assert said.exit_code == 2, said.output
    assert message in " ".join(said.stderr.split())
    assert not (tmp_path / "out").exists()
