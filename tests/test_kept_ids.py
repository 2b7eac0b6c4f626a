"""Text that was tokenised once is not tokenised again, and comes out the same either way."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import headsurgeon as hs
from headsurgeon.data import Windows, kept_ids
from headsurgeon.data.encoding import Encoder
from headsurgeon.models.smollm2 import CACHE_VARIABLE
from tests.test_data import WORDS, tokenizer_with


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(kept_ids, "WORTH_KEEPING", 1000)
    return tmp_path / "cache" / kept_ids.FOLDER


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    folder = tmp_path / "texts"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for index in range(40):
        text = " ".join(draw.choice(WORDS, size=200 + index).tolist())
        (folder / f"{index}.txt").write_text(f"{index} {text}", encoding="utf-8")
    return f"text:{folder}/*.txt"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are tokenised from here on."""
    seen: list[str] = []
    original = Encoder._ids

    def counting(self: Encoder, texts: list[str]) -> list[np.ndarray]:
        seen.extend(texts)
        return original(self, texts)

    monkeypatch.setattr(Encoder, "_ids", counting)
    return seen


def cut(
    corpus: str, tokenizer: PreTrainedTokenizerFast | None = None, **options: object
) -> Windows:
    settings = {"split": "train", "length": 32, **options}
    return hs.windows(corpus, tokenizer or tokenizer_with(), **settings)  # type: ignore[arg-type]


def files(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.exists() else []


def same(first: Windows, second: Windows) -> bool:
    fields = [(each.documents, each.corpus_hash, each.separator) for each in (first, second)]
    return torch.equal(first.tokens, second.tokens) and fields[0] == fields[1]


@pytest.mark.parametrize("packing", ["documents", "separated"])
def test_a_second_call_tokenises_nothing_and_gives_the_same(
    cache: Path, corpus: str, encoded: list[str], packing: str
) -> None:
    first = cut(corpus, packing=packing)
    assert len(files(cache)) == 1
    assert len(encoded) == len(set(encoded)) > 0
    encoded.clear()
    assert same(cut(corpus, packing=packing), first)
    # of other windows of the same text, too
    cut(corpus, packing=packing, length=20, count=5, seed=3)
    assert encoded == []


def test_other_text_and_another_tokenizer_are_tokenised(
    cache: Path, corpus: str, encoded: list[str], tmp_path: Path
) -> None:
    cut(corpus)
    encoded.clear()
    for path in (tmp_path / "texts").iterdir():
        path.write_text(path.read_text(encoding="utf-8") + " asleep", encoding="utf-8")
    cut(corpus)
    assert encoded
    encoded.clear()
    more = tokenizer_with.__wrapped__()
    more.add_tokens(["asleep"])
    other = cut(corpus, more)
    assert encoded
    assert (other.tokens == more.convert_tokens_to_ids("asleep")).any()
    assert len(files(cache)) == 3


@pytest.mark.parametrize("damage", ["cut off", "a bit", "no archive", "other tables", "empty"])
def test_a_damaged_file_is_passed_over_and_written_again(
    cache: Path, corpus: str, encoded: list[str], damage: str
) -> None:
    first = cut(corpus)
    (path,) = files(cache)
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = bytes([whole[middle] ^ 1])
    if damage == "other tables":
        np.savez(path, digests=np.zeros(32, np.uint8), lengths=np.array([5]), ids=np.arange(3))
    else:
        damaged = {
            "cut off": whole[:middle],
            "a bit": whole[:middle] + flipped + whole[middle + 1 :],
            "no archive": b"something else",
            "empty": b"",
        }
        path.write_bytes(damaged[damage])
    encoded.clear()
    assert same(cut(corpus), first)
    assert encoded
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_changes_nothing(
    cache: Path, corpus: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = cut(corpus)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be", encoding="utf-8")
    monkeypatch.setenv(CACHE_VARIABLE, str(blocked))
    assert same(cut(corpus), first)


def test_few_texts_and_tokenizers_of_others_leave_no_file(
    cache: Path, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(PreTrainedTokenizerFast):
        pass

    own = Own(tokenizer_object=tokenizer_with().backend_tokenizer, eos_token="</s>")
    cut(corpus, own)
    monkeypatch.setattr(kept_ids, "WORTH_KEEPING", 10**9)
    cut(corpus)
    assert files(cache) == []


def test_two_processes_at_once_find_one_whole_file(
    cache: Path, corpus: str, tmp_path: Path
) -> None:
    program = (
        "import sys, headsurgeon as hs\n"
        "from headsurgeon.data import kept_ids\n"
        "from transformers import AutoTokenizer\n"
        "kept_ids.WORTH_KEEPING = 1000\n"
        "cut = hs.windows(sys.argv[1], AutoTokenizer.from_pretrained(sys.argv[2]), 'train', 32)\n"
        "print(cut.tokens.sum().item())\n"
    )
    tokenizer_with().save_pretrained(tmp_path / "tokenizer")
    command = [sys.executable, "-c", program, corpus, str(tmp_path / "tokenizer")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) for _ in range(2)]
    said = {process.communicate(timeout=120)[0] for process in both}
    assert said == {f"{cut(corpus).tokens.sum().item()}\n".encode()}
    assert len([path for path in files(cache) if path.name.startswith(".")]) == 0


def test_the_files_unused_for_longest_make_room(
    cache: Path, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(corpus)
    (old,) = files(cache)
    os.utime(old, (1, 1))
    strange = cache / "notes.txt"
    strange.write_text("of the user", encoding="utf-8")
    monkeypatch.setattr(kept_ids, "LIMIT", old.stat().st_size + 10)
    cut(corpus, first_token="none")
    assert old.exists()
    assert old.stat().st_mtime > 1
    os.utime(old, (1, 1))
    more = tokenizer_with.__wrapped__()
    more.add_tokens(["asleep"])
    cut(corpus, more)
    assert not old.exists()
    assert strange.exists()
    assert len(files(cache)) == 2
