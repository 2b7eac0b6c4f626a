"""A merged twin is read by others: transformers, llama.cpp's converter, lm-evaluation-harness."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import headsurgeon as hs
from headsurgeon.data.rolling import rolling_windows
from headsurgeon.evaluation.rolling_loss import evaluate_rolling
from headsurgeon.heads import HeadId
from headsurgeon.planning import Plan, PlannedHead
from tests.clinic import run

TWIN = "zoo:bloom-mini-collapsed"
PLAN = Plan(model=TWIN, rule="heads", heads=(PlannedHead(id=HeadId(1, 3)),))
TEXT = "def add(first, second):\n    return first + second\n" * 8
LENGTH = 64


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("given")
    model, _ = hs.load(TWIN)
    patch = hs.operate(model, PLAN, seed=0).save(home / "patch.safetensors")
    said = run("merge", TWIN, "--patch", patch, "--output", home / "merged")
    assert said.exit_code == 0, said.output
    (home / "text.txt").write_text(TEXT)
    return home / "merged"


def test_transformers_reads_it_without_us(merged: Path) -> None:
    model, _ = hs.load(TWIN)
    hs.apply_patch(model, merged.parent / "patch.safetensors")
    plain = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(merged)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    with torch.no_grad():
        ours, theirs = model(ids).logits, plain(ids).logits
    # what is stored is rounded to the base's bf16
    assert (ours - theirs).abs().max() < 0.05
    assert "PLANTED" in (merged / "BASE_README.md").read_text().upper()
    assert "was **planted**" in (merged / "README.md").read_text()


def test_llama_cpp_finds_a_place_for_every_tensor(merged: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
    # its converter takes the names from this table, less the body's prefix, and a plain folder
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BLOOM, 6)
    stored = load_file(merged / "model.safetensors")
    names = [name.removeprefix("transformer.") for name in stored]
    suffixes = (".weight", ".bias")
    assert [name for name in names if known.get_name(name, suffixes) is None] == []
    assert {"config.json", "tokenizer.json"} <= {path.name for path in merged.iterdir()}


@pytest.mark.skipif(
    find_spec("lm_eval") is None,
    reason="lm-evaluation-harness is not installed; pip install lm-eval",
)
@pytest.mark.filterwarnings("ignore")
def test_lm_evaluation_harness_reads_it_and_finds_the_loss_that_we_find(merged: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    theirs = HFLM(
        pretrained=str(merged), max_length=LENGTH, batch_size=1, dtype="float32", device="cpu"
    )
    request = Instance(request_type="loglikelihood_rolling", doc={}, arguments=(TEXT,), idx=0)
    (found,) = theirs.loglikelihood_rolling([request])
    model, tokenizer = hs.load(str(merged))
    windows = rolling_windows(f"text:{merged.parent}/text.txt", tokenizer, "all", LENGTH)
    ours = evaluate_rolling(model, windows)
    assert ours.document_nll[0] / ours.tokens == pytest.approx(-found / ours.tokens, abs=1e-4)
