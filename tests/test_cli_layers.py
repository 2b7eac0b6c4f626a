"""`headsurgeon layers`: costs and dormancy of the model, with a patch, and of another model."""

import json
from pathlib import Path

import pytest

import headsurgeon as hs
from headsurgeon.planning import Plan, PlannedHead
from tests.clinic import READING, checkpoint, run, sick_bloom, write_text


def test_costs_and_dormancy_stand_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("sick"), sick_bloom())
    write_text(Path("docs"))
    model, tokenizer = hs.load("sick")
    plan = Plan(model="sick", rule="heads", heads=(PlannedHead(id=hs.HeadId(1, 2)),))
    hs.operate(model, plan, seed=3).save("patch.safetensors")
    words = (
        "layers",
        "sick",
        *READING,
        "--split",
        "dev",
        "--groups",
        "0-1,2",
        "--output",
        "l.json",
    )
    said = run(*words, "--patch", "patch.safetensors", "--baseline", "sick")
    assert said.exit_code == 0, said.stderr
    found = json.loads(Path("l.json").read_text())["models"]
    assert list(found) == ["sick", "with patch.safetensors", "sick (baseline)"]
    known = hs.ablate_layers(
        hs.load("sick")[0],
        hs.windows("text:docs/*.txt", tokenizer, "dev", 32, 24),
        groups=[(0, 1), (2,)],
    )
    for name in ("sick", "sick (baseline)"):
        assert found[name]["ablation"] == known.model_dump(mode="json")
    # an operation on heads leaves every MLP as it was
    assert len({tuple(each["dormancy"]) for each in found.values()}) == 1
    shown = " ".join(said.stdout.split())
    assert "L0–1" in shown
    assert "+0.0 points, 0 of 3 layers changed" in shown
    assert run(*words).exit_code == 0


@pytest.mark.parametrize("groups", ["5-2", "a", "1-"])
def test_what_is_no_group_is_refused(groups: str) -> None:
    said = run("layers", "missing", *READING, "--groups", groups)
    assert said.exit_code == 2
    assert "--groups" in said.stderr
