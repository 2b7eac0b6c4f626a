"""What the paper reports of a model's diagnosis, to stand beside a user's own."""

from dataclasses import dataclass
from functools import cache

from headsurgeon.heads import VERDICTS
from headsurgeon.paper.numbers import published, published_number

_PROBE, _PROMPTS, _C4 = "8 short texts", "12 held-out prompts", "C4 validation"


@dataclass(frozen=True)
class ReportedDiagnosis:
    """Reported figures for one model; its diagnosis reads one short text.

    Attributes:
        band: where the sick heads are.
        sick_share: sick heads over all heads, fraction.
        sick_heads: how many.
        counts: heads per verdict in the stock model, where reported.
        dormancy: share of dormant MLP neurons, where reported.
        remarks: what the paper reports after its operations.
    """

    band: str
    sick_share: float
    sick_heads: int
    counts: dict[str, int] | None = None
    dormancy: float | None = None
    remarks: tuple[str, ...] = ()


@cache
def reported_diagnosis(model: str) -> ReportedDiagnosis | None:
    """What is reported of a model; None where nothing is."""
    if not published(model, "stock", "sick share"):
        return None
    counts = _counts(model, "stock")
    return ReportedDiagnosis(
        band=str(published_number(model, "stock", "band").value),
        sick_share=published_number(model, "stock", "sick share").number,
        sick_heads=int(published_number(model, "stock", "sick heads").number),
        counts=counts,
        dormancy=_dormancy(model),
        remarks=_remarks(model) if counts is not None else (),
    )


def _counts(model: str, stage: str) -> dict[str, int] | None:
    numbers_of = {verdict: published(model, stage, verdict) for verdict in VERDICTS}
    if not all(numbers_of.values()):
        return None
    return {verdict: int(numbers[0].number) for verdict, numbers in numbers_of.items()}


def _dormancy(model: str) -> float | None:
    shares = published(model, "stock", "dormant MLP share")
    return shares[0].number if shares else None


def _remarks(model: str) -> tuple[str, ...]:
    passes = {"pass 1 (epoch 3)": "pass 1 E3", "pass 2 (epoch 1)": "pass 2 E1"}
    stages = ("stock", *passes.values())
    counted = {name: _counts(model, stage) or {} for name, stage in passes.items()}
    return (
        *(
            f"after {name}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
            for name, counts in counted.items()
        ),
        "perplexity, stock → pass 1 → pass 2: "
        f"probe {_perplexities(model, stages, _PROBE)}; "
        f"held-out prompts {_perplexities(model, stages, _PROMPTS)}",
        "C4 validation perplexity with C4-trained surgery: "
        + _perplexities(model, ("stock", "C4 E3"), _C4),
        "letters: A text and figure agree, B one source alone, C contradicted within the paper, "
        "D no script or no data",
    )


def _perplexities(model: str, stages: tuple[str, ...], text: str) -> str:
    numbers = [published_number(model, stage, "perplexity", text) for stage in stages]
    return " → ".join(f"{each.number:.2f} ({each.grade})" for each in numbers)
