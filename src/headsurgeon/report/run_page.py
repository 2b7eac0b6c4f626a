"""The page of a run: what it operated on, how its heads and its losses moved, and what it cost."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from headsurgeon.evaluation.redistribution import ZONES, Redistribution
from headsurgeon.evaluation.sweep import Sweep
from headsurgeon.models.loaded_with import as_options
from headsurgeon.models.planted import is_planted
from headsurgeon.passes.result import PASSES
from headsurgeon.planning.plan import Plan
from headsurgeon.report import charts
from headsurgeon.report import dynamics_tables as tables
from headsurgeon.report.charts import Level
from headsurgeon.report.data import Chart, Curve, KeyFigure, Page, Section, Table
from headsurgeon.report.run_heads import heads_of_run
from headsurgeon.report.study_tables import planned
from headsurgeon.report.wording import NOT_PLANTED, PLANTED, estimated
from headsurgeon.training.cost import COST, Cost
from headsurgeon.training.recorded import redistribution_if_measured, sweep
from headsurgeon.training.repeating import operate_options
from headsurgeon.training.run_file import RunFile, read_run_file

_COLUMNS = 6


def run_page(folder: Path, name: str = "") -> Page:
    """The page of a run, finished or not.

    Args:
        folder: what `operate` wrote, or a pass or a cell.
        name: what the run is called; by default as its folder.

    Raises:
        InputError: no run lies there, or it has not been evaluated yet.
        OutputError: one of its files was altered.
    """
    name = name or folder.resolve().name
    run, losses = read_run_file(folder), sweep(folder)
    moved = redistribution_if_measured(folder)
    plan = Plan.from_yaml(run.plan)
    heads = heads_of_run(folder, name)
    return Page(
        title=f"{name}: {run.model}",
        lead=tuple(_found(run, losses, moved, plan)),
        notice=PLANTED if is_planted(run.model) else NOT_PLANTED,
        figures=_figures(folder, run, losses, plan),
        heads=() if heads is None else (heads,),
        sections=(
            Section("Loss", charts=_losses(run, losses), tables=(tables.sweep_table([losses]),)),
            *([] if moved is None else _of_heads(run, moved, plan)),
            Section("The plan", tables=(planned(plan),), folded=True),
            Section("Training settings", tables=(_settings(run),), folded=True),
        ),
        facts=facts_of(run),
        # what a later pass finds is the model as the passes before left it
        command="" if (folder.resolve().parent / PASSES).is_file() else command_of(run),
    )


def facts_of(run: RunFile) -> dict[str, str]:
    """Versions, hashes and texts of a run."""
    identity = run.identity
    train, dev = identity["train"], identity["dev"]
    return {
        **(run.environment[-1] if run.environment else {}),
        "weights (SHA-256)": _shown(identity.get("fingerprint")),
        "training text": f"{train['corpus']}, {train['split']} split, {train['windows']} windows",
        "training tokens (SHA-256)": str(train.get("tokens", "")),
        "dev text": f"{dev['corpus']}, {dev['split']} split, {dev['windows']} windows",
        "start": f"{_shown(identity.get('init'))}, {_shown(identity.get('output_start'))}, seed "
        f"{_shown(identity.get('init_seed'))}",
        "precision": _shown(identity.get("dtype")),
        "attention": _shown(identity.get("attention")),
        "every figure": "run.json and log.jsonl",
    }


def command_of(run: RunFile) -> str:
    """What repeats the run, with every setting; the plan stands in `run.json`.

    Empty where no command does the same.
    """
    options = operate_options(run.identity, run.identity["settings"])
    return "" if options is None else operate_command(run, ("--plan plan.yaml", *options))


def operate_command(run: RunFile, options: Sequence[str]) -> str:
    """`headsurgeon operate` on the model of a run, with options that are quoted already."""
    loading = () if run.loaded_with is None else as_options(run.loaded_with.model_dump())
    words = ["headsurgeon operate", quote(run.model), *map(quote, loading), "--output DIR"]
    return " ".join([*words, *options])


def tokens_after(run: RunFile, steps: Sequence[int]) -> tuple[int, ...]:
    """Tokens that a run had read after each of these steps."""
    settings = run.identity["settings"]
    per_step = settings["batch_size"] * settings["accumulation"] * settings["length"]
    return tuple(step * per_step for step in steps)


def _found(run: RunFile, losses: Sweep, moved: Redistribution | None, plan: Plan) -> list[str]:
    best, train = losses.minimum, run.identity["train"]
    said = [_treated(run, f"{len(plan.operated)} heads (rule {plan.rule})", train["corpus"])]
    against = estimated(best.change)
    words = "that is better" if best.change.below_zero else "that is NOT clearly better"
    if best.change.above_zero:
        words = "that is WORSE"
    said.append(
        f"The loss on dev text was lowest at step {best.step}: {best.loss:.4f} nats per token, "
        f"{against} against the untouched model; {words}. The step was chosen on this text, which "
        "flatters it; test text, and the same training without reinitialising, decide (see "
        "headsurgeon evaluate and headsurgeon study)."
    )
    if moved is not None:
        last = moved.group(moved.mask("operated"))
        others = moved.group(moved.mask("outside") | moved.mask("watched"))
        said.append(
            f"{last.left_sick} of the {last.heads} operated heads left the sick class, as "
            f"untrained ones do; of the {_others(run)} "
            f"{others.newly_sick} fell sick and {others.left_sick} woke."
        )
    if run.result is None:
        said.append("The run has NOT come to its end; the command that began it resumes it.")
    return said


def _treated(run: RunFile, heads: str, corpus: str) -> str:
    """What was done to the model, in a sentence."""
    trains, started = run.identity.get("trains"), run.identity.get("init")
    if not trains:
        return (
            f"{heads} were operated on and trained on {corpus}; everything else stayed as it was."
        )
    if trains == "lora":
        return f"Adapters where {heads} lie were trained on {corpus}."
    if "start_values" in run.identity:
        return f"The whole model, of which a part had been trained before, was trained on {corpus}."
    if started:
        return (
            f"{heads} were given a start, and the whole model was trained on {corpus} from there."
        )
    return f"The whole model was trained on {corpus}; figures of heads are those of {heads}."


def _figures(folder: Path, run: RunFile, losses: Sweep, plan: Plan) -> tuple[KeyFigure, ...]:
    best = losses.minimum
    value, _, interval = estimated(best.change).partition(" ")
    found = [
        KeyFigure(
            str(len(plan.operated)),
            "heads of the plan" if run.identity.get("trains") else "heads operated on",
            f"rule {plan.rule}",
        ),
        KeyFigure(value, "dev loss against untouched", interval),
    ]
    result = run.result or {}
    if "tokens" in result:
        found.append(
            KeyFigure(f"{result['tokens']:,}", "tokens trained", f"{result['steps']:,} steps")
        )
    found += cost_figures(folder)
    return tuple(found)


def cost_figures(folder: Path) -> list[KeyFigure]:
    """Time and memory of a run, where it says so."""
    if not (folder / COST).is_file():
        return []
    cost = Cost.load(folder / COST)
    return [
        KeyFigure(f"{cost.seconds / 60:.1f}", "minutes", "of the session that finished it"),
        memory_figure(cost),
    ]


def memory_figure(cost: Cost) -> KeyFigure:
    """The most memory that was taken."""
    return KeyFigure(f"{cost.peak_bytes / 2**30:.1f} GiB", "peak memory", cost.memory)


def _losses(run: RunFile, losses: Sweep) -> tuple[Chart, ...]:
    counted = tokens_after(run, losses.steps)
    drawn = []
    for curve in (losses.dev, *losses.probes):
        line = Curve(curve.name, curve.name, counted, tuple(curve.loss.tolist()))
        drawn.append(
            charts.loss_chart(
                f"Loss on {curve.name}",
                [line],
                [Level("untouched", curve.untouched)] if curve.untouched == curve.untouched else [],
                f"{curve.corpus}, {curve.split} split.",
            )
        )
    return tuple(drawn)


def _others(run: RunFile) -> str:
    """The heads outside the plan."""
    return "other heads" if run.identity.get("trains") else "heads nobody touched"


def _of_heads(run: RunFile, moved: Redistribution, plan: Plan) -> list[Section]:
    """What became of the operated heads, and of the others."""
    operated = moved.mask("operated")
    first, last = moved.mass_before, moved.mass[-1]
    null = np.array([h.statistics.get("null_mass", np.nan) for h in plan.heads])
    shown = [
        charts.mass_chart(
            f"Mass of the {int(operated.sum())} operated heads",
            {"untouched": first[operated], f"step {moved.steps[-1]}": last[operated]},
            null,
            plan.limits,
            "Dev windows that were measured while it ran. Yellow: the null, which untrained heads "
            "show as well.",
        ),
        charts.mass_chart(
            "Mass of all heads",
            {"untouched": first[moved.attends], f"step {moved.steps[-1]}": last[moved.attends]},
            null,
            plan.limits,
            "The same of every head of the model.",
        ),
    ]
    found = [Section("Heads operated on", charts=tuple(shown))]
    if len(moved.steps) > 1:
        lines: dict[str, list[float]] = {
            zone: [group.mean_could for group in moved.zones[zone]]
            for zone in ZONES
            if zone != "operated" and moved.zones[zone][0].could_change
        }
        drift = charts.lines_chart(
            "Drift by zone",
            moved.steps,
            lines,
            "mean |change of mass|",
            f"Of {_others(run)} that can change, against the untouched model.",
        )
        drawn = [*([drift] if lines else []), *column_charts(moved)]
        shown_tables = (
            tables.zone_table(moved),
            tables.column_table(moved),
            tables.distance_table(moved),
            tables.shape_table(moved),
        )
        found.append(Section(_others(run).capitalize(), charts=tuple(drawn), tables=shown_tables))
    return found


def column_charts(moved: Redistribution) -> list[Chart]:
    """The drift of untouched heads by head index; nothing before two trained moments."""
    steps = [step for step in moved.steps if step > 0]
    courses = [course for course in moved.columns if course.could_change and course.mean_could]
    courses = sorted(courses, key=lambda course: -course.mean_could[-1])[:_COLUMNS]
    if len(steps) < 2 or not courses:
        return []
    return [
        charts.lines_chart(
            f"Drift by column, {moved.run}",
            steps,
            {f"H{course.head} {course.zone}": course.mean_could for course in courses},
            "mean |change of mass|",
            f"The {len(courses)} columns that moved most, of those that can change.",
        )
    ]


def _settings(run: RunFile) -> Table:
    rows = tuple((name, _shown(value)) for name, value in run.identity["settings"].items())
    return Table("settings", "Every setting", ("name", "value"), rows, align=("left", "left"))


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None else str(value)
