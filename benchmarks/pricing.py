"""What heads cost: estimates against the truth, and rule idle by bisection against one by one.

Writes results after every stage, so that a run that is broken off says what it found until then.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from machine import SEED, use_all_cores, write

import headsurgeon as hs
from headsurgeon.arch import Layout, layout_of
from headsurgeon.data import equal_parts
from headsurgeon.evaluation.screening import Screening, screen_windows
from headsurgeon.planning import PlainCosts
from headsurgeon.planning.idle_heads import IdleHeads, find_idle


def timed(what: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What a call returns, and the seconds it took on the clock and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = what()
    return found, {
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of values without ties."""
    ranks = [np.argsort(np.argsort(each)) for each in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def halfway(
    model: Any, layout: Layout, heads: Sequence[hs.HeadId], windows: hs.Windows
) -> np.ndarray:
    """−Σ a·g with all of the heads at half their output: the middle of the path to ablating all."""

    def halve(layer: int) -> Callable[..., tuple[Any, ...]]:
        starts = [layout.output.starts[head.head] for head in heads if head.layer == layer]

        def hook(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            context = inputs[0].clone()
            for start in starts:
                context.narrow(-1, start, layout.head_dim).mul_(0.5)
            return (context, *inputs[1:])

        return hook

    with ExitStack() as hooks:
        for layer in {head.layer for head in heads}:
            module = model.get_submodule(layout.output.path(layer))
            hooks.callback(module.register_forward_pre_hook(halve(layer)).remove)
        # of the halved output, so of half of a
        return 2.0 * screen_windows(model, layout, equal_parts(windows)).first_order


def said(found: IdleHeads) -> dict[str, Any]:
    """A set of idle heads for the results."""
    cost = found.cost
    return {
        "heads": sorted(map(str, found.heads)),
        "cost": None if cost is None else [cost.value, cost.low, cost.high],
    }


def scores(found: Screening) -> dict[str, np.ndarray]:
    """Every cheap score, under the name that the page gives it."""
    return {
        "first order": found.first_order,
        "squared": found.squared / 2.0,
        "both: second order": found.costs("zero"),
        "output norm": found.output_norm,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="zoo:smollm2-135m")
    parser.add_argument("--corpus", default="package:sympy")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--count", type=int, default=4, help="dev windows")
    parser.add_argument("--limit", type=float, default=0.05, help="of rule idle, nats per token")
    parser.add_argument("--fresh", type=int, default=16, help="test windows")
    parser.add_argument("--diagnose", type=int, default=8, help="dev windows of the diagnosis")
    parser.add_argument("--name", default="pricing", help="of the file of results")
    options = parser.parse_args()
    use_all_cores()
    model, tokenizer = hs.load(options.model)
    layout = layout_of(model)

    def read(split: str, count: int) -> hs.Windows:
        return hs.windows(
            options.corpus, tokenizer, split=split, length=options.length, count=count, seed=SEED
        )

    dev, test = read("dev", max(2 * options.count, options.diagnose)), read("test", options.fresh)
    stats = hs.measure(model, dev.take(options.diagnose))
    sick = hs.diagnose(stats, seed=SEED).sick
    results: dict[str, Any] = {"options": vars(options), "sick": len(sick)}

    def keep(name: str, content: dict[str, Any]) -> None:
        results[name] = content
        write(options.name, results)

    def by_bisection(count: int) -> IdleHeads:
        others = dev.skip(count).take(count)
        cost = hs.ablation_cost(model, dev.take(count), estimated_on=others)
        return find_idle(sick, cost, options.limit)

    def one_by_one(count: int) -> IdleHeads:
        return find_idle(sick, PlainCosts(hs.ablation_cost(model, dev.take(count))), options.limit)

    for name, way in (("bisection", by_bisection), ("one_by_one", one_by_one)):
        found, took = timed(lambda way=way: way(options.count))
        keep(name, {**said(found), **took})
        print(name, results[name], flush=True)
    exact = np.array([found.singles[head] for head in sick])
    keep("exact", {str(head): found.singles[head] for head in sick})
    tried = scores(screen_windows(model, layout, equal_parts(dev.take(options.count))))
    tried["halfway"] = halfway(model, layout, sick, dev.take(options.count))
    tried["first-token mass"] = stats.mean("first_token_mass")
    by_score = {name: np.array([score[head] for head in sick]) for name, score in tried.items()}
    rows: dict[str, dict[str, float]] = {
        name: {
            "rank_correlation": rank_correlation(of_sick, exact),
            "correlation": float(np.corrcoef(of_sick, exact)[0, 1]),
        }
        for name, of_sick in by_score.items()
    }
    keep("scores", rows)
    keep("values", {name: of_sick.tolist() for name, of_sick in by_score.items()})
    fresh = hs.ablation_cost(model, test, singles=True)
    for name in ("bisection", "one_by_one"):
        heads = [hs.HeadId.parse(head) for head in results[name]["heads"]]
        keep(name, {**results[name], "fresh": str(fresh.interval(heads))})
    for name, of_sick in {**by_score, "exact": exact}.items():
        cheapest = [sick[place] for place in np.argsort(of_sick)[: len(found.heads)]]
        rows.setdefault(name, {})["cheapest_fresh"] = fresh(cheapest)
        keep("scores", rows)


if __name__ == "__main__":
    main()
