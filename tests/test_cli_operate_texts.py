"""`operate` with snapshots, a named step to keep, probe texts and an anchor text."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import headsurgeon as hs
from headsurgeon.heads import HeadId
from headsurgeon.operation import read_patch
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.training import PRESETS
from headsurgeon.training.log import read_entries
from tests.clinic import CORPUS, checkpoint, run, sick_bloom, write_text

WANTED = ("operate", "sick", "--plan", "plan.yaml", "--corpus", CORPUS)
SHORT = ("--length", "32", "--max-tokens", "1024", "--dev-windows", "4", "--yes")


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("clinic")
    checkpoint(folder / "sick", sick_bloom())
    write_text(folder / "docs")
    Plan(model="sick", rule="heads", heads=(PlannedHead(id=HeadId(1, 2)),)).save(
        folder / "plan.yaml"
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        yield folder


def test_operate_keeps_snapshots_probes_and_an_anchor(clinic: Path) -> None:
    found = run(
        *WANTED,
        *SHORT,
        *("--output", "run", "--snapshots", "0,2,epoch:0.01", "--keep", "2"),
        *(
            "--probe",
            f"again={CORPUS}",
            "--probe",
            f"held@test={CORPUS}",
            "--anchor",
            "0.5",
            "--anchor-corpus",
            CORPUS,
        ),
        *("--anchor-windows", "6", "--anchor-batch", "2", "--snapshot-dtype", "bf16"),
    )
    assert found.exit_code == 0, found.stderr
    said = " ".join(found.stdout.split())
    assert "at step 2, kept" in said or "(step 2 of 4, kept)" in said
    # 4 steps of 2 windows of 32 tokens
    assert "256 tokens of other text were read besides" in said
    assert "2 in run/snapshots" in said
    assert read_patch(clinic / "run" / "patch.safetensors")[0]["step"] == "2"
    evaluations = [
        e for e in read_entries(clinic / "run" / "log.jsonl") if e["kind"] == "evaluation"
    ]
    # a probe is the run's own dev text; the other chose nothing, and is reported on
    assert all(e["probes"]["again"] == pytest.approx(e["dev_loss"]) for e in evaluations)
    assert [each.name for each in hs.sweep(clinic / "run").reported] == ["held"]
    result = json.loads((clinic / "run" / "run.json").read_text())["result"]
    assert (result["kept_step"], result["anchor_tokens"]) == (2, 256)


def test_a_snapshot_is_a_patch_that_evaluate_and_merge_take(clinic: Path) -> None:
    assert run(*WANTED, *SHORT, "--output", "kept", "--snapshots", "1").exit_code == 0
    patch = "kept/snapshots/step-000001.safetensors"
    reading = ("--corpus", CORPUS, "--length", "32", "--count", "4")
    scored = run("evaluate", "sick", "--patch", patch, *reading)
    assert scored.exit_code == 0, scored.stderr
    merged = run("merge", "sick", "--patch", patch, "--output", "merged")
    assert merged.exit_code == 0, merged.stderr


@pytest.mark.parametrize("probe", ["nameless", "=text:*.txt", "name=", "name@train=text:*.txt"])
def test_a_probe_without_a_name_or_a_text_is_refused(probe: str, clinic: Path) -> None:
    refused = run(*WANTED, *SHORT, "--output", "refused", "--probe", probe)
    assert refused.exit_code == 2
    assert "expected NAME=SPEC" in " ".join(refused.stderr.split())
    assert not (clinic / "refused").exists()


@pytest.mark.parametrize(
    ("options", "numbers", "width"),
    [((), 2, 4), (("--masters", "bf16"), 2, 2), (("--optimizer", "muon"), 1, 4)],
)
def test_a_dry_run_counts_the_moments_of_the_optimiser_that_runs(
    options: tuple[str, ...], numbers: int, width: int, clinic: Path
) -> None:
    said = " ".join(run(*WANTED, *SHORT, "--output", "dry", "--dry-run", *options).stdout.split())
    found = re.search(r"slices ([\d,]+) parameters .* optimiser ([\d,]+) bytes", said)
    assert found is not None, said
    slices, moments = (int(number.replace(",", "")) for number in found.groups())
    # muon keeps one number of each matrix; biases stay with AdamW and its two
    biases = 3 * 8 if "muon" in options else 0
    assert moments == (numbers * slices + biases) * width


def test_a_dry_run_says_what_an_anchor_reads_besides(clinic: Path) -> None:
    anchor = ("--anchor", "2", "--anchor-batch", "2", "--anchor-corpus", CORPUS)
    said = " ".join(run(*WANTED, *SHORT, "--output", "dry", "--dry-run", *anchor).stdout.split())
    # 4 steps of 2 windows of 32 tokens
    assert f"64 tokens of {CORPUS} in each step besides, 256 in all" in said
    missing = run(*WANTED, *SHORT, "--output", "dry", "--dry-run", *anchor[:-1], "text:no/*.txt")
    assert missing.exit_code == 2
    assert "no/*.txt" in missing.stderr


def test_a_dry_run_says_what_snapshots_take(clinic: Path) -> None:
    said = run(*WANTED, *SHORT, "--output", "dry", "--dry-run", "--snapshots", "0,1,2")
    assert said.exit_code == 0, said.stderr
    assert "at steps 0, 1, 2:" in " ".join(said.stdout.split())


def test_a_start_that_looks_at_text_takes_it_from_the_training_text_and_the_budget(
    clinic: Path,
) -> None:
    planned = Plan.load(clinic / "plan.yaml").model_copy(update={"init": "canonical"})
    planned.save(clinic / "canonical.yaml")
    wanted = ("operate", "sick", "--plan", "canonical.yaml", "--corpus", CORPUS)
    budget = ("--length", "32", "--max-tokens", "2048", "--dev-windows", "4", "--yes")
    foreseen = run(*wanted, *budget, "--output", "seen", "--dry-run")
    assert "looks at 1,024 tokens of the training text" in " ".join(foreseen.stdout.split())
    found = run(*wanted, *budget, "--output", "seen")
    assert found.exit_code == 0, found.stderr
    assert "canonical looked at 1,024 tokens" in " ".join(found.stdout.split())
    patch, _ = read_patch(clinic / "seen" / "patch.safetensors")
    settings = hs.TrainSettings(max_tokens=2048, length=32)
    text = hs.calibration_windows(CORPUS, hs.load("sick")[1], settings)
    trained = hs.training_windows(CORPUS, hs.load("sick")[1], text[1])[0]
    # what the start saw is the beginning of what is trained on
    assert torch.equal(text[0].tokens, trained.tokens[: len(text[0])])
    assert json.loads(patch["calibration"])["tokens"] == 1024
    assert hs.Run.load("seen").tokens == text[1].max_tokens == 1024
    # the same command resumes
    assert run(*wanted, *budget, "--output", "seen").exit_code == 0


def test_the_start_that_looked_is_named(clinic: Path) -> None:
    planned = Plan.load(clinic / "plan.yaml").model_copy(update={"output_start": "carry_value"})
    planned.save(clinic / "carry.yaml")
    wanted = ("operate", "sick", "--plan", "carry.yaml", "--corpus", CORPUS, "--output", "carried")
    found = run(*wanted, "--length", "32", "--max-tokens", "1280", "--dev-windows", "4", "--yes")
    assert found.exit_code == 0, found.stderr
    assert "carry_value looked at 1,024 tokens" in " ".join(found.stdout.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max-tokens", "1024"), "the start reads 1024 tokens, and the budget is 1024"),
        (("--max-tokens", "2048", "--passes", "2"), "which only a single operation can give it"),
    ],
)
def test_a_start_that_cannot_have_its_text_is_refused(
    clinic: Path, options: tuple[str, ...], words: str
) -> None:
    planned = Plan.load(clinic / "plan.yaml").model_copy(update={"init": "canonical"})
    planned.save(clinic / "refused.yaml")
    wanted = ("operate", "sick", "--plan", "refused.yaml", "--corpus", CORPUS, "--length", "32")
    refused = run(*wanted, "--output", "refused", *options)
    assert refused.exit_code == 2
    assert words in " ".join(refused.stderr.split())
    assert not (clinic / "refused").exists()


def _canonical(folder: Path) -> str:
    """The name of the same plan with the start that the preset `recommended` belongs to."""
    heads = Plan.load(folder / "plan.yaml").heads
    plan = Plan(model="sick", rule="heads", heads=heads, init="canonical")
    plan.save(folder / "canonical.yaml")
    return "canonical.yaml"


def test_the_recommended_preset_trains_as_its_arm_does(clinic: Path) -> None:
    wanted = ("operate", "sick", "--plan", _canonical(clinic), "--corpus", CORPUS, *SHORT)
    recipe = ("--preset", "recommended", "--anchor-corpus", CORPUS, "--anchor-windows", "6")
    found = run(*wanted, *recipe, "--output", "recommended", "--max-tokens", "4096")
    assert found.exit_code == 0, found.stderr
    settings = json.loads((clinic / "recommended" / "run.json").read_text())["identity"]["settings"]
    assert settings.items() >= PRESETS["recommended"].items()
    arm = next(a for a in hs.Study.load("twins-narrow").arms if a.name == "recommended")
    assert {**arm.train} == PRESETS["recommended"]
    assert arm.init == "canonical"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--preset", "recommended", "--anchor-corpus", CORPUS),
            "headsurgeon plan … --init canonical",
        ),
        (("--preset", "recommended", "--anchor", "0"), "the plan has xavier_uniform_head"),
        (("--preset", "recommended", "--passes", "2"), "leave out --passes"),
        (("--preset", "recommended_whole"), "give --whole-model as well"),
        (("--preset", "recommended_whole", "--passes", "2"), "leave out --passes"),
        (("--preset", "recommended_whole", "--whole-model"), "--init canonical"),
        (("--preset", "recommended", "--whole-model"), "it is --preset recommended_whole"),
        (("--heads-rate", "2"), "give --whole-model as well"),
        (("--whole-model", "--passes", "2"), "leave out --whole-model, or --passes"),
        (("--whole-model", "--optimizer", "muon"), "choose adamw"),
        (("--whole-model", "--anchor", "1", "--anchor-corpus", CORPUS), "leave out one of them"),
        (("--whole-model", "--anchor-corpus", CORPUS), "leave out one of them"),
        (("--anchor", "1"), "give --anchor-corpus SPEC"),
        (("--anchor", "1", "--passes", "2"), "give --anchor-corpus SPEC"),
        (("--anchor-corpus", CORPUS), "--anchor alone, which is 0"),
    ],
)
def test_a_recipe_that_lacks_a_part_is_refused_in_words(
    options: tuple[str, ...], words: str, clinic: Path
) -> None:
    refused = run(*WANTED, *SHORT, "--output", "lacking", *options)
    assert refused.exit_code == 2
    assert words in " ".join(refused.stderr.split())
    assert not (clinic / "lacking").exists()
