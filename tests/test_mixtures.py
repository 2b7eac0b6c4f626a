"""Several corpora, mixed by weight: one order for all, balanced in every prefix."""

from collections import Counter
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headsurgeon.data import Windows, documents, mixture, split_of, windows
from headsurgeon.data.mixing import turns
from headsurgeon.data.spec import Corpus, parse, without_folders
from headsurgeon.errors import CorpusError, SettingsError
from headsurgeon.training import TrainSettings, calibration_windows, training_windows
from tests.char_tokenizer import END, char_tokenizer

TOKENIZER = char_tokenizer()


def corpus_of(folder: Path, sizes: list[int], word: str = "word") -> str:
    """A file of so many characters per size, each with another text."""
    folder.mkdir()
    for index, size in enumerate(sizes):
        text = f"{index:03d} of {folder.name} " + f"{word} " * size
        (folder / f"file{index:03d}.txt").write_text(text[:size])
    return f"text:{folder}/*.txt"


def train(corpora: str | list[str], **changes: object) -> Windows:
    given = {"split": "train", "length": 10, **changes}
    return windows(corpora, TOKENIZER, **given)  # type: ignore[arg-type]


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    return [
        corpus_of(tmp_path / "one", [90] * 60),
        corpus_of(tmp_path / "two", [300] * 60, "other"),
    ]


def of_corpus(found: Windows, spec: str) -> list[int]:
    return [at for at, name in enumerate(found.documents) if name.startswith(f"{spec}::")]


# -- turns -----------------------------------------------------------------------------------------


@given(weights=st.lists(st.fractions("1/100", 50, max_denominator=100), min_size=2, max_size=5))
@settings(max_examples=12, deadline=None)
def test_every_prefix_has_each_share_to_within_less_than_one(weights: list[Fraction]) -> None:
    seen: Counter[int] = Counter()
    for number, turn in enumerate(islice(turns(weights), 120), start=1):
        seen[turn] += 1
        for index, weight in enumerate(weights):
            due = number * weight / sum(weights)
            assert abs(seen[index] - due) <= 1 - Fraction(1, 2 * len(weights) - 2)


def test_turns_depend_on_proportions_alone() -> None:
    once = list(islice(turns([Fraction(2), Fraction(1), Fraction(1)]), 40))
    assert once == list(islice(turns([Fraction(1), Fraction(1, 2), Fraction(1, 2)]), 40))
    assert once[:4].count(0) == 2
    assert list(islice(turns([Fraction(7)]), 3)) == [0, 0, 0]


# -- windows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(), (2, 1), (0.3, 0.7)])
def test_a_mixture_gives_the_windows_of_each_corpus_in_their_own_order(
    pair: list[str], weights: tuple[float, ...]
) -> None:
    found = train(pair, weights=weights, count=40, seed=3)
    assert len(found) == 40
    for spec in pair:
        places = of_corpus(found, spec)
        alone = train(spec, count=len(places), seed=3)
        assert torch.equal(found.tokens[places], alone.tokens)
        assert [found.documents[at] for at in places] == [f"{spec}::{d}" for d in alone.documents]


def test_the_order_of_corpora_is_the_same_whatever_the_seed_and_the_split(pair: list[str]) -> None:
    def order(found: Windows) -> list[str]:
        return [name.partition("::")[0] for name in found.documents]

    first = train(pair, weights=(3, 2), count=20, seed=1)
    assert order(first) == order(train(pair, weights=(3, 2), count=20, seed=9))
    dev = train(pair, weights=(3, 2), split="dev", count=20)
    assert order(dev) == order(first)
    assert not set(dev.documents) & set(first.documents)


def test_a_smaller_mixture_is_the_beginning_of_a_larger_one(pair: list[str]) -> None:
    everything = train(pair, weights=(1, 2))
    few = train(pair, weights=(1, 2), count=7)
    assert torch.equal(everything.tokens[:7], few.tokens)
    assert everything.documents[:7] == few.documents


def test_the_recorded_mixture_reads_the_same_windows_again(pair: list[str]) -> None:
    found = train(pair, weights=(2, 0.5), count=12)
    assert found.corpus == f"2*{pair[0]}+0.5*{pair[1]}"
    again = train(found.corpus, count=12)
    assert torch.equal(found.tokens, again.tokens)
    assert found.corpus_hash == again.corpus_hash


def test_the_hash_knows_the_weights_and_the_texts(pair: list[str], tmp_path: Path) -> None:
    hashes = {train(pair, weights=(1, weight), count=4).corpus_hash for weight in (1, 2)}
    (tmp_path / "one" / "more.txt").write_text("a further text")
    if split_of(next(documents(f"text:{tmp_path}/one/more.txt")).split_key) != "train":
        pytest.fail("choose a text of the train split")
    hashes.add(train(pair, count=4).corpus_hash)
    assert len(hashes) == 3


def test_a_mixture_ends_where_its_weights_would_no_longer_hold(pair: list[str]) -> None:
    alone = len(train(pair[0]))
    found = train(pair)
    assert len(of_corpus(found, pair[0])) == alone
    assert abs(len(found) - 2 * alone) <= 1
    with pytest.warns(UserWarning, match=r"one/\*\.txt has no more windows .* give it less weight"):
        assert len(train(pair, count=10_000)) == len(found)


def test_a_copy_in_another_corpus_is_on_the_same_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_package"
    package.mkdir()
    for index in range(300):
        (package / f"part{index}.py").write_text(f"value = {index}  # some words to fill it\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "copies").mkdir()
    for path in package.iterdir():
        (tmp_path / "copies" / path.name).write_text(path.read_text() + "\n")
    both = ["package:some_package", f"text:{tmp_path}/copies/*.txt".replace("txt", "py")]
    sides: dict[str, set[str]] = {}
    for split in ("train", "dev", "test"):
        with pytest.warns(UserWarning, match="copies of others"):
            # every file fills a window, so its name is that of its windows
            found = train(both, split=split, first_token="none", length=8)
        for name in found.documents:
            sides.setdefault(name.partition("::")[2].split("/")[1].partition("#")[0], set()).add(
                split
            )
    assert len(sides) == 300
    assert {len(found) for found in sides.values()} == {1}


def test_training_and_dev_windows_are_mixed_alike(pair: list[str]) -> None:
    wanted = TrainSettings(max_tokens=200, length=10, dev_windows=4, batch_size=1, accumulation=1)
    found = training_windows(pair, TOKENIZER, wanted, weights=(2, 1))
    assert [each.split for each in found] == ["train", "dev"]
    assert {each.corpus for each in found} == {f"2*{pair[0]}+{pair[1]}"}


@pytest.mark.parametrize("packing", ["documents", "separated", "blank_lines"])
@pytest.mark.parametrize("budget", [{"max_tokens": 400}, {"epochs": 0.5}])
@pytest.mark.parametrize("weights", [None, (2, 1), (0.3, 0.7)])
def test_a_start_looks_at_the_beginning_of_what_is_trained_on(
    pair: list[str], weights: tuple[float, float] | None, budget: dict[str, float], packing: str
) -> None:
    told = {"length": 20, "batch_size": 1, "accumulation": 1, "dev_windows": 4, "windows_seed": 3}
    wanted = TrainSettings.model_validate(
        {**told, "first_token": END, "packing": packing, **budget}
    )
    corpus, shares = (pair[1], ()) if weights is None else (pair, weights)
    seen, left = calibration_windows(corpus, TOKENIZER, wanted, count=8, weights=shares)
    trained = training_windows(corpus, TOKENIZER, left, weights=shares)[0]
    assert torch.equal(seen.tokens, trained.tokens[:8])
    assert (seen.corpus, seen.split, seen.packing) == (trained.corpus, "train", packing)
    # a budget of tokens pays for them, passes over the text do not
    assert left == wanted.model_copy(update={"max_tokens": 240} if "max_tokens" in budget else {})


def test_a_start_pays_for_no_more_than_its_corpus_has(pair: list[str]) -> None:
    wanted = TrainSettings(max_tokens=20_000, length=80, batch_size=1, accumulation=1)
    seen, left = calibration_windows(pair[0], TOKENIZER, wanted, count=1000)
    assert len(seen) < 60
    assert left.max_tokens == 20_000 - len(seen) * 80


@pytest.mark.parametrize(
    ("corpora", "weights", "message"),
    [
        ([], (), "at least one corpus"),
        (["package:a", "package:b"], (1,), "1 weights for 2 corpora"),
        (["package:a", "package:b"], (1, 0), "above 0"),
        (["package:a", "package:b"], (1, -2), "above 0"),
        (["package:a", "package:b"], (1, float("nan")), "above 0"),
        (["package:a", "package:b"], (1, 1e300), "below 10"),
        (["package:a", "package:b"], (1, 1e-30), "scale them up"),
        (["package:a+package:b", "package:c"], (), "a mixture or has a weight"),
        (["2*package:a", "package:c"], (), "a mixture or has a weight"),
    ],
)
def test_weights_and_mixtures_that_make_no_sense_are_refused(
    corpora: list[str], weights: tuple[float, ...], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        mixture(corpora, weights)


@pytest.mark.parametrize(
    "spec", ["package:a+package:a", "0*package:a+package:b", "2*", "+package:a"]
)
def test_mixtures_that_cannot_be_read_are_refused(spec: str) -> None:
    with pytest.raises(CorpusError):
        parse(spec)


# -- the grammar -----------------------------------------------------------------------------------

PLAIN = st.text("abc /*.-", min_size=1, max_size=8).map(str.strip).filter(bool)
ODD = st.text('ab,:+"*[ ]?é', min_size=1, max_size=8)


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@given(
    names=st.lists(
        st.tuples(st.sampled_from(["text", "package", "hf"]), ODD), min_size=1, max_size=3
    )
)
def test_whatever_stands_in_quotes_is_read_as_it_stands(names: list[tuple[str, str]]) -> None:
    spec = ",".join(f"{kind}:{quoted(name)}" for kind, name in names)
    (component,) = parse(spec)
    assert component.corpora == tuple(Corpus(kind, (name,)) for kind, name in names)
    assert component.spec == spec


@given(fields=st.lists(ODD, min_size=1, max_size=4))
def test_every_field_of_a_data_set_may_be_quoted(fields: list[str]) -> None:
    (component,) = parse("hf:" + ":".join(map(quoted, fields)))
    assert component.corpora == (Corpus("hf", tuple(fields)),)


@given(text=st.text('ab,:+"*[ 2é', max_size=16))
def test_any_text_is_a_corpus_or_an_error_in_words(text: str) -> None:
    for spec in (text, f"text:{text}", f"hf:{text}"):
        with suppress(CorpusError):
            components = parse(spec)
            assert all(corpus.fields[0] for each in components for corpus in each.corpora)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("text:/home/me/docs/**/*.txt", "text:PATH/*.txt"),
        ("text:~/a.txt", "text:PATH/a.txt"),
        ("texts:/a.json", "texts:PATH/a.json"),
        (
            "2*text:/a/b.txt,package:sympy+text:docs/*.txt",
            "2*text:PATH/b.txt,package:sympy+text:docs/*.txt",
        ),
        ('text:"/a, b/c+d/""e"".txt"', 'text:"PATH/""e"".txt"'),
        ("text:/a.txt,texts:/a.txt", "text:PATH/a.txt,texts:PATH/a.txt"),
        ("hf:/home/me/rows::train:text", "hf:PATH/rows::train:text"),
        ("text:docs/*.txt", "text:docs/*.txt"),
        ("hf:me/data:a/b", "hf:me/data:a/b"),
        ("token ids", "token ids"),
    ],
)
def test_a_corpus_is_told_to_others_without_folders_of_the_machine(spec: str, told: str) -> None:
    assert without_folders(spec) == told
    assert without_folders(told) == told


def test_a_folder_and_a_column_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "notes,text:old"
    folder.mkdir()
    (folder / "a.txt").write_text("some words")
    (found,) = documents(f'text:"{folder}/*.txt"')
    assert found.text == "some words"
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text('{"a:b": "in the column"}\n')
    (found,) = documents(f'hf:{tmp_path}/rows:::"a:b"')
    assert found.text == "in the column"


@pytest.mark.parametrize("spec", ['text:"a', 'text:"a"b', 'hf:"a"b:c', 'text:"', 'hf:""'])
def test_quotes_that_do_not_close_are_refused(spec: str) -> None:
    with pytest.raises(CorpusError):
        parse(spec)


def test_a_sum_of_splits_is_no_mixture() -> None:
    (component,) = parse("hf:data::train[:2]+test[5:]:text")
    assert component.corpora == (Corpus("hf", ("data", "", "train[:2]+test[5:]", "text")),)
    pooled, single = parse("3*package:a,package:b+package:c")
    assert (pooled.spec, pooled.weight, single.spec) == ("package:a,package:b", 3, "package:c")
