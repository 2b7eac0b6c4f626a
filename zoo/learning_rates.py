"""Chooses the demo's learning rates: every arm over the same grid, judged on dev text.

    python zoo/learning_rates.py
    python zoo/learning_rates.py --model zoo:smollm2-135m

Surgery, gradient-only control and, for the twins, ceiling each train as in `headsurgeon demo`; the
rate with the lowest dev loss is what `demo/settings.py` holds for that arm. Without this the
comparison of arms would be one of learning rates. Runs are kept in `--work` and go on where they
stopped.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from headsurgeon.data import Windows, windows
from headsurgeon.demo.arms import arms
from headsurgeon.demo.examination import choose
from headsurgeon.demo.material import OTHER, TEST
from headsurgeon.demo.settings import PLANTED_MODEL, settings_for
from headsurgeon.demo.training import training
from headsurgeon.diagnosis import diagnose
from headsurgeon.measurement import measure
from headsurgeon.models import load
from headsurgeon.operation import operate
from headsurgeon.training.schedule import windows_needed

PLANTED_GRID = (5e-4, 2e-3, 8e-3, 3.2e-2)
# on SmolLM2-135M both ends are worse than the middle, for both arms
GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
# more than the demo's own evaluations read, if there are: here the dev loss decides
DEV_WINDOWS = 32


def main() -> None:
    """Trains every arm at every rate and prints the dev losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default=PLANTED_MODEL)
    parser.add_argument("--work", type=Path, default=Path("runs/learning-rates"))
    parser.add_argument("--tokens", type=int, help="tokens per run; default is the demo's")
    asked = parser.parse_args()
    settings = settings_for(asked.model)
    settings = replace(settings, max_tokens=asked.tokens or settings.max_tokens)
    model, tokenizer = load(settings.model)
    texts = {TEST: settings.corpus, OTHER: settings.other_corpus}
    if settings.planted:
        del texts[OTHER]

    def cut(corpus: str, split: str, count: int | None) -> Windows:
        return windows(corpus, tokenizer, split, settings.length, count, settings.seed)

    dev = {name: cut(corpus, "dev", settings.dev_windows) for name, corpus in texts.items()}
    diagnoses = {name: diagnose(measure(model, part)) for name, part in dev.items()}
    cost = {name: part.take(settings.cost_windows) for name, part in dev.items()}
    chosen = choose(model, diagnoses, cost, settings)
    print(f"{len(chosen.operated)} heads: {' '.join(map(str, chosen.operated))}", flush=True)
    train = cut(settings.corpus, "train", windows_needed(training(settings, GRID[0])))
    folder = asked.work / settings.model.replace(":", "-").replace("/", "-")
    for name, arm in arms(chosen, settings).items():
        losses = {}
        for rate in PLANTED_GRID if settings.planted else GRID:
            patient_model, _ = load(settings.ceiling if name == "ceiling" else settings.model)
            run = train(
                operate(patient_model, arm.plan.replace(model=""), seed=settings.seed),
                train,
                dev[TEST].take(DEV_WINDOWS),
                output=folder / f"{name}-{rate:g}-{settings.max_tokens}",
                settings=training(settings, rate),
            )
            losses[rate] = run.best_dev_loss
            print(f"{name:8} {rate:<7g} best dev loss {run.best_dev_loss:.4f}", flush=True)
        print(f"{name:8} best rate {min(losses, key=losses.__getitem__):g}", flush=True)


if __name__ == "__main__":
    main()
