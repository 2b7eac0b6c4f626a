"""Arguments of another kind: every public function says what it expected and what came."""

from collections.abc import Callable
from functools import cache
from inspect import isfunction, signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import headsurgeon as hs
from headsurgeon.arguments import checked
from headsurgeon.errors import HeadsurgeonError, SettingsError
from tests.clinic import tokenizer
from tests.pico import pico, tokens

Call = Callable[[SimpleNamespace], Any]


@cache
def clinic() -> SimpleNamespace:
    """One of each kind of object that the public functions take."""
    model = pico("bloom")
    found = hs.measure(model, tokens())
    diagnosis = hs.diagnose(found)
    plan = hs.plan(diagnosis, rule="heads", heads=["L0H1"])
    patient = hs.operate(model, plan)
    patient.revert()
    return SimpleNamespace(
        model=model,
        tokenizer=tokenizer(),
        windows=hs.Windows(tokens(), ("a", "b"), "tokens", "none", "none", 0, "hash"),
        stats=found,
        diagnosis=diagnosis,
        plan=plan,
        patient=patient,
        evaluation=hs.evaluate(model, tokens()),
    )


# `str | Path` in whichever order Python or a type checker keeps it
PATH = "(Path or text|text or Path)"

# what is called, and what the message has to say
WRONG: dict[str, tuple[Call, str]] = {
    "load": (lambda c: hs.load(c.model), "spec: expected .*text.*BloomForCausalLM"),
    "load bytes": (lambda c: hs.load(b"bloom"), "spec: .*got b'bloom'.*os.fsdecode"),
    "load device": (lambda c: hs.load("x", device=0), "device: expected text"),
    "texts": (lambda c: hs.texts("words", "gpt2"), "tokenizer: expected PreTrainedTokenizerBase"),
    "windows length": (
        lambda c: hs.windows("package:sympy", c.tokenizer, length=32.0),
        r"length: expected a whole number, got 32\.0 \(float\)",
    ),
    "windows count": (
        lambda c: hs.windows("package:sympy", c.tokenizer, count="3"),
        r"count: expected a whole number or None, got '3' \(str\)",
    ),
    "windows seed": (
        lambda c: hs.windows("package:sympy", c.tokenizer, seed=True),
        "seed: expected a whole number, got True",
    ),
    "windows order": (lambda c: hs.windows(c.tokenizer, "package:sympy"), "corpus: expected text"),
    "windows path": (lambda c: hs.windows(Path("docs"), c.tokenizer), "corpus: .*got P"),
    "windows split": (lambda c: hs.windows("a", c.tokenizer, split=None), "split: .*got None"),
    "windows weights": (
        lambda c: hs.windows(["a", "b"], c.tokenizer, weights="12"),
        "weights: expected a list of a number, got '12'",
    ),
    "training_windows": (
        lambda c: hs.training_windows("a", c.tokenizer, {"max_tokens": 1}),
        "settings: expected TrainSettings, got dict",
    ),
    "calibration_windows": (
        lambda c: hs.calibration_windows("a", c.tokenizer, {"max_tokens": 1}),
        "settings: expected TrainSettings, got dict",
    ),
    "measure pair": (lambda c: hs.measure((c.model, c.tokenizer), tokens()), "got tuple of .*load"),
    "measure text": (
        lambda c: hs.measure(c.model, "text"),
        "windows: expected Windows, Texts or T",
    ),
    "measure array": (lambda c: hs.measure(c.model, tokens().numpy()), "windows: .*got ndarray"),
    "measure layer": (lambda c: hs.measure(torch.nn.Linear(2, 2), tokens()), "model: .*got Linear"),
    "measure batch": (lambda c: hs.measure(c.model, tokens(), batch_size=2.0), "batch_size"),
    "measure attention": (
        lambda c: hs.measure(c.model, tokens(), attention=1),
        "attention: .*stock",
    ),
    "diagnose model": (
        lambda c: hs.diagnose(c.model),
        "stats: expected HeadStats.*headsurgeon.measure",
    ),
    "diagnose two": (lambda c: hs.diagnose(c.model, c.windows), "stats: expected HeadStats"),
    "diagnose windows": (lambda c: hs.diagnose(c.windows), "stats: .*got Windows"),
    "diagnose thresholds": (lambda c: hs.diagnose(c.stats, {"sink": 0.5}), "thresholds"),
    "plan stats": (lambda c: hs.plan(c.stats), "diagnosis: expected Diagnosis, got HeadStats"),
    "plan heads": (lambda c: hs.plan(c.diagnosis, "heads", heads="L0H1"), "heads: expected a list"),
    "plan band": (lambda c: hs.plan(c.diagnosis, "band", band=(1, 2, 3)), "band: .*tuple of int"),
    "plan cost": (lambda c: hs.plan(c.diagnosis, cost=0.1), "cost: expected Costs, a function"),
    "operate diagnosis": (lambda c: hs.operate(c.model, c.diagnosis), "plan: expected Plan"),
    "operate path": (lambda c: hs.operate(c.model, "plan.yaml"), r"plan: .*Plan\.load"),
    "operate seed": (lambda c: hs.operate(c.model, c.plan, seed="1"), "seed: expected"),
    "open_full": (
        lambda c: hs.open_full(c.plan, c.model),
        "model: expected PreTrainedModel, got P",
    ),
    "open_lora": (lambda c: hs.open_lora(c.model, c.diagnosis), "plan: expected Plan"),
    "train windows": (
        lambda c: hs.train(c.patient, c.windows, c.windows, output="x", settings=c.windows),
        "settings: expected TrainSettings, got Windows",
    ),
    "train tensor": (
        lambda c: hs.train(
            c.patient, tokens(), c.windows, output="x", settings=hs.TrainSettings(epochs=1)
        ),
        "train_windows: expected Windows, got Tensor",
    ),
    "train model": (
        lambda c: hs.train(
            c.model, c.windows, c.windows, output="x", settings=hs.TrainSettings(epochs=1)
        ),
        "learner: expected Learner, got BloomForCausalLM.*headsurgeon.operate",
    ),
    "run_passes": (
        lambda c: hs.run_passes(c.model, c.windows, c.windows, output="x", settings=c.windows),
        "settings: expected TrainSettings, got Windows",
    ),
    "run_passes rules": (
        lambda c: hs.run_passes(
            c.model,
            c.windows,
            c.windows,
            output="x",
            settings=hs.TrainSettings(epochs=1),
            rules="sick",
        ),
        "rules: expected a list",
    ),
    "apply_patch": (lambda c: hs.apply_patch(c.model, b"patch"), f"path: expected {PATH}"),
    "apply_weights": (lambda c: hs.apply_weights(c.model, 3), f"path: expected {PATH}"),
    "apply_patches": (lambda c: hs.apply_patches(c.model, "p"), "paths: expected a list of Path"),
    "compose_patches": (lambda c: hs.compose_patches(c.model, ["p"], None), "output: .*got None"),
    "evaluate": (lambda c: hs.evaluate(c.windows, c.model), "model: expected PreTrainedModel"),
    "ablate heads": (
        lambda c: hs.ablate(c.model, "L0H1", tokens()),
        "heads: expected Plan or a list",
    ),
    "ablate mode": (
        lambda c: hs.ablate(c.model, ["L0H1"], tokens(), mode=0),
        "mode: expected zero",
    ),
    "ablation_cost": (lambda c: hs.ablation_cost(c.model, None), "windows: .*got None"),
    "ablate_layers": (lambda c: hs.ablate_layers(c.windows, c.model), "model: expected PreTr"),
    "generate": (lambda c: hs.generate(c.tokenizer, c.model, []), "model: expected PreTrained"),
    "generate prompts": (
        lambda c: hs.generate(c.model, c.tokenizer, "own/prompts-10"),
        "prompts: expected a list",
    ),
    "read_prompts": (lambda c: hs.read_prompts(3), f"source: expected {PATH}, got 3"),
    "side_by_side": (lambda c: hs.side_by_side(c.evaluation), "generations: expected a list"),
    "drift": (lambda c: hs.drift(c.diagnosis, c.diagnosis), "before: expected HeadStats"),
    "drift one": (lambda c: hs.drift(c.stats, c.stats, "L0H1"), "operated: expected"),
    "recovery": (
        lambda c: hs.recovery(c.plan, c.windows),
        "patient: expected Patient or FullLearner, got Plan",
    ),
    "recovery tokens": (lambda c: hs.recovery(c.patient, tokens()), "windows: expected Windows"),
    "difference": (lambda c: hs.difference(c.evaluation, 3.4), "expected Evaluation, got 3.4"),
    "recovered_share": (
        lambda c: hs.recovered_share(c.evaluation, c.evaluation, c.model),
        "expected Evaluation, got Bloom",
    ),
    "run_study": (lambda c: hs.run_study({"name": "x"}, "out"), "study: expected Study.*got dict"),
    "run_study jobs": (
        lambda c: hs.run_study("x", "out", jobs=2.0),
        "jobs: expected a whole number",
    ),
    "write_report": (
        lambda c: hs.write_report(None),
        f"folders: expected {PATH}, got None",
    ),
    "redistribution": (lambda c: hs.redistribution(3), f"run: expected {PATH}, got 3"),
    "sweep": (lambda c: hs.sweep(c.plan), f"run: expected {PATH}, got Plan"),
    "Plan.load": (lambda c: hs.Plan.load(b"x"), "path: expected"),
    "Plan.save": (lambda c: c.plan.save(3), f"path: expected {PATH}, got 3"),
    "Diagnosis.load": (lambda c: hs.Diagnosis.load(None), "path: expected"),
    "Evaluation.load": (lambda c: hs.Evaluation.load(3), "path: expected"),
    "Evaluation.save": (lambda c: c.evaluation.save(b"x"), "path: expected"),
    "Study.load": (lambda c: hs.Study.load(3), "path: expected"),
    "Patient.save": (lambda c: c.patient.save(None), "path: expected"),
    "Patient.save dtype": (lambda c: c.patient.save("p", dtype="fp32"), "dtype: expected dtype"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_argument_of_another_kind_is_named_with_what_was_expected_and_what_came(
    name: str,
) -> None:
    call, said = WRONG[name]
    with pytest.raises(HeadsurgeonError, match=said) as caught:
        call(clinic())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_every_public_function_is_in_the_table() -> None:
    functions = {name for name in hs.__all__ if isfunction(getattr(hs, name))}
    assert functions <= {name.split()[0] for name in WRONG}


@pytest.mark.parametrize("name", [name for name in hs.__all__ if isfunction(getattr(hs, name))])
def test_none_in_place_of_the_first_argument_is_refused_in_words(name: str) -> None:
    function = getattr(hs, name)
    required = [
        parameter
        for parameter in signature(function).parameters.values()
        if parameter.default is parameter.empty
    ]
    several = [None for each in required if each.kind is each.VAR_POSITIONAL]
    given = {each.name: None for each in required if each.kind is not each.VAR_POSITIONAL}
    with pytest.raises(SettingsError, match=f"{name}: {required[0].name}: expected .* got None"):
        function(*several, **given)


def test_numbers_of_numpy_are_numbers() -> None:
    c = clinic()
    three = np.int64(3)
    plan = hs.plan(
        c.diagnosis,
        "heads",
        heads=[(np.int64(0), np.int32(1))],
        seed=three,
        max_cost=np.float32(0.5),
    )
    assert type(plan.seed) is int
    assert hs.Plan.from_yaml(plan.to_yaml()) == plan
    same = hs.evaluate(c.model, tokens(), batch_size=np.int16(1))
    assert same.nll == pytest.approx(c.evaluation.nll)


def test_models_in_the_wrapper_of_a_library_are_judged_by_the_function_itself() -> None:
    @checked
    def family(model: PreTrainedModel) -> Any:
        return model

    wrapped = SimpleNamespace(config=pico("bloom").config)
    assert family(wrapped) is wrapped  # type: ignore[arg-type]


def test_what_python_says_of_missing_arguments_stays() -> None:
    with pytest.raises(TypeError, match=r"measure\(\) missing 1 required positional"):
        hs.measure(clinic().model)
