"""`weights.safetensors`: a model trained whole, put on its base, merged, evaluated, repeated."""

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import headsurgeon as hs
from headsurgeon.errors import OutputError, PatchError, SettingsError, StateError
from headsurgeon.heads import HeadId
from headsurgeon.operation import FullLearner, apply_trained, check_trained, operate
from headsurgeon.operation.tensor_file import read_tensors, write_tensors
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.report.folder_page import page_of
from headsurgeon.training.run_file import read_run_file
from tests.clinic import CORPUS, checkpoint, run, sick_bloom, write_text
from tests.pico import pico
from tests.test_train_learners import FAMILIES, WIDE, equal, state, tiny

BUDGET = ("--length", "32", "--max-tokens", "2048", "--dev-windows", "4", "--yes")
WHOLE = ("operate", "sick", "--plan", "plan.yaml", "--corpus", CORPUS, "--whole-model", *BUDGET)
READING = ("--corpus", CORPUS, "--length", "32", "--count", "8", "--split", "dev")
WEIGHTS = "run/weights.safetensors"
MLP = "transformer.h.0.mlp.dense_h_to_4h.weight"
NORM = "transformer.ln_f.weight"


@torch.no_grad()
def trained(family: str, path: Path, amount: float = 0.1) -> FullLearner:
    """Weights that some training might have left, written to `path`."""
    model = tiny(family)
    learner = hs.open_full(model, WIDE, start=operate(model, WIDE, seed=3))
    draw = torch.Generator().manual_seed(0)
    for value in learner.trainable().values():
        value += amount * torch.randn(value.shape, generator=draw)
    learner.save(path)
    return learner


# --- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*FAMILIES, "llama-tied"])
def test_weights_on_their_base_are_the_trained_model_and_come_off_again(
    family: str, tmp_path: Path
) -> None:
    learner = trained(family, tmp_path / "weights.safetensors")
    learner.merge()
    model = tiny(family)
    stock = state(model)
    applied = hs.apply_weights(model, tmp_path / "weights.safetensors")
    assert equal(state(model), state(learner.model))
    assert (applied.state, applied.plan, applied.heads) == ("merged", learner.plan, WIDE.operated)
    started = ("xavier_uniform_head", "zero_output", 3)
    assert (applied.init, applied.output_start, applied.seed) == started
    applied.revert()
    assert equal(state(model), stock)
    applied.reopen()
    assert equal(state(model), state(learner.model))
    assert all(value.requires_grad for value in model.parameters())


def test_weights_are_kept_exactly_where_the_model_is_narrower(tmp_path: Path) -> None:
    learner = trained("bloom", tmp_path / "weights.safetensors")
    model = pico("bloom").bfloat16()
    with pytest.raises(PatchError, match="has other weights: apply it to its own base"):
        hs.apply_weights(model, tmp_path / "weights.safetensors")
    checkpoint(tmp_path / "base", pico("bloom"))
    model, _ = hs.load(str(tmp_path / "base"), dtype=torch.bfloat16)
    stock = state(model)
    applied = hs.apply_weights(model, tmp_path / "weights.safetensors")
    assert model.dtype == torch.bfloat16
    assert equal(applied.contents(), learner.contents())
    applied.save(tmp_path / "again.safetensors")
    assert equal(load_file(tmp_path / "again.safetensors"), dict(learner.contents()))
    applied.revert()
    assert equal(state(model), stock)
    # nothing is rounded away where nobody trains it on, and what is trained on is what is kept
    applied.reopen()
    with torch.no_grad():
        model.get_parameter(MLP).add_(1.0)
    applied.merge()
    moved = [n for n, v in applied.contents().items() if not torch.equal(v, learner.contents()[n])]
    assert moved == [MLP]
    applied.revert()
    with torch.no_grad():
        model.get_parameter(NORM).add_(1.0)
    with pytest.raises(StateError, match=f"{NORM} has changed"):
        applied.merge()


def damaged(change: Callable[[dict[str, torch.Tensor], dict[str, str]], None]) -> Path:
    trained("bloom", Path("weights.safetensors"))
    tensors, metadata = read_tensors("weights.safetensors", "weights", PatchError)
    del metadata["content"]
    change(tensors, metadata)
    write_tensors("weights.safetensors", "weights", tensors, metadata)
    return Path("weights.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors, said: said.pop("base"), "it has no base, .* an early version wrote it"),
        (lambda tensors, said: said.update(base="0" * 64), "has other weights"),
        (lambda tensors, said: said.update(plan="heads: ["), "copy the file again"),
        (lambda tensors, said: said.update(init="nobody"), "nobody"),
        (lambda tensors, said: said.update(seed="-1"), "seed: expected a whole number"),
        (lambda tensors, said: said.update(step="x"), "step: expected a whole number"),
        (lambda tensors, said: tensors.pop(MLP), "has other parameters"),
        (lambda tensors, said: tensors.update(more=torch.ones(1)), "has other parameters"),
        (lambda tensors, said: tensors.update({NORM: torch.ones(1)}), "has other parameters"),
        (lambda tensors, said: tensors[NORM].fill_(torch.nan), f"{NORM}: expected finite"),
        (lambda tensors, said: tensors.update({NORM: tensors[NORM].long()}), "expected finite"),
    ],
    ids=range(11),
)
def test_a_file_that_is_not_this_bases_changes_nothing(
    change: Callable[[dict[str, torch.Tensor], dict[str, str]], None],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = damaged(change)
    model = pico("bloom")
    stock = state(model)
    with pytest.raises(PatchError, match=words):
        hs.apply_weights(model, path)
    assert equal(state(model), stock)
    # it can still be operated on
    operate(model, WIDE).revert()


def test_a_model_changed_anywhere_is_another_base(tmp_path: Path) -> None:
    trained("bloom", tmp_path / "weights.safetensors")
    model = pico("bloom")
    with torch.no_grad():
        model.get_parameter(MLP)[0, 0] += 1.0
    with pytest.raises(PatchError, match="has other weights"):
        hs.apply_weights(model, tmp_path / "weights.safetensors")
    half = pico("bloom").half()
    with pytest.raises(PatchError, match="has other weights"):
        hs.apply_weights(half, tmp_path / "weights.safetensors")


def test_values_beyond_the_precision_of_the_model_are_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path / "base", pico("bloom"))
    trained("bloom", tmp_path / "weights.safetensors", amount=1e6)
    model, _ = hs.load(str(tmp_path / "base"), dtype=torch.float16)
    stock = state(model)
    with pytest.raises(PatchError, match="values beyond what the precision of this model"):
        hs.apply_weights(model, tmp_path / "weights.safetensors")
    assert equal(state(model), stock)


def test_what_training_broke_is_not_saved_nor_what_no_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    learner = trained("bloom", path)
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="float32 or bfloat16, not"):
        learner.save(path, torch.int8)
    with torch.no_grad():
        learner.model.get_parameter(MLP)[0, 0] = torch.nan
    with pytest.raises(PatchError, match=f"{MLP} holds NaN or infinity; training diverged"):
        learner.save(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("taken", ["merge", "revert", "reopen", "save"])
def test_heads_that_are_operated_on_meanwhile_are_not_written_over(
    taken: str, tmp_path: Path
) -> None:
    learner = hs.open_full(pico("bloom"), WIDE)
    if taken != "save":
        learner.merge()
    patient = operate(learner.model, WIDE)
    with pytest.raises(StateError, match="are being operated on"):
        getattr(learner, taken)(*([tmp_path / "w.safetensors"] if taken == "save" else []))
    patient.revert()
    learner.revert()
    assert equal(state(learner.model), state(pico("bloom")))


def test_a_patch_is_no_weights_nor_weights_a_patch(tmp_path: Path) -> None:
    model = pico("bloom")
    patient = operate(model, WIDE)
    patch = patient.save(tmp_path / "patch.safetensors")
    patient.revert()
    with pytest.raises(PatchError, match="expected a headsurgeon weights file, found patch"):
        hs.apply_weights(model, patch)
    trained("bloom", tmp_path / "weights.safetensors")
    with pytest.raises(PatchError, match="holds every weight of a model"):
        hs.apply_patch(model, tmp_path / "weights.safetensors")
    with pytest.raises(PatchError, match="give it alone"):
        check_trained([patch, tmp_path / "weights.safetensors"])
    assert apply_trained(model, [patch]).heads == WIDE.operated


# --- merged, tensor by tensor as stored ----------------------------------------------------------


def test_each_tensor_keeps_the_precision_it_was_stored_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("base"), pico("bloom"))
    file = Path("base/model.safetensors")
    tensors = load_file(file)
    # most of it in bf16, as its configuration says, and a norm in fp32
    stored = {n: t if n == NORM else t.bfloat16() for n, t in tensors.items()}
    save_file(stored, file, {"format": "pt"})
    config = json.loads(Path("base/config.json").read_text())
    Path("base/config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    model, _ = hs.load("base", dtype=torch.float32)
    learner = hs.open_full(model, WIDE.replace(model=""))
    with torch.no_grad():
        for value in learner.trainable().values():
            value.add_(0.1)
    learner.save("weights.safetensors")
    said = run("merge", "base", "--patch", "weights.safetensors", "--output", "merged")
    assert said.exit_code == 0, said.output
    assert "all weights merged into base" in said.stdout
    merged, values = load_file("merged/model.safetensors"), learner.contents()
    assert merged.keys() == stored.keys()
    for name, value in values.items():
        assert torch.equal(merged[name], value.to(stored[name].dtype)), name
    assert "trained whole" in Path("merged/README.md").read_text()


def test_both_stored_copies_of_a_tied_weight_are_the_trained_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("base"), tiny("llama-tied"))
    file = Path("base/model.safetensors")
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, file, {"format": "pt"})
    model, _ = hs.load("base")
    learner = hs.open_full(model, WIDE.replace(model=""))
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1.0)
    learner.save("weights.safetensors")
    said = run("merge", "base", "--patch", "weights.safetensors", "--output", "merged")
    assert said.exit_code == 0, said.output
    learner.merge()
    merged = AutoModelForCausalLM.from_pretrained("merged")
    assert equal(state(merged), state(model))
    copies = load_file("merged/model.safetensors")
    assert torch.equal(copies["lm_head.weight"], copies["model.embed_tokens.weight"])


# --- the commands --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("clinic")
    checkpoint(folder / "sick", sick_bloom())
    write_text(folder / "docs")
    write_text(folder / "more", characters=300)
    heads = tuple(PlannedHead(id=HeadId(1, head)) for head in (2, 3))
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        Plan(model="sick", rule="heads", heads=heads, init="canonical").save("plan.yaml")
        done = run(*WHOLE, "--preset", "recommended_whole", "--output", "run")
        assert done.exit_code == 0, done.output
        Path("said.txt").write_text(" ".join(done.stdout.split()))
        yield folder


def test_operate_trains_the_whole_model_from_the_start_of_the_heads(clinic: Path) -> None:
    said = Path("said.txt").read_text()
    # the start read half of the budget
    assert "The whole model trained on 1,024 tokens" in said
    assert "canonical looked at 1,024 tokens" in said
    assert f"headsurgeon merge sick --patch {WEIGHTS} --output repaired" in said
    identity = read_run_file(clinic / "run").identity
    assert (identity["trains"], identity["init"]) == ("full", "canonical")
    assert identity["settings"]["heads_rate"] == 4.0
    now, before = load_file(WEIGHTS), load_file("sick/model.safetensors")
    assert all(not torch.equal(now[name], before[name]) for name in before if name in now)
    # the same command resumes, another one does not
    assert run(*WHOLE, "--preset", "recommended_whole", "--output", "run").exit_code == 0
    heads = [word for word in WHOLE if word != "--whole-model"]
    refused = run(*heads, "--output", "run")
    assert refused.exit_code == 2
    assert "trains: the run there has 'full', this one None" in refused.stderr


def test_a_dry_run_says_that_the_whole_model_is_trained(clinic: Path) -> None:
    seen = run(*WHOLE, "--preset", "recommended_whole", "--output", "dry", "--dry-run")
    assert seen.exit_code == 0, seen.output
    said = " ".join(seen.stdout.split())
    model, _ = hs.load("sick")
    values = sum(value.numel() for value in model.parameters())
    assert f"the whole model, {values:,} parameters" in said
    assert f"optimiser {values * 8:,} bytes" in said
    assert "take no part in the backward pass" not in said
    assert "these heads at 4 times the rate" in said
    assert not Path("dry").exists()


def test_merged_it_is_the_model_that_was_evaluated(clinic: Path) -> None:
    found = run("evaluate", "sick", "--patch", WEIGHTS, *READING, "--output", "figures.json")
    assert found.exit_code == 0, found.output
    figures = json.loads(Path("figures.json").read_text())
    assert figures["recovery"]["heads"] == ["L1H2", "L1H3"]
    # no head is one that nobody touched
    assert "drift" not in figures
    assert "the other heads" not in found.stdout
    merging = ("merge", "sick", "--patch", WEIGHTS, "--evaluation", "figures.json")
    assert run(*merging, "--output", "merged").exit_code == 0
    again = run("evaluate", "merged", *READING, "--output", "again.json")
    assert again.exit_code == 0, again.output
    (whole,) = json.loads(Path("again.json").read_text())["evaluations"].values()
    known = figures["evaluations"]["with weights.safetensors"]
    assert whole["nll"]["value"] == pytest.approx(known["nll"]["value"], abs=1e-6)
    refused = run(*merging, "--output", "other", "--patch-output", "one.safetensors")
    assert refused.exit_code == 2
    assert "--patch-output is of patches" in refused.stderr
    assert not Path("other").exists()


def test_card_and_page_say_what_was_done_and_the_command_that_does_it_again(clinic: Path) -> None:
    assert run("merge", "sick", "--patch", WEIGHTS, "--output", "carded").exit_code == 0
    card = Path("carded/README.md").read_text()
    assert "# sick, trained whole, 2 heads started anew" in card
    assert "everything else was frozen" not in card
    command = next(line for line in card.splitlines() if line.startswith("headsurgeon operate"))
    page = page_of([clinic / "run"])
    first = read_run_file(clinic / "run")
    for number, shown in enumerate((command.replace("output run", "output DIR"), page.command)):
        name = f"again-{number}"
        Path("plan.yaml").write_text(first.plan)
        words = shlex.split(shown.replace("DIR", name))
        done = run(*words[1:], "--length", "32", "--dev-windows", "4", "--yes")
        assert done.exit_code == 0, done.output
        second = read_run_file(clinic / name)
        assert second.identity == first.identity
        assert equal(load_file(f"{name}/weights.safetensors"), load_file(WEIGHTS))


@pytest.mark.parametrize("kind", ["as it was", "started", "trained", "read", "moved", "other text"])
def test_a_command_is_shown_only_where_it_does_the_same(kind: str, clinic: Path) -> None:
    model, tokenizer = hs.load("sick")
    plan = Plan.load("plan.yaml").replace(init="none", output_start="keep_output")
    settings = hs.TrainSettings(max_tokens=512, length=32, dev_windows=4, evaluate_every=2)
    texts = hs.training_windows(CORPUS, tokenizer, settings)
    start = None
    if kind == "other text":
        look = hs.windows(CORPUS, tokenizer, "dev", 32, 8)
        start = hs.operate(model, plan, init="canonical", calibration=look)
    elif kind != "as it was":
        start = hs.operate(model, plan)
    folder = clinic / kind.replace(" ", "-")
    if kind in ("trained", "read"):
        hs.train(start, *texts, output=f"{folder}-start", settings=settings)
    if kind == "read":
        start.revert()
        start = hs.apply_patch(model, f"{folder}-start/patch.safetensors")
    if kind == "moved":
        with torch.no_grad():
            start.slices()[0].add_(0.1)
    hs.train(hs.open_full(model, plan, start=start), *texts, output=folder, settings=settings)
    assert bool(page_of([folder]).command) == (kind == "started")
    merged = f"{folder}-merged"
    done = run("merge", "sick", "--patch", folder / "weights.safetensors", "--output", merged)
    assert done.exit_code == 0, done.output
    card = Path(merged, "README.md").read_text()
    assert ("headsurgeon operate" in card) == (kind == "started")
    assert "headsurgeon merge sick --patch " in card
    before = kind in ("trained", "read", "moved")
    assert ("and trained by themselves" in card) == before
    assert ("from the base as it was" in card) == (kind in ("as it was", "started"))


def test_slices_that_are_trained_on_are_another_run_than_new_ones(clinic: Path) -> None:
    model, tokenizer = hs.load("sick")
    plan = Plan.load("plan.yaml").replace(init="xavier_uniform_head")
    settings = hs.TrainSettings(max_tokens=512, length=32, dev_windows=4, evaluate_every=2)
    texts = hs.training_windows(CORPUS, tokenizer, settings)
    patient = hs.operate(model, plan)
    hs.train(patient, *texts, output="first", settings=settings)
    patient.revert()
    again = hs.apply_patch(model, "first/patch.safetensors")
    again.reopen()
    with pytest.raises(OutputError, match="start_values"):
        hs.train(again, *texts, output="first", settings=settings)
    hs.train(again, *texts, output="second", settings=settings)
    assert page_of([clinic / "first"]).command
    assert page_of([clinic / "second"]).command == ""
    # the same patient, trained by now, is still the run that it was
    hs.train(again, *texts, output="second", settings=settings)


@pytest.mark.parametrize(
    "options",
    [
        ("--dtype", "bf16", "--masters", "bf16"),
        ("--anchor", "1", "--anchor-corpus", CORPUS, "--anchor-windows", "4"),
        ("--probe", f"own={CORPUS}", "--probe", f"last@test={CORPUS}"),
        ("--corpus", "text:more/*.txt", "--weights", "2,1"),
    ],
    ids=["precision", "anchor", "probes", "mixture"],
)
def test_the_command_of_a_page_has_all_that_decides_the_run(
    options: tuple[str, ...], clinic: Path
) -> None:
    name = f"run-{options[0].strip('-')}-{len(options)}"
    wanted = ("operate", "sick", "--plan", "plan.yaml", "--corpus", CORPUS, *BUDGET)
    Path("plan.yaml").write_text(read_run_file(clinic / "run").plan)
    done = run(*wanted, *options, "--output", name)
    assert done.exit_code == 0, done.output
    command = page_of([clinic / name]).command.replace("DIR", f"{name}-again")
    assert f"--output {name}-again" in command
    again = run(*shlex.split(command)[1:], "--yes")
    assert again.exit_code == 0, again.output
    assert read_run_file(clinic / f"{name}-again").identity == read_run_file(clinic / name).identity


def test_the_plan_of_a_run_says_how_the_heads_did_start(tmp_path: Path) -> None:
    """So that its page and card, which name the plan, repeat it."""
    model = pico("bloom")
    patient = hs.operate(model, WIDE, seed=5, init="qk_only")
    assert (patient.plan.init, patient.plan.seed) == ("qk_only", 5)
    learner = hs.open_full(model, WIDE, start=patient)
    assert learner.plan == patient.plan
    learner.revert()
    patient.save(tmp_path / "patch.safetensors")
    assert hs.apply_patch(model, tmp_path / "patch.safetensors").plan == patient.plan
