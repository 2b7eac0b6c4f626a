"""`operate` with snapshots, a named step to keep, probe texts and an anchor text."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import headsurgeon as hs
from headsurgeon.heads import HeadId
from headsurgeon.operation import read_patch
from headsurgeon.planning import Plan, PlannedHead
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


def test_a_dry_run_says_what_snapshots_take(clinic: Path) -> None:
    said = run(*WANTED, *SHORT, "--output", "dry", "--dry-run", "--snapshots", "0,1,2")
    assert said.exit_code == 0, said.stderr
    assert "at steps 0, 1, 2:" in " ".join(said.stdout.split())
