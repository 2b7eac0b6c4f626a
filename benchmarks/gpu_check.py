"""What somebody with a GPU can find out in ten minutes; prints a block to paste into an issue.

    python benchmarks/gpu_check.py [--device cuda:1] [--layers 8] [--length 2048]

Compares the fast paths with the exact ones, runs one operation and resumes it, holds the estimate
of memory against what was allocated, bf16 against fp32, and times ours against
`output_attentions=True` and against the stock forward. Without a GPU it says so and does nothing;
`--device cpu` rehearses it.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from subject import SMALL_VOCABULARY, bloom, plan
from timing import ratio
from torch import Tensor

import headsurgeon as hs
from headsurgeon.attention.kernel_statistics import kernel_available
from headsurgeon.cli.versions import versions
from headsurgeon.data import Windows, as_windows
from headsurgeon.errors import Interrupted
from headsurgeon.training.memory import memory_plan

NOT_RUN = (
    "The project itself has not run this on a GPU yet: what you see here, good or bad, is news. "
    "Please open an issue with this block."
)
# mean absolute differences of masses and losses that rounding explains
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class Setting:
    """Where and how large."""

    device: torch.device
    layers: int
    length: int
    rounds: int


@dataclass(frozen=True)
class Found:
    """One line of the block; `good` is None where a figure alone is reported."""

    what: str
    figure: str
    good: bool | None = None

    def __str__(self) -> str:
        mark = {True: "ok  ", False: "BAD ", None: "    "}[self.good]
        return f"{mark}{self.what}: {self.figure}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="cuda, cuda:1, mps, or cpu to rehearse")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device = chosen(options.device)
    if device is None:
        sys.exit(
            "gpu-check: no GPU that PyTorch can use is here (torch "
            f"{torch.__version__}); nothing was checked. --device cpu rehearses it."
        )
    found = check(Setting(device, options.layers, options.length, options.rounds))
    print(block(device, found))
    sys.exit(any(each.good is False for each in found))


def chosen(name: str) -> torch.device | None:
    """The device of that name; of `auto` a GPU, or None where there is none."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps") if torch.backends.mps.is_available() else None


def check(setting: Setting) -> list[Found]:
    """Every part, in order; one that fails is reported and the others go on."""
    torch.manual_seed(0)
    parts: dict[str, Callable[[Setting], list[Found]]] = {
        "kernels": kernels,
        "operation and resume": operation_and_resume,
        "memory": memory,
        "bf16": half_precision,
        "speed": speed,
    }
    found = []
    for name, part in parts.items():
        try:
            found += part(setting)
        except Exception as error:
            found.append(Found(name, f"failed: {type(error).__name__}: {error}", False))
    return found


def block(device: torch.device, found: list[Found]) -> str:
    """What is pasted into an issue."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    lines = [NOT_RUN, "", "```", versions(), f"device {device} {name}", *map(str, found), "```"]
    return "\n".join(lines)


def texts(setting: Setting, count: int, length: int) -> Windows:
    """Windows of random tokens."""
    return as_windows(torch.randint(10, SMALL_VOCABULARY, (count, length)))


def kernels(setting: Setting) -> list[Found]:
    """Statistics by the fast path and by maps, and the losses of both forwards."""
    model = bloom(2, head=False).to(setting.device)
    windows = texts(setting, 2, min(512, setting.length))
    measured = {
        attention: hs.measure(model, windows, attention=attention)
        for attention in ("fast", "stock")
    }
    found = [
        Found("fused kernel with log-sum-exp", str(kernel_available(setting.device))),
        Found("attention that ran", measured["fast"].provenance.attention),
    ]
    for name in ("first_token_mass", "entropy", "mean_distance"):
        fast, stock = (measured[attention].mean(name) for attention in ("fast", "stock"))
        apart = float(abs(fast - stock).max() / max(1.0, abs(stock).max()))
        good = apart < TOLERANCE[torch.float32]
        found.append(Found(f"{name}, fast against maps", f"{apart:.1e} apart", good))
    losses = [hs.evaluate(model, windows, attention=which).nll for which in ("fast", "stock")]
    apart = abs(losses[0] - losses[1])
    return [*found, Found("loss, fast against stock", f"{apart:.1e} nats apart", apart < 1e-4)]


def operation_and_resume(setting: Setting) -> list[Found]:
    """One run, and the same run stopped half-way and resumed: do they end alike?"""
    train, dev = texts(setting, 32, 128), texts(setting, 4, 128)
    settings = hs.TrainSettings(
        max_tokens=8 * 4 * 128, batch_size=4, length=128, checkpoint_every=2, evaluate_every=4
    )

    def run(folder: Path, stop_after: int | None = None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = bloom(2, head=False).to(setting.device)
        patient = hs.operate(model, plan(2), seed=0)

        def halt(event: object) -> None:
            if stop_after is not None and getattr(event, "step", 0) >= stop_after:
                raise Interrupted("half-way")

        try:
            hs.train(patient, train, dev, output=folder, settings=settings, on_step=halt)
        except Interrupted:
            return run(folder)
        return {name: value.detach().cpu() for name, value in patient.named_slices().items()}

    with tempfile.TemporaryDirectory() as temporary:
        straight = run(Path(temporary) / "straight")
        resumed = run(Path(temporary) / "resumed", 4)
    apart = max(float((straight[name] - resumed[name]).abs().max()) for name in straight)
    largest = max(float(value.abs().max()) for value in straight.values())
    good = apart <= (0.0 if setting.device.type == "cpu" else 1e-3 * largest)
    return [Found("a resumed run against an uninterrupted one", f"{apart:.1e} apart", good)]


def memory(setting: Setting) -> list[Found]:
    """The estimate of a training step against the highest that was allocated."""
    model = bloom(setting.layers, head=False).to(setting.device)
    patient = hs.operate(model, plan(setting.layers), seed=0)
    settings = hs.TrainSettings(
        max_tokens=4 * setting.length, batch_size=1, length=setting.length, statistics_windows=1
    )
    estimate = memory_plan(patient, settings).peak
    if setting.device.type != "cuda":
        return [Found("memory", f"estimated {estimate / 1e6:.0f} MB; measured on CUDA alone")]
    torch.cuda.reset_peak_memory_stats(setting.device)
    weights = torch.cuda.memory_allocated(setting.device) - sum(s.nbytes for s in patient.slices())
    with tempfile.TemporaryDirectory() as temporary:
        train, dev = texts(setting, 4, setting.length), texts(setting, 1, setting.length)
        hs.train(patient, train, dev, output=Path(temporary) / "run", settings=settings)
    measured = torch.cuda.max_memory_allocated(setting.device) - weights
    share = estimate / measured
    return [
        Found(
            "memory above the weights, estimated / allocated",
            f"{estimate / 1e6:.0f} / {measured / 1e6:.0f} MB = {share:.2f}",
            0.7 <= share <= 1.4,
        )
    ]


def half_precision(setting: Setting) -> list[Found]:
    """Masses and loss in bf16 against fp32."""
    model = bloom(2, head=False).to(setting.device)
    windows = texts(setting, 2, min(512, setting.length))
    exact = hs.measure(model, windows)
    loss = hs.evaluate(model, windows).nll
    model = model.to(torch.bfloat16)
    rounded = hs.measure(model, windows, attention="fast")
    apart = float(abs(exact.first_token_mass - rounded.first_token_mass).max())
    change = abs(hs.evaluate(model, windows, attention="fast").nll - loss)
    limit = TOLERANCE[torch.bfloat16]
    return [
        Found("first_token_mass, bf16 against fp32", f"{apart:.1e} apart", apart < limit),
        Found("loss, bf16 against fp32", f"{change:.1e} nats apart", change < limit),
    ]


def speed(setting: Setting) -> list[Found]:
    """The ratios of docs/benchmarks.md, on this device."""
    model = bloom(setting.layers, head=False).to(setting.device)
    batch = texts(setting, 1, setting.length).tokens.to(setting.device)

    def maps() -> None:
        for found in model.base_model(batch, output_attentions=True, use_cache=False).attentions:
            _ = found[..., 0].mean(), torch.special.entr(found).sum(-1).mean()

    def stock() -> None:
        model.base_model(batch, use_cache=False)

    with torch.no_grad():
        ours = timed(partial(hs.measure, model, batch.cpu()), setting)
        with_maps, plain = timed(maps, setting), timed(stock, setting)
    return [
        Found(f"{name} / ours, T = {setting.length}", _spread(ratio(theirs, ours)))
        for name, theirs in (("output_attentions=True", with_maps), ("stock forward", plain))
    ]


def timed(call: Callable[[], object], setting: Setting) -> list[float]:
    """Seconds of each round, after one that is not counted, with the device waited for."""
    seconds = []
    for _ in range(setting.rounds + 1):
        synchronise(setting.device)
        start = time.perf_counter()
        call()
        synchronise(setting.device)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def synchronise(device: torch.device) -> None:
    """Waits until a device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _spread(found: dict[str, float]) -> str:
    return f"{found['median']:.2f}× ({found['low']:.2f}–{found['high']:.2f})"


if __name__ == "__main__":
    main()
