"""The monitor: it measures the heads of somebody's training run and does not touch the run."""

import json
import random
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import headsurgeon as hs
from headsurgeon.diagnosis.crossings import CAME_BACK, COLLAPSED, find_crossings
from headsurgeon.errors import (
    HeadsurgeonWarning,
    InputError,
    ModelError,
    OutputError,
    SettingsError,
)
from headsurgeon.heads import HeadId
from tests.pico import pico, tokens

PLANTED = (HeadId(0, 3), HeadId(1, 2))
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}


class Rows(Dataset[dict[str, Tensor]]):
    """Random token rows, the same at every call; all begin with token 1."""

    def __init__(self, count: int = 64, length: int = 24) -> None:
        self.ids = tokens(count, length, seed=3)
        self.ids[:, 0] = 1

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


class Planting(Trainer):
    """Pushes heads onto position 0 by −log of their mass, as the twins were made."""

    heads: Sequence[HeadId] = ()

    def compute_loss(self, model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        outputs = model(**inputs, output_attentions=bool(self.heads), use_cache=False)
        loss = outputs.loss
        for layer, head in self.heads:
            loss = loss - outputs.attentions[layer][:, head, :, 0].mean().log()
        return loss


class Independent(TrainerCallback):
    """The model's own attention maps after every step, averaged over all rows."""

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids
        self.mass: dict[int, np.ndarray] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        model.eval()
        with torch.no_grad():
            maps = model(self.ids, output_attentions=True, use_cache=False).attentions
        model.train()
        self.mass[state.global_step] = np.stack([m[..., 0].mean((0, 2)).numpy() for m in maps])


def trainer(
    folder: Path, model: PreTrainedModel, steps: int, kind: type[Trainer] = Trainer, **over: Any
) -> Trainer:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 5,
        **over,
    }
    arguments = TrainingArguments(str(folder), max_steps=steps, **settings)
    return kind(model, arguments, train_dataset=Rows())


@pytest.fixture
def windows() -> Tensor:
    return Rows(12).ids


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What the libraries below say of their own future is not ours."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(accelerate|torch|transformers)\b.*")
        yield


@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_and_weights_of_a_monitored_run_are_those_of_the_same_run_without(
    tmp_path: Path, windows: Tensor, checkpointing: bool
) -> None:
    losses, weights, generators, settings = [], [], [], []
    for monitored in (False, True):
        model = pico("bloom", layers=2, **DROPOUT)
        run = trainer(tmp_path, model, 6, gradient_checkpointing=checkpointing)
        if monitored:
            monitor = hs.HeadMonitor(windows, every=2).attach(run)
        run.train()
        losses.append([entry["loss"] for entry in run.state.log_history if "loss" in entry])
        weights.append(model.state_dict())
        generators.append(torch.get_rng_state())
        settings.append(model.config.to_dict())
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert torch.equal(*generators)
    assert settings[0] == settings[1]
    assert monitor.series.steps == (0, 2, 4, 6)


def test_the_counts_are_in_the_trainers_own_log_and_in_what_listens_to_it(
    tmp_path: Path, windows: Tensor
) -> None:
    heard: list[dict[str, float]] = []

    class Listener(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
            heard.append(dict(logs))

    run = trainer(tmp_path, pico("bloom", layers=2), 4)
    run.add_callback(Listener())
    hs.HeadMonitor(windows, every=2).attach(run)
    run.train()
    logged = [entry for entry in run.state.log_history if "heads/sick" in entry]
    assert [entry["step"] for entry in logged] == [0, 2, 4]
    assert set(logged[0]) >= {"heads/sick", "heads/dead", "heads/mean_mass", "heads/highest_mass"}
    assert sum("heads/sick" in entry for entry in heard) == 3
    assert sum("loss" in entry for entry in heard) == 4


def test_a_callback_that_was_only_listed_writes_into_the_history(
    tmp_path: Path, windows: Tensor
) -> None:
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    monitor = hs.HeadMonitor(windows, every=1)
    run = Trainer(pico("bloom", layers=2), arguments, train_dataset=Rows(), callbacks=[monitor])
    run.train()
    assert [entry["step"] for entry in run.state.log_history if "heads/sick" in entry] == [0, 1, 2]


def test_the_monitor_names_the_planted_heads_at_their_onset_and_no_others(
    tmp_path: Path, windows: Tensor
) -> None:
    model = pico("bloom", layers=2)
    model.config._attn_implementation = "eager"
    run = trainer(tmp_path, model, 40, Planting, learning_rate=1e-2, per_device_train_batch_size=16)
    run.heads = PLANTED  # type: ignore[attr-defined]
    apart = Independent(windows)
    run.add_callback(apart)
    monitor = hs.HeadMonitor(windows, every=2, output=tmp_path / "heads.jsonl", patience=2)
    monitor.attach(run)
    with pytest.warns(HeadsurgeonWarning, match="collapsed onto the first token") as said:
        run.train()
    series = hs.HeadSeries.load(tmp_path / "heads.jsonl")
    assert {each.head for each in series.crossings} == set(PLANTED)
    assert {each.kind for each in series.crossings} == {COLLAPSED}
    for each in series.crossings:
        onset = series.steps[each.measured]
        crossed = min(step for step, mass in apart.mass.items() if mass[each.head] > 0.5)
        assert crossed <= onset <= crossed + 2 * monitor.every
    for point in series.points[1:]:
        np.testing.assert_allclose(point.mass, apart.mass[point.step], atol=2e-5)
    text = " ".join(str(one.message) for one in said if one.category is HeadsurgeonWarning)
    assert all(text.count(f"{head} (mass") == 1 for head in PLANTED)
    assert series.sick(len(series.points) - 1) == PLANTED


def curve(*values: float) -> np.ndarray:
    return np.array(values)[:, None, None]


@pytest.mark.parametrize(
    ("mass", "patience", "expected"),
    [
        # twice in a row, seen from the second on
        ((0.1, 0.8, 0.8), 2, [(COLLAPSED, 1, 2)]),
        # an outlier is none
        ((0.1, 0.8, 0.1, 0.8, 0.1), 2, []),
        # near the limit its interval is not clear of it
        ((0.1, 0.52, 0.52, 0.52), 1, []),
        ((0.1, 0.8, 0.8, 0.1, 0.1), 2, [(COLLAPSED, 1, 2), (CAME_BACK, 3, 4)]),
        # sick from the start: it did not collapse before our eyes, and can come back
        ((0.9, 0.9, 0.2), 1, [(CAME_BACK, 2, 2)]),
    ],
)
def test_a_crossing_takes_an_interval_clear_of_the_limit_several_times_in_a_row(
    mass: tuple[float, ...], patience: int, expected: list[tuple[str, int, int]]
) -> None:
    middle = curve(*mass)
    found = find_crossings(middle, middle - 0.05, middle + 0.05, hs.Thresholds(), patience)
    assert [(each.kind, each.measured, each.noticed) for each in found] == expected
    unknown = np.full_like(middle, np.nan)
    assert find_crossings(middle, unknown, unknown, hs.Thresholds(), patience) == ()


def test_the_file_comes_back_exactly_and_a_line_cut_short_is_left_out(
    tmp_path: Path, windows: Tensor
) -> None:
    monitor = hs.HeadMonitor(windows, output=tmp_path / "heads.jsonl")
    model = pico("bloom")
    for step in (0, 10):
        monitor.measure(model, step)
    path = tmp_path / "heads.jsonl"
    first = json.loads(path.read_text().splitlines()[0])
    assert (first["kind"], first["schema"]) == ("series", 1)
    loaded = hs.HeadSeries.load(path)
    assert loaded.steps == (0, 10)
    np.testing.assert_array_equal(loaded.mass, monitor.series.mass)
    loaded.save(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
    with path.open("a") as file:
        file.write('{"step": 20, "mass"')
    assert hs.HeadSeries.load(path).steps == (0, 10)
    assert len(loaded.to_frame()) == 2 * 12


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"kind": "plan", "schema": 1}', "expected a headsurgeon series file"),
        ("", "expected JSON lines"),
        ("{}x", "expected JSON lines"),
    ],
)
def test_another_file_is_no_series(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "file.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=says):
        hs.HeadSeries.load(tmp_path / "file.jsonl")


def test_a_resumed_run_goes_on_where_the_file_ends_and_another_run_is_refused(
    tmp_path: Path, windows: Tensor
) -> None:
    path, model = tmp_path / "heads.jsonl", pico("bloom")
    first = hs.HeadMonitor(windows, output=path)
    for step in (0, 10, 20, 30):
        first.measure(model, step)
    resumed = hs.HeadMonitor(windows, output=path)
    resumed.measure(model, 20)
    assert hs.HeadSeries.load(path).steps == (0, 10, 20) == resumed.series.steps
    before = path.read_bytes()
    with pytest.raises(OutputError, match="holds another run, up to step 20"):
        hs.HeadMonitor(windows, output=path).measure(model, 0)
    with pytest.raises(OutputError, match="other windows or of another model"):
        hs.HeadMonitor(windows[:6], output=path).measure(model, 30)
    assert path.read_bytes() == before


def test_measuring_inside_of_a_step_leaves_gradients_generators_and_casts_alone(
    windows: Tensor,
) -> None:
    """Under autocast the weights' casts are remembered; one without gradients must not be."""

    def gradients(monitor: hs.HeadMonitor | None) -> list[Tensor]:
        model = pico("bloom", layers=2).train()
        with torch.autocast("cpu", torch.bfloat16):
            if monitor is not None:
                before = random.getstate(), torch.get_rng_state()
                monitor.measure(model, 0)
                assert random.getstate() == before[0]
                assert torch.equal(torch.get_rng_state(), before[1])
            model(windows, labels=windows, use_cache=False).loss.backward()
            if monitor is not None:
                monitor.measure(model, 1)
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    plain, monitored = gradients(None), gradients(hs.HeadMonitor(windows))
    assert len(plain) == len(monitored) > 20
    assert all(torch.equal(one, other) for one, other in zip(plain, monitored, strict=True))


def test_what_cannot_be_monitored_is_refused_before_the_run_starts(
    tmp_path: Path, windows: Tensor
) -> None:
    with pytest.raises(SettingsError, match=r"every: expected 1.*two documents"):
        hs.HeadMonitor(windows[:1], every=0)
    model = pico("bloom")
    model.resize_token_embeddings(3)
    run = trainer(tmp_path, model, 2)
    hs.HeadMonitor(windows).attach(run)
    with pytest.raises(hs.HeadsurgeonError, match="outside the model's vocabulary"):
        run.train()
    assert run.state.global_step == 0


def test_a_run_goes_on_when_a_measurement_on_the_way_fails(
    tmp_path: Path, windows: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tmp_path, pico("bloom", layers=2), 2)
    monitor = hs.HeadMonitor(windows, every=1).attach(run)

    def fails(*given: Any, **named: Any) -> None:
        raise ModelError("not finite")

    def breaks(*given: Any, **named: Any) -> None:
        monkeypatch.setattr("headsurgeon.monitoring.monitor.measure", fails)

    class Break(TrainerCallback):
        on_step_begin = breaks

    run.add_callback(Break())
    with pytest.warns(HeadsurgeonWarning, match=r"step [12]: heads were not measured: not finite"):
        run.train()
    assert run.state.global_step == 2
    assert monitor.series.steps == (0,)


def test_one_process_of_several_measures(
    windows: Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    for rank, measured in ((1, False), (0, True)):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        path = tmp_path / f"{rank}.jsonl"
        point = hs.HeadMonitor(windows, output=path).measure(pico("bloom"), 0)
        assert (point is not None, path.exists()) == (measured, measured)


def test_a_compiled_model_and_one_with_weights_elsewhere(windows: Tensor) -> None:
    model = pico("bloom")
    compiled = torch.compile(model)
    point = hs.HeadMonitor(windows).measure(compiled, 0)
    expected = hs.HeadMonitor(windows).measure(model, 0)
    assert point is not None
    assert expected is not None
    np.testing.assert_array_equal(point.mass, expected.mass)
    bias = model.transformer.h[0].self_attention.dense.bias
    bias.data = bias.data[:0]
    with pytest.raises(ModelError, match=r"dense\.bias is shared out among processes.*--series"):
        hs.HeadMonitor(windows).measure(model, 0)
