"""Bad input: one line that says what to do, the right exit code, and nothing written or lost."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, GPTJConfig

from headsurgeon.data import windows
from headsurgeon.diagnosis import diagnose
from headsurgeon.measurement import measure
from headsurgeon.models import load as load_model
from headsurgeon.operation import operate
from headsurgeon.planning import Plan
from headsurgeon.planning.planning import plan
from tests.clinic import CORPUS, READING, checkpoint, run, sick_bloom, tokenizer, write_text
from tests.pico import pico

TRAINING = ("--corpus", CORPUS, "--length", "32", "--max-tokens", "512", "--dev-windows", "2")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, text, a diagnosis, a plan and a patch; never changed."""
    folder = tmp_path_factory.mktemp("prepared")
    checkpoint(folder / "sick", sick_bloom())
    checkpoint(folder / "other", sick_bloom(seed=7))
    checkpoint(folder / "mpt", pico("mpt"))
    broken = sick_bloom()
    with torch.no_grad():
        broken.transformer.h[1].self_attention.query_key_value.weight[3, 3] = torch.nan
    checkpoint(folder / "broken", broken)
    for name, config in (("unknown", GPTJConfig()), ("encoder", BertConfig())):
        config.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    write_text(folder / "docs")
    (folder / "empty").mkdir()
    (folder / "empty" / "poem00.txt").write_text("", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        model, fast = load_model("sick")
        stats = measure(model, windows(CORPUS, fast, "dev", length=32, count=12))
        diagnosis = diagnose(stats, draws=100)
        diagnosis.save(folder / "diagnosis" / "diagnosis.json")
        chosen = plan(diagnosis, model=model)
        chosen.save(folder / "plan.yaml")
        operate(model, chosen).save(folder / "patch.safetensors")
    return folder


@pytest.fixture
def clinic(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `prepared` to work in."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, and every folder, with what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def refused(folder: Path, exit_code: int, *arguments: str, says: tuple[str, ...]) -> None:
    """The command fails with that code and one line which says all of `says`; no file changes."""
    before = contents(folder)
    said = run(*arguments)
    assert said.exit_code == exit_code, said.stderr
    assert said.stdout == ""
    lines = [line for line in said.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in said.stderr
    for text in says:
        assert text in lines[0]
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["unknown", "encoder"])
def test_an_unknown_family_or_an_encoder_is_refused_with_the_known_ones(
    clinic: Path, name: str
) -> None:
    kind = {"unknown": "'gptj'", "encoder": "'bert'"}[name]
    arguments = ("diagnose", name, *READING, "--output", "new")
    refused(clinic, 2, *arguments, says=(kind, "bloom", "falcon", "mpt"))


def test_a_head_that_the_model_does_not_have_is_named_with_those_it_has(clinic: Path) -> None:
    arguments = ("plan", "diagnosis", "--heads", "L1H2,L1H4", "-o", "new.yaml")
    refused(clinic, 2, *arguments, says=("L1H4", "layers 0–2", "heads 0–3"))


def test_a_head_out_of_range_in_an_edited_plan_is_named_with_its_line(clinic: Path) -> None:
    path = clinic / "plan.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "- {head: L9H1}\n", encoding="utf-8")
    line = len(path.read_text(encoding="utf-8").splitlines())
    arguments = ("operate", "sick", "--plan", "plan.yaml", *TRAINING, "--output", "new", "--yes")
    refused(clinic, 2, *arguments, says=(f"line {line}", "L9H1", "layers 0–2"))


def test_a_plan_for_another_model_is_refused_with_both_fingerprints(clinic: Path) -> None:
    expected = Plan.load(clinic / "plan.yaml").fingerprint
    arguments = ("operate", "other", "--plan", "plan.yaml", *TRAINING, "--output", "new", "--yes")
    refused(clinic, 2, *arguments, says=("other weights", str(expected), "sick"))


def test_a_misspelt_key_in_a_plan_is_named_with_its_line(clinic: Path) -> None:
    path = clinic / "plan.yaml"
    text = path.read_text(encoding="utf-8").replace("\ninit:", "\ninnit:")
    path.write_text(text, encoding="utf-8")
    line = text.splitlines().index("innit: xavier_uniform_head") + 1
    arguments = ("operate", "sick", "--plan", "plan.yaml", *TRAINING, "--output", "new")
    refused(clinic, 2, *arguments, says=(f"line {line}", "innit"))


@pytest.mark.parametrize(
    ("corpus", "says"),
    [
        ("text:nowhere/*.txt", ("no file matches",)),
        ("text:empty/*.txt", ("no text in split", "add documents")),
        ("package:no-such-package", ("pip install no-such-package",)),
        ("novel", ("text:GLOB, package:NAME or hf:DATASET",)),
        ("docs/*.txt", ("text:docs/*.txt may be meant",)),
        ("text:docs", ("docs is a folder", "text:docs/*.txt", "text:docs/**")),
        (f"text:{'docs' * 100}", ("no file matches",)),
        ("text:docs/", ("docs is a folder", "text:docs/*.txt", "text:docs/**")),
    ],
)
def test_an_empty_or_missing_corpus_is_refused(
    clinic: Path, corpus: str, says: tuple[str, ...]
) -> None:
    arguments = ("diagnose", "sick", "--corpus", corpus, "--output", "new")
    refused(clinic, 2, *arguments, says=says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("plan", "sick", "-o", "new.yaml"), ("sick holds no diagnosis.json", "diagnose")),
        (("export-heads", "sick", "--output", "new"), ("sick holds no diagnosis.json", "diagnose")),
        (("plan", "plan.yaml", "-o", "new.yaml"), ("expected a headsurgeon diagnosis",)),
        (
            ("evaluate", "sick", "--patch", "diagnosis/diagnosis.json", *READING),
            ("expected a patch written by headsurgeon, such as patch.safetensors",),
        ),
        (
            ("operate", "sick", *TRAINING, "--output", "new"),
            ("expected one --plan", "headsurgeon plan"),
        ),
    ],
    ids=lambda value: "-".join(value[:2]),
)
def test_a_file_of_another_command_is_refused_with_the_one_that_writes_what_is_expected(
    clinic: Path, arguments: tuple[str, ...], says: tuple[str, ...]
) -> None:
    refused(clinic, 2, *arguments, says=says)


def test_a_corpus_shorter_than_one_window_is_refused_with_its_size(clinic: Path) -> None:
    arguments = ("diagnose", "sick", "--corpus", CORPUS, "--length", "90000", "--output", "new")
    refused(clinic, 2, *arguments, says=("fewer than one window of 90000", "smaller --length"))


def test_windows_longer_than_the_model_can_read_are_refused(clinic: Path) -> None:
    arguments = ("diagnose", "mpt", "--corpus", CORPUS, "--length", "600", "--output", "new")
    refused(clinic, 2, *arguments, says=("600", "512", "smaller --length"))


def test_nan_weights_are_named_by_diagnose_and_by_operate(clinic: Path) -> None:
    tensor = "transformer.h.1.self_attention.query_key_value.weight"
    arguments = ("diagnose", "broken", *READING, "--output", "new")
    refused(clinic, 2, *arguments, says=("NaN", tensor))
    Plan.load(clinic / "plan.yaml").replace(fingerprint=None).save(clinic / "plan.yaml")
    arguments = ("operate", "broken", "--plan", "plan.yaml", *TRAINING, "--output", "new", "--yes")
    refused(clinic, 2, *arguments, says=("NaN", tensor))


COMMANDS_WITH_A_PATCH = (
    ("merge", "sick", "--patch", "patch.safetensors", "--output", "new"),
    ("evaluate", "sick", "--patch", "patch.safetensors", *READING, "--output", "new.json"),
)


@pytest.mark.parametrize("arguments", COMMANDS_WITH_A_PATCH)
@pytest.mark.parametrize("damage", ["cut short", "one bit", "another file", "missing"])
def test_a_damaged_patch_is_refused(clinic: Path, damage: str, arguments: tuple[str, ...]) -> None:
    path = clinic / "patch.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "cut short":
        path.write_bytes(content[: len(content) // 2])
    if damage == "one bit":
        content[-1] ^= 1
        path.write_bytes(content)
    if damage == "another file":
        shutil.copy(clinic / "sick" / "model.safetensors", path)
    if damage == "missing":
        path.unlink()
    refused(clinic, 2, *arguments, says=("patch.safetensors",))


@pytest.mark.parametrize("arguments", COMMANDS_WITH_A_PATCH)
def test_a_patch_for_another_base_is_refused(clinic: Path, arguments: tuple[str, ...]) -> None:
    command, _, *rest = arguments
    refused(clinic, 2, command, "other", *rest, says=("made for sick", "its own base"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("diagnose", "sick", *READING),
        ("operate", "sick", "--plan", "plan.yaml", *TRAINING, "--yes"),
        ("merge", "sick", "--patch", "patch.safetensors"),
    ],
)
def test_an_output_folder_that_holds_something_else_is_left_alone(
    clinic: Path, arguments: tuple[str, ...]
) -> None:
    (clinic / "thesis").mkdir()
    (clinic / "thesis" / "chapter.txt").write_text("years of work", encoding="utf-8")
    refused(clinic, 2, *arguments, "--output", "thesis", says=("thesis", "something else"))


def test_a_plan_that_exists_is_not_overwritten_unasked(clinic: Path) -> None:
    refused(clinic, 2, "plan", "diagnosis", "-o", "plan.yaml", says=("plan.yaml", "--overwrite"))


def test_another_run_in_the_folder_is_left_alone_and_the_difference_is_named(clinic: Path) -> None:
    arguments = ("operate", "sick", "--plan", "plan.yaml", *TRAINING, "--output", "run", "--yes")
    assert run(*arguments).exit_code == 0
    said = run(*arguments, "--learning-rate", "0.5")
    assert said.exit_code == 2
    assert "settings.learning_rate" in said.stderr


def test_all_faulty_settings_are_told_at_once(clinic: Path) -> None:
    arguments = ("operate", "sick", "--plan", "plan.yaml", *TRAINING, "--output", "new")
    said = run(*arguments, "--learning-rate", "-1", "--clip", "0")
    assert said.exit_code == 2
    assert "learning_rate" in said.stderr
    assert "clip" in said.stderr
    assert not (clinic / "new").exists()


def test_an_option_that_does_not_exist_is_a_usage_error() -> None:
    assert run("diagnose", "sick", "--colour").exit_code == 2


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more can be flushed to the disk, and no checkpoint shard be written."""

    def full(*ignored: object, **also: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "diagnosis", "--no-costs", "-o", "plan.yaml", "--overwrite"),
        ("merge", "sick", "--patch", "patch.safetensors", "--output", "new"),
        ("merge", "sick", "--patch", "patch.safetensors", "--output", "merged"),
    ],
)
def test_a_full_disk_leaves_what_was_there(
    clinic: Path, arguments: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    merge = ("merge", "sick", "--patch", "patch.safetensors", "--output", "merged")
    assert run(*merge).exit_code == 0
    request.getfixturevalue("full_disk")
    refused(clinic, 1, *arguments, says=("cannot write", "No space left on device"))


def test_a_full_disk_leaves_the_previous_diagnosis(
    clinic: Path, request: pytest.FixtureRequest
) -> None:
    arguments = ("diagnose", "sick", *READING, "--output", "written")
    assert run(*arguments).exit_code == 0
    request.getfixturevalue("full_disk")
    refused(clinic, 1, *arguments, says=("cannot write", "No space left on device"))


def test_a_full_disk_stops_training_in_one_line(clinic: Path, full_disk: None) -> None:
    said = run("operate", "sick", "--plan", "plan.yaml", *TRAINING, "--output", "run", "--yes")
    assert said.exit_code == 1
    assert "cannot write" in said.stderr
    assert "No space left on device" in said.stderr
    assert not (clinic / "run" / "run.json").exists()


def test_without_a_network_the_way_out_is_told(clinic: Path) -> None:
    model = ("diagnose", "bigscience/bloom-560m", *READING, "--output", "new")
    refused(clinic, 1, *model, says=("cannot be reached", "local folder"))
    corpus = ("diagnose", "sick", "--corpus", "hf:allenai/c4:en", "--output", "new")
    refused(clinic, 1, *corpus, says=("could not be reached", "text:"))


def test_a_folder_without_a_checkpoint_and_a_missing_one_are_told_apart(clinic: Path) -> None:
    refused(clinic, 2, "diagnose", "docs", *READING, "--output", "new", says=("no config.json",))
    refused(clinic, 2, "diagnose", "./none", *READING, "--output", "new", says=("no such folder",))


def test_losses_over_different_vocabularies_are_both_kept_and_not_compared(clinic: Path) -> None:
    fast = tokenizer()
    fast.add_tokens(["whole-word"])
    fast.save_pretrained(clinic / "other")
    words = ("evaluate", "sick", "--baseline", "other", *READING, "--output", "both.json")
    said = run(*words)
    assert said.exit_code == 0, said.stderr
    assert "another vocabulary" in said.stdout
    written = json.loads(Path("both.json").read_text())
    assert list(written["evaluations"]) == ["sick", "other"]
    assert written["differences"] == {}
    assert "another vocabulary" in written["not_compared"]["other − sick"]


def test_a_baseline_that_cannot_be_scored_costs_no_result(clinic: Path) -> None:
    shutil.copytree("sick", "no-number")
    tensors = load_file("no-number/model.safetensors")
    tensors["transformer.ln_f.weight"][:] = float("nan")
    save_file(tensors, "no-number/model.safetensors", metadata={"format": "pt"})
    said = run("evaluate", "sick", "--baseline", "no-number", *READING, "--output", "one.json")
    assert (said.exit_code, "not a finite" in said.stderr) == (2, True)
    assert list(json.loads(Path("one.json").read_text())["evaluations"]) == ["sick"]
    refused(clinic, 2, "evaluate", "sick", "--baseline", "./no", *READING, says=("no such folder",))


@pytest.mark.parametrize("name", ["y" * 300, "~nobody-of-that-name/x"], ids=["long", "nobody"])
@pytest.mark.parametrize(
    "command",
    [
        ("plan", "NAME", "-o", "new.yaml"),
        ("plan", "diagnosis/diagnosis.json", "-o", "new.yaml", "--untouched", "NAME"),
        ("plan", "diagnosis/diagnosis.json", "-o", "new.yaml", "--model", "NAME"),
        ("merge", "NAME", "--patch", "patch.safetensors", "--output", "out"),
        ("merge", "sick", "--patch", "NAME", "--output", "out"),
        ("evaluate", "sick", *READING, "--baseline", "NAME"),
        ("diagnose", "NAME", *READING, "--output", "out"),
        ("dynamics", "NAME"),
        ("report", "NAME"),
        ("study", "NAME", "--output", "out"),
        ("generate", "sick", "--prompts", "NAME", "--output", "out"),
    ],
)
def test_a_path_that_the_system_cannot_have_is_one_sentence(
    clinic: Path, command: tuple[str, ...], name: str
) -> None:
    refused(clinic, 2, *(word.replace("NAME", name) for word in command), says=(name[:20],))


def test_a_corpus_that_is_none_is_refused_before_a_plan_is_written(clinic: Path) -> None:
    options = ("--no-costs", "-o", "new.yaml", "--corpus", "nonsense")
    refused(clinic, 2, "plan", "diagnosis/diagnosis.json", *options, says=("expected a corpus",))


def test_a_word_of_thousands_of_signs_is_not_repeated(clinic: Path) -> None:
    said = run("plan", "diagnosis/diagnosis.json", "-o", "new.yaml", "--heads", "9" * 5000)
    assert said.exit_code == 2
    assert len(said.stderr) < 700
