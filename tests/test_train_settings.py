"""Settings, schedule and order of windows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headsurgeon.errors import SettingsError
from headsurgeon.study import Study
from headsurgeon.training import TrainSettings, train_settings, training_windows
from headsurgeon.training.schedule import (
    learning_rate,
    seed_of_step,
    total_steps,
    windows_needed,
    windows_of_step,
)
from headsurgeon.training.settings import PRESETS
from tests.char_tokenizer import char_tokenizer


def test_every_setting_is_described() -> None:
    assert all(field.description for field in TrainSettings.model_fields.values())


def test_the_paper_preset_is_the_published_protocol() -> None:
    paper = train_settings("paper")
    assert (paper.learning_rate, paper.weight_decay, paper.clip) == (5e-5, 0.0, 1.0)
    assert (paper.batch_size, paper.accumulation, paper.length) == (1, 8, 512)
    assert (paper.epochs, paper.compute, paper.gradient_checkpointing) == (15.0, "bf16", True)
    assert learning_rate(0, 40, paper) == pytest.approx(5e-5 / 10)
    assert learning_rate(99, 4000, paper) == pytest.approx(5e-5)
    assert all(train_settings(name, epochs=1.0) for name in PRESETS)


def test_the_preset_for_the_whole_model_is_the_arm_that_was_found_best() -> None:
    preset = PRESETS["recommended_whole"]
    for name, arm in (("twins-whole", "canonical_then_full"), ("twins-quick", "recommended")):
        study = Study.load(name)
        found = {**study.train, **study.arm(arm).train}
        assert preset == {name: found[name] for name in preset}
        assert (study.arm(arm).method, study.arm(arm).init) == ("then_full", "canonical")


def test_all_faults_are_reported_at_once_with_what_came() -> None:
    with pytest.raises(SettingsError) as caught:
        train_settings(learning_rate=-1.0, length=1, speed="high", epochs=1.0, compute="int4")
    message = str(caught.value)
    for part in ("learning_rate", "-1.0", "length", "speed: no such setting", "'int4'"):
        assert part in message


def test_a_budget_is_demanded_and_presets_are_known() -> None:
    with pytest.raises(SettingsError, match="max_tokens, epochs"):
        train_settings()
    with pytest.raises(SettingsError, match="known are default, paper"):
        train_settings("secret")


def test_none_leaves_the_preset_as_it_is() -> None:
    assert train_settings("paper", learning_rate=None, epochs=2.0).learning_rate == 5e-5


@pytest.mark.parametrize(
    ("budget", "steps", "needed"),
    [
        ({"max_tokens": 10_000}, 4, 32),
        ({"max_tokens": 1}, 1, 8),
        ({"epochs": 2.0}, 12, None),
        ({"epochs": 0.01}, 1, None),
        ({"epochs": 2.0, "max_tokens": 10_000}, 4, None),
    ],
)
def test_the_smaller_budget_ends_the_run(
    budget: dict[str, float], steps: int, needed: int | None
) -> None:
    settings = train_settings(batch_size=4, accumulation=2, length=256, **budget)
    assert total_steps(settings, 50) == steps
    assert windows_needed(settings) == needed


@given(steps=st.integers(1, 300), warmup=st.integers(0, 200))
def test_the_rate_rises_over_the_warm_up_and_then_falls_without_reaching_zero(
    steps: int, warmup: int
) -> None:
    settings = train_settings(epochs=1.0, learning_rate=0.5, warmup=warmup)
    rates = [learning_rate(step, steps, settings) for step in range(steps)]
    top = min(warmup, steps // 4)
    assert all(0.0 < rate <= 0.5 for rate in rates)
    assert max(rates) == pytest.approx(0.5) == rates[top]
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@given(seed=st.integers(0, 9), windows=st.integers(1, 40), batch=st.integers(1, 7))
def test_every_epoch_reads_every_window_once_whatever_the_step_asked_first(
    seed: int, windows: int, batch: int
) -> None:
    settings = train_settings(epochs=1.0, batch_size=batch, seed=seed)
    later = windows_of_step(5, settings, windows)
    read = np.concatenate([windows_of_step(step, settings, windows) for step in range(windows)])
    for epoch in read[: windows * batch].reshape(batch, windows):
        assert sorted(epoch.tolist()) == list(range(windows))
    assert np.array_equal(later, windows_of_step(5, settings, windows))


def test_seeds_give_other_orders_and_other_dropout() -> None:
    one, two = (train_settings(epochs=1.0, seed=seed) for seed in (1, 2))
    assert not np.array_equal(windows_of_step(0, one, 500), windows_of_step(0, two, 500))
    seeds = {seed_of_step(step, settings) for step in range(50) for settings in (one, two)}
    assert len(seeds) == 100


def test_settings_made_directly_list_every_fault_too() -> None:
    with pytest.raises(SettingsError, match=r"learning_rate.*\n.*batch_size") as caught:
        TrainSettings(max_tokens=10, learning_rate=-1.0, batch_size=0)
    assert len(str(caught.value).splitlines()) == 3


def test_the_seed_of_training_changes_no_window(tmp_path: Path) -> None:
    for index in range(60):
        (tmp_path / f"{index}.txt").write_text(f"text number {index} " * 30)
    corpus, tokenizer = f"text:{tmp_path}/*.txt", char_tokenizer()
    cut = {
        (seed, windows_seed): training_windows(
            corpus,
            tokenizer,
            TrainSettings(max_tokens=160, length=16, seed=seed, windows_seed=windows_seed),
        )
        for seed in (0, 1)
        for windows_seed in (0, 1)
    }
    assert torch.equal(cut[0, 0][0].tokens, cut[1, 0][0].tokens)
    assert not torch.equal(cut[0, 0][0].tokens, cut[0, 1][0].tokens)
    assert torch.equal(cut[0, 0][1].tokens, cut[1, 1][1].tokens)
