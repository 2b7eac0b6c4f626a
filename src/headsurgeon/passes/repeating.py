"""The command that makes a sequence of passes again, as far as there is one. No torch."""

from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Any

from headsurgeon.diagnosis.verdicts import Thresholds
from headsurgeon.passes.result import Passes
from headsurgeon.planning.plan import Plan
from headsurgeon.training.repeating import operate_options

# windows of `operate --passes` on which heads are diagnosed, and on which recovery is measured
WINDOWS = 64
# what it looks at, and the split that it takes
_TEXTS = {"diagnosed": "dev", "tested": "test"}


def passes_options(found: Passes, first: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Options of `headsurgeon operate`, quoted for a shell, with which it makes the same passes.

    Besides these it is given the model, what that was loaded with, and an output. A plan is named
    as it lies in the folder of the sequence.

    Args:
        found: the sequence.
        first: the identity of the run of its first pass.

    Returns:
        None where no command does the same: where that holds for `operate_options`, rules with
        arguments, texts or thresholds that a command would not choose, or no pass.
    """
    identity, limits, options = found.identity, Thresholds(), []
    trained = operate_options(first, identity["settings"])
    if trained is None or not found.passes:
        return None
    for number, rule in enumerate(identity["rules"], 1):
        if isinstance(rule, str) and "\n" not in rule:
            options.append(f"--rule {rule}")
            continue
        if not isinstance(rule, str) or number > len(found.passes):
            return None
        limits = Plan.from_yaml(rule).limits
        options.append(f"--plan pass-{number}/plan.yaml")
    if identity["thresholds"] != limits.model_dump(mode="json"):
        return None
    if not all(_as_a_command_has_it(identity, name, of) for name, of in _TEXTS.items()):
        return None
    count = max(len(found.passes), len(identity["rules"]))
    return (f"--passes {count}", *options, *_further(identity), *trained)


def _as_a_command_has_it(identity: Mapping[str, Any], name: str, split: str) -> bool:
    text = identity[name]
    if text is None:
        return True
    read = (text["corpus"], text["split"], text["windows"])
    return bool(read == (identity["train"]["corpus"], split, WINDOWS))


def _further(identity: Mapping[str, Any]) -> Iterator[str]:
    if identity["least_gain"]:
        yield f"--least-gain {quote(str(identity['least_gain']))}"
    if identity["tested"] is None:
        yield "--no-recovery"
