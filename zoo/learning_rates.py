"""Chooses the demo's learning rates: every arm over the same grid, judged on dev text.

    python zoo/learning_rates.py

Surgery, gradient-only control and ceiling each train as in `headsurgeon demo`; the rate with the
lowest dev loss is what `demo/settings.py` holds for that arm. Without this the comparison of arms
would be one of learning rates. Runs are kept in `--work` and go on where they stopped.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from headsurgeon.data import windows
from headsurgeon.demo import DemoSettings
from headsurgeon.demo.arms import arms
from headsurgeon.diagnose import diagnose, plan
from headsurgeon.measure import measure
from headsurgeon.models import load
from headsurgeon.operate import operate
from headsurgeon.train import train

GRID = (5e-4, 2e-3, 8e-3)


def main() -> None:
    """Trains every arm at every rate and prints the dev losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, default=Path("runs/learning-rates"))
    parser.add_argument("--tokens", type=int, help="tokens per run; default is the demo's")
    work = parser.parse_args().work
    settings = DemoSettings()
    tokens = parser.parse_args().tokens or settings.max_tokens
    sick, tokenizer = load(settings.model)
    dev = windows(
        settings.corpus, tokenizer, "dev", settings.length, settings.dev_windows, settings.seed
    )
    chosen = plan(diagnose(measure(sick, dev)), settings.rule, model=sick)
    for name, arm in arms(chosen, settings).items():
        losses = {}
        for rate in GRID:
            model, _ = load(settings.ceiling if name == "ceiling" else settings.model)
            patient = operate(model, replace(arm.plan, model=""), seed=settings.seed)
            run = train(
                patient,
                corpus=settings.corpus,
                tokenizer=tokenizer,
                output=work / f"{name}-{rate:g}-{tokens}",
                max_tokens=tokens,
                learning_rate=rate,
                length=settings.length,
                seed=settings.seed,
            )
            losses[rate] = run.best_dev_loss
            print(f"{name:8} {rate:<7g} best dev loss {run.best_dev_loss:.4f}", flush=True)
        print(f"{name:8} best rate {min(losses, key=losses.__getitem__):g}", flush=True)


if __name__ == "__main__":
    main()
