"""Timing several arms in turn, so that whatever else the machine does falls on all alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def alternate(arms: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every arm in every round: A B C A B C …, after one unmeasured call of each."""
    for arm in arms.values():
        arm()
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            start = time.perf_counter()
            arm()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(first: list[float], second: list[float]) -> dict[str, Any]:
    """first / second of each round: median, smallest, largest."""
    ratios = [one / other for one, other in zip(first, second, strict=True)]
    return {
        "median": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "rounds": len(ratios),
    }


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Median seconds of each arm, for orientation; only the ratios compare."""
    return {name: statistics.median(values) for name, values in seconds.items()}
