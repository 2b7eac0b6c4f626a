"""Measuring in one pass, by tiles or a kernel: the exact statistics, in memory linear in T."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from headsurgeon.arch import layout_of
from headsurgeon.attention import tiled_scores
from headsurgeon.errors import SettingsError
from headsurgeon.head_stats import HeadStats
from headsurgeon.heads import STATISTICS
from headsurgeon.measurement import measure, measured_attention
from tests.pico import PICO, pico, tokens


@pytest.fixture(params=["tiles", "kernel"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `attention="fast"` then means on the CPU: its tiles, or the kernel of other devices."""
    if request.param == "kernel":
        monkeypatch.setattr(measured_attention, "TILED_DEVICES", frozenset())
    return request.param


def largest_difference(one: HeadStats, other: HeadStats, name: str) -> float:
    return float(np.abs(one.values[name] - other.values[name]).max())


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("family", list(PICO))
@pytest.mark.parametrize("heads", [4, 6])
@pytest.mark.parametrize("length", [2, 3, 50])
def test_fast_statistics_are_the_exact_ones(family: str, heads: int, length: int) -> None:
    model, ids = pico(family, heads=heads, hidden=8 * heads), tokens(batch=3, length=length)
    exact = measure(model, ids, attention="stock")
    fast = measure(model, ids, attention="fast")
    for name in STATISTICS:
        assert largest_difference(fast, exact, name) < 1e-4, name
    np.testing.assert_allclose(fast.row_quantiles, exact.row_quantiles, atol=1e-4)
    np.testing.assert_array_equal(fast.null_mass, exact.null_mass)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("family", ["bloom", "mpt", "falcon-rw"])
def test_they_still_are_over_long_windows(family: str) -> None:
    model = pico(family, layers=1, **({"max_seq_len": 1024} if family == "mpt" else {}))
    ids = tokens(batch=1, length=1024)
    exact = measure(model, ids, attention="stock")
    fast = measure(model, ids, attention="fast")
    for name in set(STATISTICS) - {"mean_distance"}:
        assert largest_difference(fast, exact, name) < 1e-4, name
    # tokens, up to a thousand of them
    assert largest_difference(fast, exact, "mean_distance") < 1e-3


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("family", ["bloom", "mpt", "falcon-new"])
def test_in_bf16_fast_statistics_are_at_least_as_near_to_fp32_as_stock_ones(family: str) -> None:
    errors = {"stock": 0.0, "fast": 0.0}
    for seed in range(3):
        model, ids = pico(family, seed=seed, hidden=64), tokens(length=300, seed=seed)
        low = copy.deepcopy(model).bfloat16()
        exact = measure(model, ids, attention="stock")
        for attention in errors:
            found = measure(low, ids, attention=attention)
            for name in ("first_token_mass", "entropy", "previous_token_mass", "local_mass"):
                error = np.abs(found.mean(name) - exact.mean(name)).mean()
                errors[attention] += error / np.abs(exact.mean(name)).mean()
    assert errors["fast"] <= errors["stock"]


@pytest.mark.parametrize("attention", ["fast", "stock"])
def test_statistics_are_fp32_where_the_model_runs_under_autocast(
    attention: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast: list[bool] = []

    def noting(rows: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            cast.append(torch.is_autocast_enabled("cpu"))
            return rows(*arguments, **named)

        return called

    monkeypatch.setattr(
        measured_attention, "blocked_statistics", noting(measured_attention.blocked_statistics)
    )
    monkeypatch.setitem(
        measured_attention.ONE_PASS, path, noting(measured_attention.ONE_PASS[path])
    )
    with torch.autocast("cpu", torch.bfloat16):
        measure(pico("bloom", layers=2), tokens(), attention=attention)
    assert cast == [False, False]


@pytest.mark.parametrize("attention", ["auto", "fast", "stock"])
def test_results_say_which_attention_was_used(attention: str, path: str) -> None:
    found = measure(pico("mpt"), tokens(), attention=attention).provenance.attention
    assert found == ("blocks" if attention == "stock" else path)


def test_without_a_trusted_kernel_tiles_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_attention, "TILED_DEVICES", frozenset())
    monkeypatch.setattr(measured_attention, "kernel_available", lambda device: False)
    assert measure(pico("bloom"), tokens()).provenance.attention == "tiles"


def test_an_unknown_choice_lists_the_known_ones() -> None:
    model = pico("bloom")
    with pytest.raises(SettingsError, match="auto, stock, fast"):
        measured_attention.choose_measured(model, layout_of(model), "flash", 8)


@pytest.mark.usefixtures("path")
def test_no_map_is_ever_held(monkeypatch: pytest.MonkeyPatch) -> None:
    # every tensor that an operator returns is seen; a map would have rows·rows numbers per head
    rows = 1024
    # a tile has the same size whatever the window; here it must be smaller than a map
    monkeypatch.setattr(tiled_scores, "NUMBERS", 2**16)
    largest: list[int] = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            made = result if isinstance(result, tuple) else (result,)
            sizes = [t.untyped_storage().nbytes() // t.element_size() for t in made if _held(t)]
            largest[0] = max([largest[0], *sizes])
            return result

    for family in PICO:
        longer = {"max_seq_len": rows} if family.startswith("mpt") else {}
        model = pico(family, layers=1, **longer)
        measure(model, tokens(batch=1, length=8))
        with Watch():
            measure(model, tokens(batch=1, length=rows), attention="fast")
        assert largest[0] < rows * rows, family


def _held(made: object) -> bool:
    return isinstance(made, torch.Tensor) and made.numel() > 0
