"""How results are put into words: figures with their intervals, and what a decision means."""

from collections.abc import Mapping

from headsurgeon.scores import Estimate
from headsurgeon.study.decision_rule import Decision, Outcome, Share
from headsurgeon.study.parts import Reading
from headsurgeon.study.spec import Study

PLANTED = (
    "The collapse of this model was PLANTED: an extra loss early in its training pushed named "
    "heads onto the first token. So its illness is known and a repair can be scored; what "
    "collapsed by itself in a large model may behave differently."
)
PLANTED_SHORT = "The collapse of this model was PLANTED while it was trained."
NOT_PLANTED = (
    "Nobody knows which heads of this model ought to be repaired: a sink may be work. What "
    "ablating them costs says how much."
)

# by question and outcome; the words follow from the outcome alone, whoever wins
_SENTENCES: Mapping[str, Mapping[Outcome, str]] = {
    "improves": {
        "better": "{arm} improved the model on {text}",
        "worse": "{arm} made the model WORSE on {text}",
        "equivalent": "{arm} changed nothing that matters on {text}",
        "undecided": "{arm} did NOT clearly improve the model on {text}",
    },
    "mechanism": {
        "better": "Reinitialising is what helped: {arm} beat {against} on {text}",
        "worse": "Reinitialising did HARM: {arm} did worse than {against} on {text}",
        "equivalent": "Reinitialising made no difference: {arm} did as well as {against} on {text}",
        "undecided": "{arm} did NOT clearly beat {against} on {text}: it may be the training alone",
    },
    "pruning": {
        "better": "Repairing the heads was worth more than switching them off: {arm} beat "
        "{against} on {text}",
        "worse": "Switching the heads off ({against}) would have been BETTER than {arm} on {text}",
        "equivalent": "Switching the heads off ({against}) would have been as good as {arm} on "
        "{text}",
        "undecided": "{arm} did NOT clearly beat switching the heads off ({against}) on {text}",
    },
    "harms": {
        "better": "{text}, which {arm} {read}, got better",
        "worse": "{arm} HARMED {text}, which it {read}",
        "equivalent": "{arm} left {text} alone, which it {read}",
        "undecided": "Whether {arm} harms {text}, which it {read},{beyond} is open",
    },
    "recovers": {
        "better": "The heads do more work than before: ablating those of {arm} costs more on "
        "{text}",
        "worse": "The heads do LESS work than before: ablating those of {arm} costs less on {text}",
        "equivalent": "The heads of {arm} work as much as before on {text}",
        "undecided": "The heads of {arm} do NOT clearly work more than before on {text}",
    },
    "compare": {
        "better": "{arm} beat {against} on {text}",
        "worse": "{arm} did WORSE than {against} on {text}",
        "equivalent": "{arm} and {against} are alike on {text}",
        "undecided": "{arm} and {against} cannot be told apart on {text}",
    },
}

_READ: Mapping[Reading, str] = {
    "trained": "was trained on",
    "part": "was trained on among others",
    "anchor": "was held to the untouched model on",
    "other": "was not trained on",
}


def number(value: float) -> str:
    """A signed figure with a real minus sign."""
    return f"{value:+.4f}".replace("-", "−")


def with_bounds(value: float, low: float | None, high: float | None) -> str:
    """A signed figure with its interval."""
    if low is None or high is None or low != low:
        return f"{number(value)} [no interval]"
    return f"{number(value)} [{number(low)}, {number(high)}]"


def estimated(estimate: Estimate) -> str:
    """The same of an estimate."""
    return with_bounds(estimate.value, estimate.low, estimate.high)


def share(found: Share) -> str:
    """A recovered share in per cent with its interval."""
    if found.value is None or found.low is None or found.high is None:
        return "undefined"
    # as whole numbers, of which none is "−0"
    value, low, high = (round(100 * each) for each in (found.value, found.low, found.high))
    return f"{value} % [{low}, {high}]".replace("-", "−")


def sentence(decision: Decision) -> str:
    """What a decision means, with its figures."""
    words = _SENTENCES[decision.question][decision.outcome].format(
        arm=decision.arm,
        against=decision.against,
        text=decision.text,
        read=_READ[decision.reading],
        beyond=f" by more than {decision.margin:g} nats" if decision.margin else "",
    )
    what = f"{decision.arm} − {decision.against}"
    value, low, high = decision.value, decision.low, decision.high
    if decision.question == "recovers":
        # more work is good, a higher loss is not: the sign is turned back for the reader
        what = "cost now − cost before"
        turned = (None if bound is None else -bound for bound in (high, low))
        value, (low, high) = -value, tuple(turned)
    return f"{words}: {what} = {with_bounds(value, low, high)} nats per token ({_reach(decision)})."


def ceiling_in_words(study: Study) -> str:
    """What 100 % of a study's shares is."""
    how = {"slices": "its same slices", "lora": "adapters on it"}
    method = study.arm("ceiling").method
    trained = f"{how.get(method, 'the whole of it')} trained on the same tokens"
    return f"the healthy twin, {'as it is' if method == 'none' else trained}"


def shares_in_words(shares: list[Share], study: Study) -> str:
    """How much of what could be recovered each arm recovered; empty without a ceiling."""
    if not shares:
        return ""
    gap = shares[0].gap
    if all(each.value is None for each in shares):
        return (
            f"Untouched − ceiling is {number(gap)} nats per token, which is not clearly above 0: "
            "what share of it was recovered is undefined."
        )
    each = ", ".join(f"{found.arm} {share(found)}" for found in shares)
    return (
        f"Of the {gap:.4f} nats per token between the untouched model and the ceiling "
        f"({ceiling_in_words(study)}) was recovered: {each}."
    )


def _reach(decision: Decision) -> str:
    """What the interval speaks for."""
    if decision.low is None:
        return "a single document gives no interval"
    seeds = "one seed: over documents alone" if decision.seeds == 1 else f"{decision.seeds} seeds"
    return f"{100 * decision.level:.3g} % interval, {decision.documents} documents, {seeds}"
