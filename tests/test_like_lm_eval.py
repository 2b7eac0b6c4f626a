"""Rolling windows and their loss equal those of lm-evaluation-harness on the same text."""

import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.nn import functional

import headsurgeon as hs
from headsurgeon.data.rolling import RollingWindows, rolling_windows
from headsurgeon.errors import CorpusError, SettingsError
from headsurgeon.evaluation.rolling_loss import evaluate_rolling
from tests.clinic import checkpoint, run, sick_bloom, tokenizer
from tests.pico import pico

LENGTH = 16
TEXTS = {"a": "x" * 16, "b": "The cat sat on the mat, and slept.\nIt woke.", "c": "z", "d": ""}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    for name, text in TEXTS.items():
        (tmp_path / "docs" / f"{name}.txt").write_text(text)
    checkpoint(tmp_path / "pico", sick_bloom())
    return tmp_path


def rolled(**more: object) -> RollingWindows:
    given = {"split": "all", "length": LENGTH, **more}
    return rolling_windows("text:docs/*.txt", tokenizer(), **given)  # type: ignore[arg-type]


def test_every_token_is_predicted_once_in_windows_that_follow_one_another(home: Path) -> None:
    windows = rolled()
    ids = {name: tokenizer()(text).input_ids for name, text in TEXTS.items() if text}
    assert sum(windows.predicted) == sum(map(len, ids.values()))
    assert [len(window) for window in windows.tokens] == [17, 17, 17, 17, 17, 3]
    assert list(windows.predicted) == [16, 1, 16, 16, 12, 2]
    for document, own in zip(dict.fromkeys(windows.documents), ids.values(), strict=True):
        found = [
            token
            for window, count, of in zip(
                windows.tokens, windows.predicted, windows.documents, strict=True
            )
            if of == document
            for token in window[-count:].tolist()
        ]
        assert found == own
    assert all(window[0] == 0 for window in windows.tokens[:1])
    assert windows.words == 1 + 10 + 1
    assert windows.bytes == sum(map(len, TEXTS.values()))


def test_the_loss_is_that_of_the_models_own_logits(home: Path) -> None:
    model, windows = pico("bloom"), rolled()
    found = evaluate_rolling(model, windows)
    total = dict.fromkeys(found.documents, 0.0)
    for ids, count, name in zip(windows.tokens, windows.predicted, windows.documents, strict=True):
        with torch.no_grad():
            logits = model(ids[None, :-1]).logits[0].double()
        losses = functional.cross_entropy(logits, ids[1:], reduction="none")
        total[name] += float(losses[-count:].sum())
    assert found.document_nll.tolist() == pytest.approx(list(total.values()), abs=1e-4)
    assert found.tokens == sum(windows.predicted)


def test_the_command_prints_and_writes_the_figures(home: Path) -> None:
    words = ("evaluate", "pico", "--corpus", "text:docs/*.txt", "--like", "lm-eval")
    said = run(*words, "--split", "all", "--length", LENGTH, "--baseline", "pico", "--output", "f")
    assert said.exit_code == 0, said.output
    content = json.loads(Path("f").read_text())
    found = content["evaluations"]["pico"]
    there = content["as_lm_eval"]["pico"]
    total = sum(each["nll"] for each in found["per_document"])
    assert there["bits_per_byte"] == pytest.approx(total / math.log(2) / rolled().bytes)
    assert f"{there['bits_per_byte']:.6g}" in said.stdout
    assert "+0.0000" in said.stdout
    assert list(content["evaluations"]) == ["pico", "pico (baseline)"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--like", "helm"), "expected lm-eval"),
        (("--like", "lm-eval", "--seed", "1"), "leave out --packing and --seed"),
        (("--like", "lm-eval", "--first-token", "none"), "expected first token"),
        (("--like", "lm-eval", "--split", "none"), "split"),
    ],
)
def test_what_has_no_counterpart_is_refused(
    words: tuple[str, ...], message: str, home: Path
) -> None:
    said = run("evaluate", "pico", "--corpus", "text:docs/*.txt", *words)
    assert said.exit_code == 2, said.output
    assert message in " ".join(said.stderr.split())


def test_a_tokenizer_without_ends_needs_a_first_token(home: Path) -> None:
    bare = tokenizer()
    bare.eos_token = None
    with pytest.raises(CorpusError, match="neither a bos nor an eos"):
        rolling_windows("text:docs/*.txt", bare, split="all")
    with pytest.raises(SettingsError, match="at least 1"):
        rolled(length=0)


@pytest.mark.skipif(
    find_spec("lm_eval") is None,
    reason="lm-evaluation-harness is not installed; pip install lm-eval",
)
@pytest.mark.filterwarnings("ignore")
def test_lm_evaluation_harness_itself_finds_the_same(home: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model, own = hs.load("pico")
    theirs = HFLM(pretrained=model, tokenizer=own, max_length=LENGTH, batch_size=1)
    texts = [text for text in TEXTS.values() if text]
    requests = [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=index)
        for index, text in enumerate(texts)
    ]
    found = [-value for value in theirs.loglikelihood_rolling(requests)]
    ours = evaluate_rolling(model, rolled()).document_nll.tolist()
    assert ours == pytest.approx(found, abs=1e-4)
