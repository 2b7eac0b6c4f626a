"""What a study's questions came to: the one place where an arm is called better or worse.

The rule needs losses alone, no model. The paired difference of two arms is taken over documents and
seeds (`headsurgeon.scores.crossed_draws`), and its interval decides:

- better: the whole interval lies below -margin; worse: above +margin;
- equivalent: the whole interval lies inside ±margin, if there is one;
- undecided: anything else, which is no proof of equality.

All contrasts of a study share its level (Holm 1979): the clearest is judged at (1 - level)/m, the
next at (1 - level)/(m - 1), and so on until one is not decided; the rest share what is left. With
no effect anywhere, the chance of calling any of them better or worse is at most 1 - level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from jaxtyping import Float

from headsurgeon.records import Record
from headsurgeon.scores import DRAWS, Evaluation, crossed_draws, difference, recovered_share
from headsurgeon.study.parts import Contrast, Reading
from headsurgeon.study.results import CellResult, StudyResults, untouched

Outcome = Literal["better", "worse", "equivalent", "undecided"]
POWER = 0.8


class Decision(Record):
    """What one contrast came to on one text.

    Attributes:
        contrast, question, arm, against: as registered.
        trained_on: name of the text that the arms were trained on.
        text: name of the text they were scored on.
        reading: what that text is to the arm: trained on, alone or as a part, read by its anchor,
            or neither.
        value, low, high: loss of the arm minus that of the other, nats per token; for `recovers`
            minus what ablating the heads costs more than it did before, so that below 0 is better.
        level: coverage of this interval.
        margin: below which a difference is none.
        documents, seeds: how many there are; with one seed the interval is over documents alone.
        minimum_detectable: the difference that such data would show with a probability of 80 %.
        outcome: better, worse, equivalent, undecided.
    """

    contrast: str
    question: str
    arm: str
    against: str
    trained_on: str
    text: str
    reading: Reading = "other"
    value: float
    low: float | None
    high: float | None
    level: float
    margin: float
    documents: int
    seeds: int
    minimum_detectable: float | None
    outcome: Outcome


class Share(Record):
    """How much of what could be recovered an arm recovered: 1 is the ceiling, 0 the untouched.

    `gap` is untouched minus ceiling, nats per token; None stands for undefined: no clear gap.
    """

    arm: str
    trained_on: str
    text: str
    value: float | None
    low: float | None
    high: float | None
    gap: float


@dataclass(frozen=True, eq=False)
class Question:
    """A contrast on one text, with its numbers: differences [seed, document], nats per token."""

    contrast: Contrast
    trained_on: str
    text: str
    paired: Float[np.ndarray, "seed document"]
    tokens: Float[np.ndarray, " document"]
    reading: Reading = "other"


def decide(questions: Sequence[Question], level: float, draws: int = DRAWS) -> list[Decision]:
    """Answers questions together, in the order given; see the module for the rule."""
    drawn = [crossed_draws(each.paired, each.tokens, draws=draws) for each in questions]
    clearest = sorted(
        range(len(questions)),
        key=lambda index: _p_value(drawn[index][1], questions[index].contrast.margin),
    )
    decisions: dict[int, Decision] = {}
    left, stopped = len(questions), False
    for index in clearest:
        value, sample = drawn[index]
        decision = _judge(questions[index], value, sample, 1.0 - (1.0 - level) / left)
        decisions[index] = decision
        stopped = stopped or decision.outcome not in ("better", "worse")
        left -= not stopped
    return [decisions[index] for index in range(len(questions))]


def _judge(
    question: Question, value: float, sample: Float[np.ndarray, " draw"], level: float
) -> Decision:
    contrast = question.contrast
    low, high = np.quantile(sample, ((1.0 - level) / 2.0, (1.0 + level) / 2.0))
    known = bool(np.isfinite(low) and np.isfinite(high))
    quantile = NormalDist().inv_cdf((1.0 + level) / 2.0)
    power = 1.0 + NormalDist().inv_cdf(POWER) / quantile
    return Decision(
        contrast=contrast.name,
        question=contrast.question,
        arm=contrast.arm,
        against=contrast.against,
        trained_on=question.trained_on,
        text=question.text,
        reading=question.reading,
        value=value,
        low=float(low) if known else None,
        high=float(high) if known else None,
        level=level,
        margin=contrast.margin,
        documents=question.paired.shape[1],
        seeds=question.paired.shape[0],
        minimum_detectable=float(high - low) / 2.0 * power if known else None,
        outcome=_outcome(float(low), float(high), contrast.margin),
    )


def _outcome(low: float, high: float, margin: float) -> Outcome:
    # a bound that is no number compares as false
    if high < -margin:
        return "better"
    if low > margin:
        return "worse"
    if -margin < low and high < margin:
        return "equivalent"
    return "undecided"


def _p_value(sample: Float[np.ndarray, " draw"], margin: float) -> float:
    """Two-sided, of the hypothesis that the difference lies inside ±margin; 1 where unknown."""
    if not np.isfinite(sample).all():
        return 1.0
    above = (np.count_nonzero(sample >= -margin) + 1) / (len(sample) + 1)
    below = (np.count_nonzero(sample <= margin) + 1) / (len(sample) + 1)
    return float(min(1.0, 2.0 * min(above, below)))


def decisions_of(results: StudyResults) -> list[Decision]:
    """Answers every contrast of a study for which there are cells, all of them together."""
    return decide(questions_of(results), results.study.level)


def questions_of(results: StudyResults) -> list[Question]:
    """The contrasts, one question per training text and scored text, as far as cells are done."""
    study = results.study
    questions = []
    for contrast in study.contrasts:
        trains = any(study.arm(name).trains for name in (contrast.arm, contrast.against))
        for trained_on in study.train_on if trains else study.train_on[:1]:
            pairs = pairs_of(
                results.of(contrast.arm, trained_on), results.of(contrast.against, trained_on)
            )
            for text in _texts(results, contrast, trained_on) if pairs else ():
                rows = [_difference(contrast, a, b, text) for a, b in pairs]
                tokens = np.array(pairs[0][0].scored[text].tokens)
                reading = study.reading(contrast.arm, trained_on, text)
                questions.append(
                    Question(contrast, trained_on, text, np.stack(rows), tokens, reading)
                )
    return questions


def shares_of(results: StudyResults, ceiling: str = "ceiling") -> list[Share]:
    """Shares of the gap for every trained arm of the subject, where the study has a ceiling.

    Losses are averaged over the seeds of each, so the interval is over documents.
    """
    study = results.study
    if not any(arm.name == ceiling for arm in study.arms):
        return []
    shares = []
    stock = untouched(results)
    for arm in (arm for arm in study.arms if arm.trains and arm.model == "subject"):
        for trained_on in study.train_on:
            cells, best = results.of(arm.name, trained_on), results.of(ceiling, trained_on)
            if not cells or not best:
                continue
            sick = _pooled([stock], trained_on)
            reached = _pooled(best, trained_on)
            share = recovered_share(sick, _pooled(cells, trained_on), reached)
            value, low, high = (
                None if np.isnan(bound) else bound for bound in (share.value, share.low, share.high)
            )
            shares.append(
                Share(
                    arm=arm.name,
                    trained_on=trained_on,
                    text=trained_on,
                    value=value,
                    low=low,
                    high=high,
                    gap=difference(sick, reached).value,
                )
            )
    return shares


def pairs_of(
    first: Sequence[CellResult], second: Sequence[CellResult]
) -> list[tuple[CellResult, CellResult]]:
    """Cells of one seed each; what has no seed is paired with every one."""
    ours: Mapping[int | None, CellResult] = {each.seed: each for each in first}
    theirs: Mapping[int | None, CellResult] = {each.seed: each for each in second}
    if None in ours:
        return [(ours[None], other) for other in theirs.values()]
    if None in theirs:
        return [(one, theirs[None]) for one in ours.values()]
    return [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]


def _texts(results: StudyResults, contrast: Contrast, trained_on: str) -> tuple[str, ...]:
    if contrast.on == "trained":
        return (trained_on,)
    if contrast.on == "other":
        return results.study.others(trained_on)
    return (contrast.on,)


def _difference(
    contrast: Contrast, arm: CellResult, against: CellResult, text: str
) -> Float[np.ndarray, " document"]:
    """Loss of the one minus the other, or minus the gain in what ablating the heads costs."""
    ours, theirs = arm.scored[text], against.scored[text]
    tokens = np.array(ours.tokens)
    if contrast.question != "recovers":
        # checks that both were scored on the same windows
        difference(ours.evaluation(contrast.arm), theirs.evaluation(contrast.against))
        return np.asarray((np.array(ours.nll) - np.array(theirs.nll)) / tokens)
    costs = [np.array(each.ablated["zero"]) - np.array(each.nll) for each in (ours, theirs)]
    return np.asarray((costs[1] - costs[0]) / tokens)


def _pooled(cells: Sequence[CellResult], text: str) -> Evaluation:
    """The mean over seeds of the loss of each document."""
    scored = [cell.scored[text] for cell in cells]
    mean = tuple(np.mean([each.nll for each in scored], axis=0).tolist())
    return scored[0].model_copy(update={"nll": mean}).evaluation(cells[0].arm)
