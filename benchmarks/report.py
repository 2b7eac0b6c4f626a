"""Writes docs/benchmarks.md and its plot from benchmarks/results/*.json."""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import wheel
from machine import RESULTS
from targets import FORWARD, TARGETS, Figure, Results, Target, row, spread

from headsurgeon import files

DOCS = Path(__file__).parents[1] / "docs"
PLOT = DOCS / "images" / "benchmarks.png"
NAMES = ("measuring", "training", "memory", "sizes", "startup", "wheel")
ARMS = {
    "ours": "ours",
    "ours-checkpointed": "ours, gradient checkpointing",
    "paper": "the paper's protocol",
    "lora": "LoRA",
    "full": "full fine-tuning",
}


def text_of(figure: Figure, unit: str = "×") -> str:
    """A figure with its spread, or alone where it has none."""
    middle, low, high = figure
    digits = 2 if middle < 100 else 0
    span = "" if low == high else f" ({low:.{digits}f}–{high:.{digits}f})"
    return f"{middle:.{digits}f}{unit}{span}"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def target_rows(results: Results) -> list[list[str]]:
    """Every target: wanted, measured, met."""

    def line(target: Target) -> list[str]:
        wanted = f"{'≥' if target.at_least else '≤'} {target.limit:g}{target.unit}"
        try:
            met = "yes" if target.met(results) else "**no**"
        except StopIteration:
            return [target.claim, wanted, "not measured", "–"]
        return [target.claim, wanted, text_of(target.figure(results), target.unit), met]

    return [line(target) for target in TARGETS]


def measuring_rows(results: Results) -> list[list[str]]:
    """Ratios and seconds of every part and length."""
    rows = []
    for found in results["measuring"]["rows"]:
        plain = found.get("ours_over_plain")
        seconds = found["seconds"]
        rows.append(
            [
                found["part"],
                str(found["length"]),
                str(found["layers"]),
                text_of(spread(found["maps_over_ours"])),
                text_of(spread(plain)) if plain else "–",
                f"{found['at_most']:.2f}×",
                " / ".join(
                    f"{seconds[arm]:.2f}" if arm in seconds else "–"
                    for arm in ("maps", "ours", "plain")
                ),
            ]
        )
    return rows


def training_rows(results: Results) -> list[list[str]]:
    """Speed-ups, what FLOP counting predicts, and the share of it that is reached."""
    rows = []
    for found in results["training"]["rows"]:
        for arm, against in found["against"].items():
            rows.append(
                [
                    f"{found['length']}, {found['layers']} layers, "
                    f"{'with' if found['head'] else 'without'} head",
                    ARMS[arm],
                    text_of(spread(against["speedup"])),
                    f"{against['predicted']:.2f}×",
                    f"{against['achieved']:.2f}",
                    f"{against['at_most']:.2f}×",
                    f"{found['tflop'][arm]:.2f} / {found['tflop']['ours']:.2f}",
                    f"{found['gflop_per_second'][arm]:.0f} / "
                    f"{found['gflop_per_second']['ours']:.0f}",
                    " / ".join(f"{found['trainable'][name] / 1e6:.1f}M" for name in (arm, "ours")),
                ]
            )
    return rows


def share_rows(results: Results) -> list[list[str]]:
    """Where the time of ours goes."""
    measured = [(f"measuring, {found['part']}", found) for found in results["measuring"]["rows"]]
    trained = [
        (f"training, {'with' if found['head'] else 'without'} head", found)
        for found in results["training"]["rows"]
    ]
    return [
        [
            what,
            str(found["length"]),
            *(f"{100 * share:.0f} %" for share in found["shares"].values()),
            f"{100 * found['floor_seconds'] / found['seconds']['ours']:.0f} %",
        ]
        for what, found in (*measured, *trained)
    ]


def memory_rows(results: Results) -> list[list[str]]:
    """Peak memory above the weights."""
    names = {"measure-ours": "measuring, ours", "measure-maps": "measuring, maps kept"}
    return [
        [
            str(found["length"]),
            str(found["layers"]),
            "yes" if found["head"] else "no",
            {**ARMS, **names}[found["arm"]],
            f"{found['above'] / 2**20:,.0f}",
        ]
        for found in results["memory"]["rows"]
    ]


def plot(results: Results) -> None:
    """Cost against T: seconds per layer of a measured forward pass, and peak memory."""
    figure, (time, memory) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    colours = {"maps": "#b3462d", "ours": "#1f6f8b", "plain": "#8a8a8a"}
    labels = {
        "maps": "output_attentions=True",
        "ours": "headsurgeon",
        "plain": "forward pass without statistics",
    }
    rows = [found for found in results["measuring"]["rows"] if found["part"] == FORWARD]
    lengths = [found["length"] for found in rows]
    for arm, label in labels.items():
        seconds = [found["seconds"][arm] / found["layers"] for found in rows]
        time.plot(lengths, seconds, "o-", color=colours[arm], label=label)
    time.set(ylabel="seconds per layer", title="measuring every head")
    for arm in ("maps", "ours"):
        above = [
            row(results, "memory", arm=f"measure-{arm}", length=length, head=False)["above"] / 2**20
            for length in lengths
        ]
        memory.plot(lengths, above, "o-", color=colours[arm], label=labels[arm])
    memory.set(ylabel="MB above the weights", title="peak memory")
    for axes in (time, memory):
        axes.set(xscale="log", yscale="log", xlabel="window length T, tokens")
        axes.set_xticks(lengths, [str(length) for length in lengths])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(PLOT) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def main() -> None:
    results: dict[str, dict[str, Any]] = {
        name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in NAMES
    }
    plot(results)
    machine = results["training"]["machine"]
    template = (Path(__file__).parent / "benchmarks.md.template").read_text(encoding="utf-8")
    text = template.format(
        machine=", ".join(f"{key} {value}" for key, value in machine.items()),
        date=results["training"]["date"],
        targets=table(["what", "wanted", "measured", "met"], target_rows(results)),
        measuring=table(
            [
                "part",
                "T",
                "layers",
                "maps / ours",
                "ours / plain",
                "maps / products alone",
                "s: maps / ours / plain",
            ],
            measuring_rows(results),
        ),
        training=table(
            [
                "T and shape",
                "against",
                "speed-up of ours",
                "FLOPs predict",
                "achieved / predicted",
                "theirs / our products alone",
                "TFLOP per step, theirs / ours",
                "GFLOP/s, theirs / ours",
                "trainable, theirs / ours",
            ],
            training_rows(results),
        ),
        shares=table(
            [
                "what",
                "T",
                *results["training"]["rows"][0]["shares"],
                "products alone, at the speed of a large one",
            ],
            share_rows(results),
        ),
        memory=table(["T", "layers", "head", "arm", "MB above the weights"], memory_rows(results)),
        wheel=wheel.section(results["wheel"]),
    )
    files.write_text(DOCS / "benchmarks.md", text)


if __name__ == "__main__":
    main()
