"""Training runs: stopped anywhere and resumed they end the same, and they disturb nothing."""

import errno
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from headsurgeon.data import Windows
from headsurgeon.errors import (
    Interrupted,
    OperationError,
    OutputError,
    SettingsError,
    StateError,
    WriteError,
)
from headsurgeon.heads import HeadId
from headsurgeon.models.token_loss import token_nll
from headsurgeon.operation import Patient, apply_patch, operate, read_patch
from headsurgeon.operation.tensor_file import read_tensors
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.training import (
    StepEvent,
    TrainSettings,
    read_log,
    train,
    train_settings,
    training_windows,
)
from headsurgeon.training.log import read_entries
from tests.pico import VOCABULARY, pico

PLAN = Plan(
    model="pico", rule="heads", heads=(PlannedHead(id=HeadId(1, 1)), PlannedHead(id=HeadId(2, 2)))
)
STEPS = 7


def cut(split: str, count: int = 10, length: int = 12) -> Windows:
    # counting modulo a small number: easy to learn for heads that look back
    generator = torch.Generator().manual_seed(len(split))
    starts = torch.randint(0, 20, (count, 1), generator=generator)
    ids = (starts + torch.arange(length)) % 20
    documents = tuple(f"{split}-{index}" for index in range(count))
    return Windows(ids, documents, "counting", split, "none", 0, "0" * 64)


def short(**changes: object) -> TrainSettings:
    per_step = 4 * 12
    values = {
        "length": 12,
        "batch_size": 2,
        "accumulation": 2,
        "max_tokens": STEPS * per_step,
        "learning_rate": 5e-3,
        "warmup": 2,
        "evaluate_every": 3,
        "checkpoint_every": 2,
        "statistics_windows": 2,
    }
    return train_settings(**{**values, **changes})


def patient(family: str = "bloom", **over: float) -> Patient:
    # dropout, so that the random numbers of every step matter
    over = over or ({"hidden_dropout": 0.1, "attention_dropout": 0.1} if family == "bloom" else {})
    return operate(pico(family, **over), PLAN)


def run(
    subject: Patient,
    folder: Path,
    on_step: Callable[[StepEvent], None] | None = None,
    **changes: object,
) -> object:
    return train(
        subject,
        cut("train"),
        cut("dev"),
        output=folder,
        settings=short(**changes),
        on_step=on_step,
    )


def end_state(folder: Path) -> dict[str, Tensor]:
    return read_tensors(folder / "checkpoint" / "last.safetensors", "checkpoint", OutputError)[0]


def entries(folder: Path) -> list[dict[str, object]]:
    found = read_entries(folder / "log.jsonl")
    return [{k: v for k, v in entry.items() if k != "tokens_per_second"} for entry in found]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "run"
    run(patient(), folder)
    return folder


def same(folder: Path, reference: Path) -> bool:
    left, right = end_state(folder), end_state(reference)
    assert sorted(left) == sorted(right)
    assert entries(folder) == entries(reference)
    patches = [read_patch(f / "patch.safetensors")[1] for f in (folder, reference)]
    assert all(torch.equal(patches[0][name], patches[1][name]) for name in patches[0])
    return all(torch.equal(left[name], right[name]) for name in left)


# --- stopping and resuming -----------------------------------------------------------------------


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_run_stopped_at_any_step_and_resumed_ends_bit_identical(
    step: int, tmp_path: Path, reference: Path
) -> None:
    def stop(event: StepEvent) -> None:
        if event.step == step:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=f"step {step} of {STEPS}.*same output folder"):
        run(patient(), tmp_path / "run", stop)
    seen: list[int] = []
    run(patient(), tmp_path / "run", lambda event: seen.append(event.step))
    assert seen == list(range(step + 1, STEPS + 1))
    assert same(tmp_path / "run", reference)


@pytest.mark.parametrize("step", [1, 3, 4, 6, 7])
def test_a_run_killed_between_checkpoints_repeats_the_lost_steps(
    step: int, tmp_path: Path, reference: Path
) -> None:
    class PowerCut(Exception):
        pass

    def kill(event: StepEvent) -> None:
        if event.step == step:
            raise PowerCut

    with pytest.raises(PowerCut):
        run(patient(), tmp_path / "run", kill)
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write('{"kind": "step", "step": 9')
    run(patient(), tmp_path / "run")
    assert same(tmp_path / "run", reference)


def test_a_run_stopped_after_every_step_ends_bit_identical(tmp_path: Path, reference: Path) -> None:
    def stop(event: StepEvent) -> None:
        raise KeyboardInterrupt

    for _ in range(STEPS):
        with pytest.raises(Interrupted):
            run(patient(), tmp_path / "run", stop)
    run(patient(), tmp_path / "run")
    assert same(tmp_path / "run", reference)


def test_ctrl_c_in_the_middle_of_a_forward_pass_loses_only_that_step(
    tmp_path: Path, reference: Path
) -> None:
    subject = patient()
    forwards = 0

    def interrupt(*_: object) -> None:
        nonlocal forwards
        forwards += subject.model.training
        # step 2 runs as forward passes 5 and 6
        if forwards == 5 and subject.model.training:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    subject.model.base_model.register_forward_pre_hook(interrupt)
    with pytest.raises(Interrupted, match="step 2 of"):
        run(subject, tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before
    run(patient(), tmp_path / "run")
    assert same(tmp_path / "run", reference)


def test_a_finished_run_is_not_repeated(tmp_path: Path, reference: Path) -> None:
    first = run(patient(), tmp_path / "run")
    seen: list[int] = []
    again = run(patient(), tmp_path / "run", lambda event: seen.append(event.step))
    assert again == first
    assert seen == []
    assert same(tmp_path / "run", reference)


# --- what training leaves alone ------------------------------------------------------------------


def test_how_often_it_is_evaluated_does_not_change_what_is_learned(
    tmp_path: Path, reference: Path
) -> None:
    run(patient(), tmp_path / "run", evaluate_every=1, statistics_windows=0)
    left, right = end_state(tmp_path / "run"), end_state(reference)
    assert all(torch.equal(left[name], right[name]) for name in right)


def test_training_flags_generators_and_frozen_weights_are_as_before(tmp_path: Path) -> None:
    subject = patient()
    model = subject.model
    model.transformer.h[0].train()
    flags = {name: module.training for name, module in model.named_modules()}
    stock = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    generator = torch.random.get_rng_state()
    run(subject, tmp_path / "run", weight_decay=0.5)
    assert {name: module.training for name, module in model.named_modules()} == flags
    assert torch.equal(torch.random.get_rng_state(), generator)
    for name, tensor in model.state_dict().items():
        if name in subject.maps:
            zero = torch.zeros_like(subject.maps[name].read(tensor))
            subject.maps[name].write(tensor, zero)
            subject.maps[name].write(stock[name], zero)
        assert torch.equal(tensor, stock[name])


def test_gradient_checkpointing_learns_the_same_and_spares_the_layers_below(
    tmp_path: Path, reference: Path
) -> None:
    subject = patient()
    entered: list[bool] = []
    subject.model.transformer.h[0].register_forward_hook(
        lambda module, inputs, output: entered.append(output[0].requires_grad)
    )
    run(subject, tmp_path / "run", gradient_checkpointing=True)
    assert entered
    assert not any(entered)
    assert not any(block.gradient_checkpointing for block in subject.model.transformer.h)
    left, right = end_state(tmp_path / "run"), end_state(reference)
    assert all(torch.equal(left[name], right[name]) for name in right)


# --- what a run is -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bloom", "mpt", "falcon-rw", "falcon-new"])
@pytest.mark.parametrize("compute", ["auto", "bf16"])
def test_training_lowers_the_loss_on_dev_text(family: str, compute: str, tmp_path: Path) -> None:
    subject = patient(family, hidden_dropout=0.0) if family == "bloom" else patient(family)
    result = run(subject, tmp_path / "run", compute=compute, max_tokens=30 * 48, evaluate_every=10)
    points = read_log(result)
    assert [read for read, _ in points] == [0, 480, 960, 1440]
    assert points[-1][1] < points[0][1] - 0.05
    nll = token_nll(subject.model, cut("dev").tokens).mean().item()
    assert nll == pytest.approx(result.best_dev_loss, abs=0.02)


def test_afterwards_the_patient_and_the_patch_hold_the_best_slices(tmp_path: Path) -> None:
    subject = patient()
    start = {name: slice_.detach().clone() for name, slice_ in subject.named_slices().items()}
    dev = cut("dev")
    # tokens the train text never has, which training makes less likely
    dev = replace(dev, tokens=dev.tokens + 50)
    settings = short(learning_rate=0.1)
    result = train(subject, cut("train"), dev, output=tmp_path / "run", settings=settings)
    losses = dict(read_log(result))
    assert result.best_step == 0
    assert result.best_dev_loss == losses[0] == min(losses.values())
    assert all(torch.equal(s, start[name]) for name, s in subject.named_slices().items())
    model = pico("bloom")
    apply_patch(model, result.patch)
    subject.merge()
    state = subject.model.state_dict()
    assert all(torch.equal(state[name], t) for name, t in model.state_dict().items())
    best = list((tmp_path / "run" / "checkpoint").glob("best-*"))
    assert [path.name for path in best] == ["best-000000.safetensors"]


def test_the_log_and_run_file_say_what_happened(reference: Path) -> None:
    steps = [entry for entry in entries(reference) if entry["kind"] == "step"]
    assert [entry["step"] for entry in steps] == list(range(1, STEPS + 1))
    assert steps[0]["learning_rate"] == pytest.approx(5e-3)
    assert steps[-1]["learning_rate"] < steps[1]["learning_rate"]
    evaluations = [entry for entry in entries(reference) if entry["kind"] == "evaluation"]
    assert [entry["step"] for entry in evaluations] == [0, 3, 6, 7]
    assert all(0 <= entry["healthy"] <= 12 for entry in evaluations)
    assert all(0 <= entry["healthy_operated"] <= 2 for entry in evaluations)
    assert all(0.0 < entry["first_token_mass"] < 1.0 for entry in evaluations)
    content = json.loads((reference / "run.json").read_text())
    assert content["kind"] == "run"
    assert content["identity"]["settings"]["learning_rate"] == 5e-3
    assert content["identity"]["heads"] == ["L1H1", "L2H2"]
    assert content["result"]["steps"] == STEPS
    assert Plan.from_yaml(content["plan"]).operated == PLAN.operated


def test_events_carry_what_a_progress_bar_shows(tmp_path: Path) -> None:
    events: list[StepEvent] = []
    run(patient(), tmp_path / "run", events.append)
    assert [event.step for event in events] == list(range(1, STEPS + 1))
    assert all(event.steps == STEPS and event.heads == 12 for event in events)
    assert all(event.tokens == 48 * event.step for event in events)
    assert all(event.tokens_per_second > 0 and event.healthy is not None for event in events)
    assert events[-1].seconds_left == 0.0


def counting_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({f"w{index}": index for index in range(VOCABULARY)}, "w0"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")


@pytest.mark.filterwarnings("ignore:.*are copies of others")
def test_a_corpus_is_repeated_when_the_budget_is_larger(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for index in range(40):
        text = " ".join(f"w{(index + k) % 20}" for k in range(30))
        (texts / f"{index}.txt").write_text(text)
    settings = train_settings(length=12, max_tokens=40 * 96, statistics_windows=0)
    windows = training_windows(f"text:{texts}/*.txt", counting_tokenizer(), settings)
    result = train(patient(), *windows, output=tmp_path / "run", settings=settings)
    assert (result.steps, result.tokens) == (40, 40 * 96)
    content = json.loads((tmp_path / "run" / "run.json").read_text())["identity"]
    assert content["train"]["split"] == "train"
    assert content["dev"]["split"] == "dev"
    assert content["train"]["windows"] < 40 * 8


# --- refusals and accidents ----------------------------------------------------------------------


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path: Path) -> None:
    run(patient(), tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(OutputError, match=r"learning_rate: the run there has 0.005, this one 0.1"):
        run(patient(), tmp_path / "run", learning_rate=0.1)
    with pytest.raises(OutputError, match="init_seed: the run there has 0, this one 1"):
        run(operate(pico("bloom"), PLAN, 1), tmp_path / "run")
    with pytest.raises(OutputError, match="fingerprint"):
        run(operate(pico("bloom", seed=1), PLAN), tmp_path / "run")
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="something else"):
        run(patient(), tmp_path)


@pytest.mark.parametrize("step", ["merge", "revert"])
def test_a_merged_or_reverted_patient_is_not_trained(step: str, tmp_path: Path) -> None:
    subject = patient()
    getattr(subject, step)()
    with pytest.raises(StateError, match="reopen"):
        run(subject, tmp_path / "run")
    subject.reopen()
    run(subject, tmp_path / "run")


def test_a_disk_that_fills_up_leaves_the_previous_checkpoint_to_go_on_from(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync
    full = False

    def fsync(descriptor: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    def fill(event: StepEvent) -> None:
        nonlocal full
        full = event.step == 4

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(WriteError, match="No space left"):
        run(patient(), tmp_path / "run", fill)
    assert json.loads(_progress(tmp_path / "run"))["step"] == 3
    assert not list((tmp_path / "run" / "checkpoint").glob(".*"))
    full = False
    run(patient(), tmp_path / "run")
    assert same(tmp_path / "run", reference)


def _progress(folder: Path) -> str:
    path = folder / "checkpoint" / "last.safetensors"
    return read_tensors(path, "checkpoint", OutputError)[1]["progress"]


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run(patient(), tmp_path / "run")
    path = tmp_path / "run" / "checkpoint" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OutputError, match="cut short"):
        run(patient(), tmp_path / "run")


def test_a_loss_that_explodes_stops_the_run_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    subject = patient()

    def poison(event: StepEvent) -> None:
        if event.step == 3:
            with torch.no_grad():
                subject.slices()[0].fill_(float("nan"))

    with pytest.raises(OperationError, match="lower learning rate"):
        run(subject, tmp_path / "run", poison, evaluate_every=50)
    assert json.loads(_progress(tmp_path / "run"))["step"] == 2
    subject = patient()
    with pytest.raises(OperationError, match="dev text is not finite"):
        run(subject, tmp_path / "other", poison, evaluate_every=1)
    assert json.loads(_progress(tmp_path / "other"))["step"] == 2


def test_fp32_compute_on_narrower_weights_is_refused(tmp_path: Path) -> None:
    model: PreTrainedModel = pico("bloom").to(torch.bfloat16)
    with pytest.raises(SettingsError, match=r"weights are torch\.bfloat16"):
        run(operate(model, PLAN), tmp_path / "run", compute="fp32")
    assert not (tmp_path / "run").exists()


def test_bf16_weights_are_trained_through_fp32_slices(tmp_path: Path) -> None:
    model: PreTrainedModel = pico("bloom").to(torch.bfloat16)
    subject = operate(model, PLAN)
    result = run(subject, tmp_path / "run", max_tokens=20 * 48)
    assert result.best_step > 0
    assert all(tensor.dtype == torch.float32 for tensor in end_state(tmp_path / "run").values())


def test_windows_the_model_cannot_read_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    subject = operate(pico("mpt", max_seq_len=8), PLAN)
    with pytest.raises(SettingsError, match="longer than the 8"):
        run(subject, tmp_path / "run")
    assert not (tmp_path / "run").exists()
