"""`evaluate --patch`: each model is measured and scored once; the figures are those of the API."""

import json
from pathlib import Path
from typing import Any

import pytest

import headsurgeon as hs
from headsurgeon.evaluation import ablation, recovery, recovery_rule
from headsurgeon.planning import Plan, PlannedHead
from tests.clinic import CORPUS, checkpoint, run, sick_bloom, write_text

READING = ("--length", "32", "--count", "8", "--split", "dev")


def test_each_model_is_measured_once_and_the_figures_are_those_of_recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("sick"), sick_bloom())
    write_text(Path("docs"))
    model, tokenizer = hs.load("sick")
    heads = (PlannedHead(id=hs.HeadId(1, 2)), PlannedHead(id=hs.HeadId(1, 3)))
    patient = hs.operate(model, Plan(model="sick", rule="heads", heads=heads), seed=3)
    patient.save("patch.safetensors")
    windows = hs.windows(CORPUS, tokenizer, "dev", 32, 8)
    expected = recovery(patient, windows).model_dump(exclude={"stock", "revived"})
    patient.revert()

    calls = {"measure": 0, "evaluate": 0}

    def counting(module: Any, name: str) -> None:
        original = getattr(module, name)

        def counted(*given: Any, **named: Any) -> Any:
            calls[name] += 1
            return original(*given, **named)

        monkeypatch.setattr(module, name, counted)

    counting(recovery_rule, "measure")
    counting(ablation, "evaluate")
    patch = ("--patch", "patch.safetensors", "--output", "evaluation.json")
    said = run("evaluate", "sick", "--corpus", CORPUS, *READING, *patch)
    assert said.exit_code == 0, said.stderr
    # stock, five untrained, patched; stock without the heads, patched with and without them
    assert calls == {"measure": 7, "evaluate": 3}
    content = json.loads(Path("evaluation.json").read_text())
    assert content["recovery"] == json.loads(json.dumps(expected))
    assert set(content["evaluations"]) == {"sick", "with patch.safetensors"}
