"""Where the time of a piece of code goes, and what its matrix products alone would take."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

KINDS = {
    "matrix products": (
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "aten::baddbmm",
        "aten::baddbmm_",
        "aten::addmv_",
    ),
    "exp2, threshold, maximum": ("aten::exp2", "aten::exp2_", "aten::threshold_", "aten::amax"),
    "GELU": ("aten::gelu", "aten::gelu_backward"),
}


def shares(run: Callable[[], Any]) -> dict[str, float]:
    """Share of one call's processor time by kind of operation, all of them on one core.

    The profiler sees the thread that started it, and no other.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            run()
    finally:
        torch.set_num_threads(threads)
    times = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(times.values())
    found = {
        kind: sum(times.get(name, 0.0) for name in names) / total for kind, names in KINDS.items()
    }
    return {**found, "everything else": 1.0 - sum(found.values())}


def product_rate(rows: int, hidden: int) -> float:
    """Floating-point operations per second of the model's largest product, alone; best of ten."""
    left, right = torch.randn(rows, hidden), torch.randn(4 * hidden, hidden)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        torch.nn.functional.linear(left, right)
        seconds.append(time.perf_counter() - start)
    return 2 * rows * hidden * 4 * hidden / min(seconds)
