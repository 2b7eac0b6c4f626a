"""Given texts of unequal length: measured and scored whole, never padded, weighted in two ways."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import headsurgeon as hs
from headsurgeon.data import Texts, texts
from headsurgeon.diagnosis import Diagnosis
from headsurgeon.errors import CorpusError, InputError
from headsurgeon.evaluation import ablate, evaluate
from headsurgeon.heads import STATISTICS
from headsurgeon.measurement import measure
from tests.char_tokenizer import char_tokenizer
from tests.pico import pico

TOKENIZER = char_tokenizer()
PROBES = [
    "def f(x):",
    "a short one",
    "the same len",
    "asleep",
    "b short one",
    "1 + 1 = 2, or is it?",
]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return pico("bloom")


@pytest.fixture(scope="module")
def probes() -> Texts:
    return texts(PROBES, TOKENIZER)


def by_hand(model: torch.nn.Module, text: str) -> float:
    """Mean loss of one text alone, from the model's own logits."""
    ids = torch.tensor([TOKENIZER.encode(text)])
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    return float(functional.cross_entropy(logits[0, :-1], ids[0, 1:]))


def test_a_text_has_the_same_statistics_alone_and_among_others(
    model: torch.nn.Module, probes: Texts
) -> None:
    together = measure(model, probes)
    for index, text in enumerate(PROBES):
        alone = measure(model, texts(text, TOKENIZER))
        for name in STATISTICS:
            np.testing.assert_allclose(
                together.values[name][index], alone.values[name][0], atol=2e-5, rtol=2e-4
            )
        np.testing.assert_allclose(together.null_by_length[len(text)], alone.null_mass)


def test_the_null_is_kept_for_each_length_and_its_mean_counts_each_text_once(
    model: torch.nn.Module, probes: Texts
) -> None:
    stats = measure(model, probes)
    assert set(stats.null_by_length) == set(map(len, PROBES)) == set(stats.provenance.lengths)
    every = [stats.null_by_length[len(text)] for text in PROBES]
    np.testing.assert_allclose(stats.null_mass, np.mean(every, axis=0))
    shortest, longest = min(map(len, PROBES)), max(map(len, PROBES))
    assert (stats.null_by_length[shortest] > stats.null_by_length[longest]).all()
    assert stats.provenance.length == longest
    assert stats.provenance.count == len(PROBES)


def test_one_text_is_measured_as_a_bare_row_is(model: torch.nn.Module) -> None:
    found = measure(model, texts(PROBES[0], TOKENIZER))
    bare = measure(model, torch.tensor([TOKENIZER.encode(PROBES[0])]))
    np.testing.assert_array_equal(found.first_token_mass, bare.first_token_mass)
    assert found.null_by_length == {}
    assert found.provenance.lengths == ()
    assert np.isnan(hs.diagnose(found).mass_low).all()


def test_the_order_of_texts_changes_nothing_but_the_order(
    model: torch.nn.Module, probes: Texts
) -> None:
    order = [3, 0, 1, 2]
    found = evaluate(model, texts([PROBES[index] for index in order], TOKENIZER))
    known = evaluate(model, probes)
    np.testing.assert_allclose(found.document_nll, known.document_nll[order], rtol=1e-5)
    assert found.document_tokens.tolist() == [len(PROBES[index]) - 1 for index in order]


def test_both_weightings_are_those_of_their_formulas(model: torch.nn.Module, probes: Texts) -> None:
    found = evaluate(model, probes)
    losses = np.array([by_hand(model, text) for text in PROBES])
    lengths = np.array([len(text) for text in PROBES])
    true = np.exp((losses * (lengths - 1)).sum() / (lengths - 1).sum())
    papers = np.exp((losses * lengths).sum() / lengths.sum())
    assert found.perplexity == pytest.approx(true, rel=1e-4)
    assert found.perplexity_weighted_by_length == pytest.approx(papers, rel=1e-4)
    assert abs(true - papers) > 1e-3
    content = found.model_dump()
    assert content["perplexity"] == pytest.approx(true, rel=1e-4)
    assert content["perplexity_weighted_by_length"] == pytest.approx(papers, rel=1e-4)


def test_equal_windows_have_one_perplexity_whatever_the_weights(model: torch.nn.Module) -> None:
    found = evaluate(
        model, torch.randint(1, 90, (5, 12), generator=torch.Generator().manual_seed(0))
    )
    assert found.perplexity_weighted_by_length == pytest.approx(found.perplexity, rel=1e-12)


def test_models_are_compared_text_by_text(model: torch.nn.Module, probes: Texts) -> None:
    first, second = evaluate(model, probes), evaluate(pico("bloom", seed=1), probes)
    assert math.isfinite(hs.difference(first, second).low)
    with pytest.raises(InputError, match="different windows"):
        hs.difference(first, evaluate(model, texts([*PROBES[:-1], "another"], TOKENIZER)))


@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_heads_are_ablated_on_texts(model: torch.nn.Module, probes: Texts, mode: str) -> None:
    found = ablate(model, ["L1H0"], probes, mode=mode)  # type: ignore[arg-type]
    assert found.baseline.documents == probes.documents
    assert found.joint.value != 0.0
    cost = hs.ablation_cost(model, probes, mode=mode)  # type: ignore[arg-type]
    for head, single in found.singles.items():
        assert cost([head]) == pytest.approx(single.value, abs=1e-5)


def test_a_diagnosis_of_texts_is_read_as_it_was_written(
    model: torch.nn.Module, probes: Texts, tmp_path: Path
) -> None:
    diagnosis = hs.diagnose(measure(model, probes))
    diagnosis.save(tmp_path / "diagnosis.json")
    again = Diagnosis.load(tmp_path / "diagnosis.json").stats
    assert again.provenance == diagnosis.stats.provenance
    for length, null in diagnosis.stats.null_by_length.items():
        np.testing.assert_array_equal(again.null_by_length[length], null)


# -- where texts come from -------------------------------------------------------------------------


def test_files_lists_and_names_give_the_same_texts(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(PROBES[0])
    (tmp_path / "all.json").write_text(json.dumps(PROBES))
    (tmp_path / "named.json").write_text(json.dumps({"code": PROBES[0], "prose": PROBES[1]}))
    known = texts(PROBES, TOKENIZER)
    assert texts(tmp_path / "one.txt", TOKENIZER).documents == ("one.txt",)
    listed = texts(tmp_path / "all.json", TOKENIZER)
    assert listed.corpus == "all.json"
    named = texts(tmp_path / "named.json", TOKENIZER, name="probes")
    assert named.documents == ("code", "prose")
    assert named.corpus == "probes"
    assert (
        texts({"code": PROBES[0], "prose": PROBES[1]}, TOKENIZER).corpus_hash == named.corpus_hash
    )
    for found in (listed, texts([tmp_path / "one.txt", *PROBES[1:]], TOKENIZER)):
        assert [ids.tolist() for ids in found.tokens] == [ids.tolist() for ids in known.tokens]


def test_the_first_token_is_added_to_every_text() -> None:
    found = texts(PROBES, TOKENIZER, first_token="</s>")
    assert {int(ids[0]) for ids in found.tokens} == {TOKENIZER.eos_token_id}
    assert found.lengths == tuple(len(text) + 1 for text in PROBES)
    assert (found.first_token, found.prefix) == ("</s>", 1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "at least one text"),
        ("", "expected at least 2"),
        (["long enough", "x"], r"text 1 \('x'\) has 1 tokens"),
        (Path("no/such/file.txt"), "cannot be read as text"),
    ],
)
def test_what_is_no_text_is_refused_in_words(source: object, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        texts(source, TOKENIZER)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "message"),
    [("3", "got int"), ('["a b", 3]', "expected a text, got int"), ("[", "cannot be read")],
)
def test_a_file_of_texts_that_is_none_is_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "probes.json").write_text(content)
    with pytest.raises(CorpusError, match=message):
        texts(tmp_path / "probes.json", TOKENIZER)


def test_one_file_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("some words")
    with pytest.raises(CorpusError, match=r"one\.txt is given twice"):
        texts([tmp_path / "one.txt"] * 2, TOKENIZER)
