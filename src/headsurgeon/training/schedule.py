"""What happens at which step: learning rate, order of windows, seed. Pure functions, no state.

That everything is a function of the seed and the step is what makes a resumed run bit-identical.
"""

import math
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Int

from headsurgeon.errors import SettingsError
from headsurgeon.training.moments import step_of
from headsurgeon.training.settings import TrainSettings


def total_steps(settings: TrainSettings, windows: int) -> int:
    """Optimiser steps within the budget, at least 1; `windows` is what an epoch has."""
    limits = []
    if settings.max_tokens is not None:
        limits.append(settings.max_tokens // settings.tokens_per_step)
    if settings.epochs is not None:
        limits.append(math.floor(settings.epochs * windows / settings.windows_per_step))
    return max(1, min(limits))


def in_steps(settings: TrainSettings, windows: int) -> TrainSettings:
    """The same settings with the passes at which a run stops and whose slices it keeps as steps.

    Raises:
        SettingsError: a pass to stop at that ends before the first step.
    """
    changes: dict[str, int] = {}
    for name in ("stop", "keep"):
        moment = getattr(settings, name)
        if isinstance(moment, str) and moment not in ("best", "last"):
            changes[name] = step_of(moment, windows, settings.windows_per_step)
    if changes.get("stop") == 0:
        raise SettingsError(f"stop: {settings.stop} ends before the first step")
    return settings.model_copy(update=changes)


def last_step(settings: TrainSettings, windows: int) -> int:
    """The step a run ends at: that of the budget, or an earlier one that is named.

    Raises:
        SettingsError: the step to stop at or to keep, or one to evaluate at, lies beyond the end.
    """
    settings, steps = in_steps(settings, windows), total_steps(settings, windows)
    end = settings.stop if isinstance(settings.stop, int) else steps
    if end > steps:
        raise SettingsError(f"stop: step {end} lies beyond the budget, which ends at step {steps}")
    if isinstance(settings.keep, int) and settings.keep > end:
        raise SettingsError(
            f"keep: step {settings.keep} lies beyond the end of the run, step {end}"
        )
    named_steps("evaluate_at", settings, windows, end)
    return end


def named_steps(
    name: Literal["snapshots", "evaluate_at"], settings: TrainSettings, windows: int, end: int
) -> tuple[int, ...]:
    """The steps that a setting lists, ascending.

    Args:
        name: of the setting.
        settings: the settings.
        windows: of the training text.
        end: last step of the run.

    Raises:
        SettingsError: one lies beyond the end.
    """
    moments = getattr(settings, name)
    named = {step_of(moment, windows, settings.windows_per_step): moment for moment in moments}
    steps = tuple(sorted(named))
    if steps and steps[-1] > end:
        raise SettingsError(
            f"{name}: {named[steps[-1]]} is step {steps[-1]}, but the run ends at step {end}; "
            "name steps up to that, or give it a larger budget"
        )
    return steps


def windows_needed(settings: TrainSettings) -> int | None:
    """How many windows a token budget can use; None for all there are."""
    if settings.max_tokens is None:
        return None
    steps = max(1, settings.max_tokens // settings.tokens_per_step)
    return steps * settings.windows_per_step if settings.epochs is None else None


def budget_left(settings: TrainSettings, read: int, beside: int = 0) -> TrainSettings:
    """The settings with the steps that a budget of tokens allows when other text counts as well.

    Args:
        read: tokens that were read before training, such as by a start.
        beside: tokens that each step reads besides its own, such as for the anchor.

    Raises:
        SettingsError: nothing is left.
    """
    if settings.max_tokens is None or not (read or beside):
        return settings
    if read >= settings.max_tokens:
        raise SettingsError(
            f"max_tokens: the start reads {read} tokens, and the budget is {settings.max_tokens}; "
            "raise it, or give the start fewer calibration windows"
        )
    per_step = settings.tokens_per_step
    steps = max(1, (settings.max_tokens - read) // (per_step + beside))
    return settings.model_copy(update={"max_tokens": steps * per_step})


def learning_rate(step: int, steps: int, settings: TrainSettings) -> float:
    """Linear warm-up over min(warmup, steps / 4) steps, then a cosine that ends at 0.

    Args:
        step: zero-based. The first step already has a rate above 0, unless `first_rate` is zero;
            the last one has, too.
        steps: of the whole run.
    """
    warmup = min(settings.warmup, steps // 4)
    if step < warmup:
        return settings.learning_rate * (step + (settings.first_rate == "above_zero")) / warmup
    progress = (step - warmup) / (steps - warmup)
    return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def windows_of_step(step: int, settings: TrainSettings, windows: int) -> Int[np.ndarray, " window"]:
    """Which windows a step reads: every epoch is a new permutation of all of them."""
    first = step * settings.windows_per_step
    return windows_in_order(first, settings.windows_per_step, settings.seed, windows)


def windows_in_order(first: int, count: int, seed: int, windows: int) -> Int[np.ndarray, " window"]:
    """The windows from place `first` on in an endless row of permutations of all of them."""
    positions = range(first, first + count)
    return np.array(
        [_order(seed, index // windows, windows)[index % windows] for index in positions]
    )


def seed_of_step(step: int, settings: TrainSettings) -> int:
    """Seed of dropout in one step."""
    return int(np.random.SeedSequence([settings.seed, step]).generate_state(1, np.uint32)[0])


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, windows: int) -> Int[np.ndarray, " window"]:
    return np.random.default_rng([seed, epoch]).permutation(windows)
