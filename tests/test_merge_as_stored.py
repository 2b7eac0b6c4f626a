"""Merging: every bit outside the slices stays, and so does every file beside the weights."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from headsurgeon.heads import HeadId
from headsurgeon.models import load
from headsurgeon.models.fingerprint import fingerprints
from headsurgeon.operation import apply_patch, operate
from headsurgeon.planning import Plan, PlannedHead
from tests.clinic import checkpoint, run
from tests.pico import pico

PLAN = Plan(
    model="", rule="heads", heads=(PlannedHead(id=HeadId(1, 1)), PlannedHead(id=HeadId(2, 2)))
)
QUERY = "transformer.h.1.self_attention.query_key_value.weight"
MLP = "transformer.h.0.mlp.dense_h_to_4h.weight"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mask() -> Iterator[Callable[[int], None]]:
    before = os.umask(0o022)
    yield lambda value: os.umask(value) and None
    os.umask(before)


def base(
    folder: str = "base", stored: torch.dtype = torch.float32, names_dtype: bool = True
) -> Path:
    """A checkpoint stored in one precision, which its configuration may leave out."""
    path = checkpoint(Path(folder), pico("bloom").to(stored))
    if not names_dtype:
        config = json.loads((path / "config.json").read_text())
        config.pop("dtype")
        (path / "config.json").write_text(json.dumps(config))
    return path


def patched(folder: Path, dtype: torch.dtype | None = None) -> Path:
    model, _ = load(str(folder), dtype=dtype)
    return operate(model, PLAN, 3).save(Path("patch.safetensors"))


def merge(*more: str, folder: str = "base", output: str = "merged") -> str:
    result = run("merge", folder, "--patch", "patch.safetensors", "--output", output, *more)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*more: str, folder: str = "base", output: str = "merged") -> str:
    result = run("merge", folder, "--patch", "patch.safetensors", "--output", output, *more)
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.split())


def bits(folder: str | Path) -> dict[str, tuple[torch.dtype, bytes]]:
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        tensors |= load_file(file)
    return {
        name: (tensor.dtype, tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in tensors.items()
    }


PRECISIONS = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("stored", PRECISIONS)
@pytest.mark.parametrize("loaded", PRECISIONS)
def test_a_base_is_itself_in_whatever_precision_it_is_loaded(
    stored: torch.dtype, loaded: torch.dtype
) -> None:
    folder = base(stored=stored)
    path = patched(folder, torch.float32)
    model, _ = load(str(folder), dtype=loaded)
    patient = apply_patch(model, path)
    assert "all other weights" in patient.checked
    patient.revert()
    # and the other way round: a patch made in the precision of now fits every other
    again = operate(model, PLAN).save(Path("again.safetensors"))
    assert apply_patch(load(str(folder), dtype=torch.float32)[0], again).state == "merged"


def test_a_weight_changed_in_memory_is_not_mistaken_for_the_stored_one() -> None:
    folder = base()
    narrow, _ = load(str(folder), dtype=torch.bfloat16)
    whole, _ = load(str(folder))
    assert fingerprints(narrow, [QUERY]) == fingerprints(whole, [QUERY])
    rounded = narrow.float()
    assert fingerprints(rounded, [QUERY]) != fingerprints(whole, [QUERY])
    with torch.no_grad():
        narrow.get_parameter(QUERY)[0, 0] += 1.0
    assert fingerprints(narrow, [QUERY]) != fingerprints(whole, [QUERY])


@pytest.mark.parametrize("names_dtype", [True, False])
@pytest.mark.parametrize("stored", PRECISIONS)
def test_merge_writes_what_it_does_not_touch_bit_for_bit(
    stored: torch.dtype, names_dtype: bool
) -> None:
    folder = base(stored=stored, names_dtype=names_dtype)
    patched(folder)
    merge()
    before, after = bits(folder), bits("merged")
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed
    assert all(".h.1.self_att" in name or ".h.2.self_att" in name for name in changed)
    assert all(after[name][0] == stored for name in after)
    assert (folder / "config.json").read_bytes() == Path("merged/config.json").read_bytes()


def test_mixed_precision_shards_index_and_metadata_stay_as_they_were() -> None:
    folder = base()
    tensors = load_file(folder / "model.safetensors")
    tensors[MLP] = tensors[MLP].half()
    tensors[QUERY] = tensors[QUERY].bfloat16()
    (folder / "model.safetensors").unlink()
    shards = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    for index, name in enumerate(sorted(tensors)):
        # one layer's weights in two files
        shards[sorted(shards)[index % 2]][name] = tensors[name]
    for name, held in shards.items():
        save_file(held, folder / name, {"format": "pt", "note": name})
    where = {name: file for file, held in shards.items() for name in held}
    index_file = folder / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    (folder / "pytorch_model.bin").write_bytes(b"stale")
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    patched(folder)
    merge()
    before, after = bits(folder), bits("merged")
    assert {name: kind for name, (kind, _) in before.items()} == {
        name: kind for name, (kind, _) in after.items()
    }
    assert all(before[n] == after[n] for n in before if "self_attention" not in n)
    assert before[QUERY] != after[QUERY]
    assert Path("merged", index_file.name).read_bytes() == index_file.read_bytes()
    assert not list(Path("merged").glob("pytorch*"))
    AutoModelForCausalLM.from_pretrained("merged")


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_another_precision_is_written_when_asked_for(dtype: str) -> None:
    patched(base())
    merge("--dtype", dtype)
    kinds = {kind for kind, _ in bits("merged").values()}
    assert kinds == {{"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]}


def test_names_without_the_body_prefix_are_found() -> None:
    folder = base(stored=torch.float16)
    path = folder / "model.safetensors"
    bare = {n.removeprefix("transformer."): t for n, t in load_file(path).items()}
    save_file(bare, path, {"format": "pt"})
    patched(folder)
    merge()
    assert bits(folder).keys() == bits("merged").keys()
    assert bits(folder) != bits("merged")
    assert "checked: the 6 tensors" in merge()


def test_values_beyond_the_stored_precision_are_refused_by_tensor_and_head() -> None:
    folder = base(stored=torch.float16, names_dtype=False)
    model, _ = load(str(folder))
    patient = operate(model, PLAN)
    with torch.no_grad():
        patient.named_slices()[QUERY][0, 0] = 1e6
    patient.save("patch.safetensors")
    assert f"{QUERY} (L1H1) holds NaN or infinity" in refused()
    assert not Path("merged").exists()


# --- what lies beside the weights ----------------------------------------------------------------


def test_all_that_lies_beside_the_weights_goes_with_them() -> None:
    folder = base()
    beside = {
        "preprocessor_config.json": "{}",
        "processor_config.json": '{"a": 1}',
        "chat_template.jinja": "{{ messages }}",
        "modeling_own.py": "X = 1\n",
        "sub/vocabulary.txt": "a\n",
        "LICENSE": "free",
    }
    stale = ("optimizer.pt", "tf_model.h5", ".git/HEAD", "checkpoint-5/model.safetensors")
    for name, text in {**beside, **dict.fromkeys(stale, "x")}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "checkpoint-5" / "config.json").write_text("{}")
    patched(folder)
    merge()
    for name, text in beside.items():
        assert Path("merged", name).read_text() == text
    assert not any(Path("merged", name).exists() for name in (*stale, "checkpoint-5"))
    for name in ("tokenizer.json", "generation_config.json"):
        assert (folder / name).read_bytes() == Path("merged", name).read_bytes()
    merge("--dtype", "bf16")
    assert all(Path("merged", name).read_text() == text for name, text in beside.items())


def test_the_tokenizers_class_is_one_that_transformers_4_knows() -> None:
    patched(base())
    merge()
    named = json.loads(Path("merged/tokenizer_config.json").read_text())["tokenizer_class"]
    assert named == "PreTrainedTokenizerFast"
    assert AutoTokenizer.from_pretrained("merged")("ab").input_ids[0] == 0


# --- what belongs to the user --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [".git/HEAD", "README.md", "notes/mine.txt", "config.json", "tokenizer.json"]
)
def test_a_folder_with_anything_of_the_users_is_not_replaced(name: str) -> None:
    patched(base())
    merge()
    merge()
    mine = Path("merged", name)
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    before = sorted(str(path) for path in Path().rglob("*"))
    said = refused()
    assert "merged would be replaced, but" in said
    assert name in said
    assert sorted(str(path) for path in Path().rglob("*")) == before
    assert mine.read_text() == "mine"


def test_an_empty_folder_of_the_users_stays() -> None:
    patched(base())
    merge()
    Path("merged/empty").mkdir()
    merge()
    assert Path("merged/empty").is_dir()


def test_two_merges_do_not_write_one_folder() -> None:
    patched(base())
    merge()
    before = Path("merged/headsurgeon.json").read_bytes()
    code = (
        "import sys, time\nfrom headsurgeon.folders import locked\n"
        "with locked('merged', 'headsurgeon.json'):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert f"process {other.pid} works in" in refused()
        other.communicate()
    assert Path("merged/headsurgeon.json").read_bytes() == before
    merge()


def test_what_a_killed_merge_left_goes_with_the_next() -> None:
    patched(base())
    code = (
        "import os, signal\nfrom headsurgeon.operation import merged_checkpoint\n"
        "merged_checkpoint._settle = lambda staged: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from headsurgeon.cli.main import main\nmain()\n"
    )
    words = [sys.executable, "-c", code, "merge", "base", "--patch", "patch.safetensors"]
    done = subprocess.run([*words, "--output", "merged"], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert any(name.startswith(".staged") for name in os.listdir("merged"))
    merge()
    assert not any(name.startswith(".staged") for name in os.listdir("merged"))


@pytest.mark.parametrize("marker", ["{}", "[1]", "{", '{"kind": "merged-checkpoint", "schema": 1}'])
def test_a_folder_whose_list_of_files_is_gone_is_not_replaced(marker: str) -> None:
    patched(base())
    merge()
    Path("merged/headsurgeon.json").write_text(marker)
    assert "choose another folder" in refused()
    assert Path("merged/model.safetensors").is_file()


def test_the_models_own_folder_is_no_output() -> None:
    patched(base())
    merge()
    refused(output="base")
    # not even one that was written here
    model, _ = load("merged")
    operate(model, PLAN, 4).save("patch.safetensors")
    assert "the model's own folder" in refused(folder="merged", output="./merged")


@pytest.mark.parametrize("value", [0o022, 0o077, 0o002])
def test_the_umask_decides_the_modes(value: int, mask: Callable[[int], None]) -> None:
    patched(base())
    Path("shared").mkdir()
    Path("shared").chmod(0o777)
    mask(value)
    merge(output="shared/merged")
    assert Path("shared/merged").stat().st_mode & 0o777 == 0o777 & ~value
    files = [path for path in Path("shared/merged").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~value}


def test_what_was_compared_is_said_and_recorded() -> None:
    folder = base()
    patched(folder)
    assert "and so are all other weights" in merge()
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[MLP][0, 0] += 1
    save_file(tensors, path, {"format": "pt"})
    assert "other weights DIFFER" in merge()
    assert "DIFFER" in json.loads(Path("merged/headsurgeon.json").read_text())["checked"]
