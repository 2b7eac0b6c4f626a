"""Writes docs/benchmarks.md and its plot from the results of every processor, side by side."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import wheel
from machine import RESULTS
from shares import KINDS
from targets import FORWARD, TARGETS, Figure, Results, Target, row, spread

from headsurgeon import files

DOCS = Path(__file__).parents[1] / "docs"
PLOT = DOCS / "images" / "benchmarks.png"
# the results of each processor, by its short name
Everywhere = dict[str, Results]
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


def named(name: str) -> str:
    """A processor's name, short enough for a column."""
    words = re.sub(r"\(.*?\)|Processor", "", name.partition(",")[0]).split()
    return " ".join(words)


def target_rows(everywhere: Everywhere) -> list[list[str]]:
    """Every target: wanted, and on each processor what was measured and whether it is met."""

    def on(results: Results, target: Target) -> str:
        try:
            figure = text_of(target.figure(results), target.unit)
            return figure if target.met(results) else f"**{figure}**"
        except (StopIteration, KeyError):
            return "not measured"

    return [
        [
            target.claim,
            f"{'≥' if target.at_least else '≤'} {target.limit:g}{target.unit}",
            *(on(results, target) for results in everywhere.values()),
        ]
        for target in TARGETS
    ]


def missed_rows(everywhere: Everywhere) -> list[list[str]]:
    """The targets that are missed, where, by how much, and what stands in the way."""
    rows = []
    for processor, results in everywhere.items():
        for target in TARGETS:
            try:
                if target.met(results):
                    continue
                figure = text_of(target.figure(results), target.unit)
                why = target.why(results) if target.why else "–"
            except (StopIteration, KeyError):
                continue
            wanted = f"{target.limit:g}{target.unit}"
            rows.append([processor, target.claim, f"{figure}, wanted {wanted}", why])
    return rows


def measuring_rows(results: Results) -> list[list[str]]:
    """Ratios and seconds of every part and length."""
    rows = []
    for found in rows_of(results, "measuring"):
        plain = found.get("ours_over_plain")
        seconds = found["seconds"]
        rows.append(
            [
                found["part"],
                str(found["length"]),
                str(found["layers"]),
                text_of(spread(found["maps_over_ours"])),
                text_of(spread(plain)) if plain else "–",
                f"{found['at_most']:.2f}×" if "at_most" in found else "–",
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
    for found in rows_of(results, "training"):
        for arm, against in found["against"].items():
            rows.append(
                [
                    f"{found['length']}, {found['layers']} layers, "
                    f"{'with' if found['head'] else 'without'} head"
                    f"{', busy cores' if found['busy'] else ''}",
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
    measured = [(f"measuring, {found['part']}", found) for found in rows_of(results, "measuring")]
    trained = [
        (f"training, {'with' if found['head'] else 'without'} head", found)
        for found in rows_of(results, "training")
    ]
    return [
        [
            what,
            str(found["length"]),
            *(f"{100 * share:.0f} %" for share in found["shares"].values()),
            f"{100 * found['floor_seconds'] / found['seconds']['ours']:.0f} %",
        ]
        for what, found in (*measured, *trained)
        if not found.get("busy") and "busy" not in found.get("part", "")
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
        for found in rows_of(results, "memory")
    ]


def peer_rows(results: Results) -> list[list[str]]:
    """Every other library: its time over ours, and memory beside it."""
    rows = []
    for found in rows_of(results, "peers"):
        marks = {key: found[key] for key in ("kind", "shape", "length")}
        kept = [
            other for other in rows_of(results, "peers memory") if marks.items() <= other.items()
        ]
        above = kept[0]["above"] if kept else {}
        for name, seconds in found["seconds"].items():
            over = text_of(spread(found["over_ours"][name])) if name != "ours" else "1"
            memory = f"{above[name] / 2**20:,.0f}" if name in above else "–"
            shape = f"{found['shape']}, {found['layers']} layers, T = {found['length']}"
            what = f"{found['kind']}, {shape}{', beside other work' if found['beside'] else ''}"
            rows.append([what, name, over, f"{seconds:.2f}", memory])
    return rows


def growth_rows(results: Results) -> list[list[str]]:
    """Every curve with its exponent."""
    return [
        [
            found["curve"],
            ", ".join(f"{point}: {seconds:.2f}" for point, seconds in found["seconds"].items()),
            f"{found['exponent']:.2f}",
            f"{found['last_exponent']:.2f}",
        ]
        for found in rows_of(results, "growth")
    ]


def long_rows(results: Results) -> list[list[str]]:
    """Long windows: memory and time per token."""
    return [
        [
            f"{found['length']:,}",
            f"{found['above'] / 2**20:,.0f}",
            f"{found['above'] / found['length'] / 1024:.1f}",
            f"{1e3 * found['seconds'] / found['length']:.2f}",
            f"{found['flop'] / found['length'] / 1e6:,.0f}",
            f"{found['flop'] / found['seconds'] / 1e9:.0f}",
        ]
        for found in rows_of(results, "long windows")
    ]


def large_rows(results: Results) -> list[list[str]]:
    """What the largest models would need."""
    giga = 1e9
    return [
        [
            found["model"],
            f"{found['weights'] / giga:,.0f}",
            f"{found['layer_weights'] / giga:.1f}",
            f"{found['hidden_states'] / giga:.1f}",
            f"{found['flop'] / 1e15:.0f}",
            f"{found['heads']:,}",
            f"{found['slices'] / giga:.1f}",
            f"{found['training'] / giga:,.0f}",
        ]
        for found in rows_of(results, "large")
    ]


def rows_of(results: Results, part: str) -> list[dict[str, Any]]:
    """The rows of a part, none where it has not been measured."""
    return list(results.get(part, {}).get("rows", []))


def together(
    everywhere: Everywhere, columns: list[str], rows: Callable[[Results], list[list[str]]]
) -> str:
    """One table of all processors, or a sentence where nobody has measured it."""
    lines = [
        [processor, *line] for processor, results in everywhere.items() for line in rows(results)
    ]
    return table(["processor", *columns], lines) if lines else "Not measured yet."


def plot(everywhere: Everywhere) -> None:
    """Cost against T: seconds per layer of a measured forward pass, and peak memory.

    Of the processor that has been measured at most lengths.
    """
    results = max(everywhere.values(), key=lambda results: len(rows_of(results, "measuring")))
    figure, (time, memory) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    colours = {"maps": "#b3462d", "ours": "#1f6f8b", "plain": "#8a8a8a"}
    labels = {
        "maps": "output_attentions=True",
        "ours": "headsurgeon",
        "plain": "forward pass without statistics",
    }
    rows = [found for found in rows_of(results, "measuring") if found["part"] == FORWARD]
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
    everywhere: Everywhere = {}
    for path in sorted(RESULTS.glob("*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        everywhere[named(next(iter(results.values()))["machine"]["processor"])] = results
    plot(everywhere)
    template = (Path(__file__).parent / "benchmarks.md.template").read_text(encoding="utf-8")
    text = template.format(
        machines="\n".join(_machine(name, results) for name, results in everywhere.items()),
        targets=table(["what", "wanted", *everywhere], target_rows(everywhere)),
        missed=table(["processor", "what", "measured", "why"], missed_rows(everywhere)),
        measuring=together(
            everywhere,
            [
                "part",
                "T",
                "layers",
                "maps / ours",
                "ours / plain",
                "maps / products alone",
                "s: maps / ours / plain",
            ],
            measuring_rows,
        ),
        peers=together(
            everywhere,
            ["what", "arm", "time / ours", "s", "MB above the weights"],
            peer_rows,
        ),
        training=together(
            everywhere,
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
            training_rows,
        ),
        shares=together(
            everywhere,
            ["what", "T", *KINDS, "everything else", "products alone, at the speed of a large one"],
            share_rows,
        ),
        memory=together(
            everywhere, ["T", "layers", "head", "arm", "MB above the weights"], memory_rows
        ),
        long=together(
            everywhere,
            [
                "T",
                "MB above the weights",
                "kB per token",
                "ms per token",
                "counted MFLOP per token",
                "GFLOP/s",
            ],
            long_rows,
        ),
        growth=together(
            everywhere,
            ["what grows", "seconds of one core", "exponent", "between the last two"],
            growth_rows,
        ),
        wheel=next(
            (wheel.section(each["wheel"]) for each in everywhere.values() if "wheel" in each),
            "Not measured yet.",
        ),
        large=table(
            [
                "model",
                "weights, bf16, GB",
                "one layer, GB",
                "hidden states, fp32, GB",
                "PFLOP of a diagnosis",
                "heads of pass 1",
                "slice parameters, 10⁹",
                "pass 1 above the weights, GB",
            ],
            next((rows for rows in map(large_rows, everywhere.values()) if rows), []),
        ),
    )
    files.write_text(DOCS / "benchmarks.md", text)


def _machine(name: str, results: Results) -> str:
    """A line on a processor: what it is, with what, and when each part was measured."""
    newest = max(results.values(), key=lambda part: str(part["date"]))
    facts = ", ".join(f"{key} {value}" for key, value in newest["machine"].items())
    dates = ", ".join(f"{part} {found['date'][:10]}" for part, found in results.items())
    return f"- **{name}**: {facts}; measured: {dates}."


if __name__ == "__main__":
    main()
