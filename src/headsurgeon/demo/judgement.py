"""What the arms brought: shares, differences, recovery in function, drift; all on held-out text."""

from collections.abc import Mapping
from dataclasses import dataclass

from headsurgeon.demo.arms import Outcome
from headsurgeon.demo.examination import Case
from headsurgeon.demo.material import TEST
from headsurgeon.evaluation import Drift, Recovery, drift
from headsurgeon.scores import Estimate, Evaluation, difference, recovered_share


@dataclass(frozen=True, eq=False)
class Judgement:
    """The comparison; every estimate carries its interval over documents.

    Attributes:
        scores: losses by test windows, then by model: `untouched` and the arms.
        changes: the same less the loss of the untouched model.
        over_control: surgery less control, nats per token, by test windows; below 0 is better.
        gap: untouched less ceiling on the training corpus; None without a ceiling.
        shares: recovered share of the gap by arm; empty without a ceiling.
        recovery: which heads recovered in function, on both corpora.
        ablation: what ablating the operated heads together costs on the test windows of the
            training corpus, nats per token, by model: `untouched` and the arms.
        drift: what happened to the heads nobody touched.
    """

    scores: Mapping[str, Mapping[str, Evaluation]]
    changes: Mapping[str, Mapping[str, Estimate]]
    over_control: Mapping[str, Estimate]
    gap: Estimate | None
    shares: Mapping[str, Estimate]
    recovery: Recovery
    ablation: Mapping[str, Estimate]
    drift: Drift


def judge(case: Case, outcomes: Mapping[str, Outcome], recovery: Recovery) -> Judgement:
    """Compares the arms with the untouched model, with each other, and with the ceiling.

    Args:
        outcomes: by arm: `surgery`, `control`, and `ceiling` if there is one.
        recovery: the recovery rule applied to surgery.
    """
    surgery, control = outcomes["surgery"], outcomes["control"]
    scores = {
        name: {
            "untouched": untouched,
            **{arm: outcome.scores[name] for arm, outcome in outcomes.items()},
        }
        for name, untouched in case.scores.items()
    }
    gap, shares = None, {}
    if "ceiling" in outcomes:
        sick, ceiling = case.scores[TEST], outcomes["ceiling"].scores[TEST]
        gap = difference(sick, ceiling)
        shares = {
            arm: recovered_share(sick, outcomes[arm].scores[TEST], ceiling)
            for arm in ("surgery", "control")
        }
    return Judgement(
        scores=scores,
        changes={
            name: {arm: difference(score, by["untouched"]) for arm, score in by.items()}
            for name, by in scores.items()
        },
        over_control={
            name: difference(surgery.scores[name], control.scores[name]) for name in scores
        },
        gap=gap,
        shares=shares,
        recovery=recovery,
        ablation={
            "untouched": case.conditions[TEST].ablation.joint,
            **{arm: outcome.conditions[TEST].ablation.joint for arm, outcome in outcomes.items()},
        },
        drift=drift(case.stats, surgery.stats, case.plan),
    )
