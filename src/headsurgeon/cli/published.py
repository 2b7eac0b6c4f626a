"""What the paper reports for the models it examined, to stand beside a user's own run.

Source: Schallon 2026, *Surgical Repair of Collapsed Attention Heads in ALiBi Transformers*,
arXiv:2603.09616. Its diagnosis reads one short text, so its counts need not be those of a corpus.
"""

from dataclasses import dataclass

SOURCE = "arXiv:2603.09616"


@dataclass(frozen=True)
class PublishedFigures:
    """Reported figures for one model.

    Attributes:
        band: where the sick heads are.
        sick_share: sick heads over all heads, fraction.
        counts: heads per verdict in the stock model, where reported.
        remarks: what the paper reports after its operations.
    """

    band: str
    sick_share: float
    counts: dict[str, int] | None = None
    remarks: tuple[str, ...] = ()


PUBLISHED: dict[str, PublishedFigures] = {
    "bigscience/bloom-560m": PublishedFigures("heads 9–15", 0.44),
    "bigscience/bloom-1b7": PublishedFigures(
        "heads 9–15",
        0.36,
        {"healthy": 242, "sink": 136, "dead": 3, "low-entropy": 3},
        (
            "after pass 1 (epoch 3): 341 healthy, 39 sink, 0 dead, 4 low-entropy",
            "after pass 2 (epoch 1): 379 healthy, 1 sink, 0 dead, 4 low-entropy",
            "perplexity, stock → pass 1 → pass 2: probe 16.99 → 15.13 → 15.10; "
            "held-out prompts 21.45 → 27.52 → 28.76",
            "C4 validation perplexity with C4-trained surgery: 32.42 → 29.30",
        ),
    ),
    "bigscience/bloom-3b": PublishedFigures("heads 20–30 of 32", 0.38),
    "bigscience/bloom-7b1": PublishedFigures("heads 21–30 of 32", 0.31),
}
