"""What each pass operates on: a plan, or a rule that chooses again from what the last pass left."""

from collections.abc import Mapping, Sequence
from typing import Any

from headsurgeon.errors import SettingsError
from headsurgeon.planning import RULES, Plan
from headsurgeon.records import snake_case

# a plan to be carried out, the name of a rule, or the arguments of `headsurgeon.plan`
RuleOfPass = str | Plan | Mapping[str, Any]
# they name heads whatever has become of them
_FIXED = ("heads", "column")
_TOLD = ("layers", "band", "max_cost", "ablation_mode", "init", "output_start", "seed")


def rules_of(rules: Sequence[RuleOfPass], passes: int) -> list[Plan | dict[str, Any]]:
    """What each of that many passes does; the last of `rules` serves all remaining ones.

    A plan is carried out once, as it is; later passes use its rule.

    Raises:
        SettingsError: no rule, more than passes, an unknown one, or one that would operate on the
            same heads again.
    """
    if not 1 <= len(rules) <= passes:
        raise SettingsError(
            f"expected a rule or a plan for each of {passes} passes, or fewer, of which the last "
            f"serves the rest; got {len(rules)}"
        )
    given = [rule if isinstance(rule, Plan) else _named(rule) for rule in rules]
    more = passes - len(given)
    if not more:
        return given
    last = given[-1]
    goes_on = _told(last) if isinstance(last, Plan) else last
    if goes_on["rule"] in _FIXED:
        raise SettingsError(
            f"pass {len(given) + 1}: rule {goes_on['rule']} would operate on the same heads again; "
            "give a rule, such as sick or newly_sick, or a plan for it"
        )
    return [*given, *(goes_on for _ in range(more))]


def in_words(rule: Plan | Mapping[str, Any]) -> str:
    """Such as `sick, layers 5–22` or `the plan given (rule heads)`."""
    if isinstance(rule, Plan):
        return f"the plan given (rule {rule.rule})"
    told = [
        f"{name} {'–'.join(map(str, value)) if isinstance(value, tuple | list) else value}"
        for name, value in rule.items()
        if name in ("layers", "band", "column")
    ]
    return ", ".join([rule["rule"], *told])


def _named(rule: str | Mapping[str, Any]) -> dict[str, Any]:
    asked = {"rule": rule} if isinstance(rule, str) else {"rule": "sick", **rule}
    asked["rule"] = snake_case(str(asked["rule"]))
    if asked["rule"] not in RULES:
        raise SettingsError(f"no rule {asked['rule']!r}; known are {', '.join(RULES)}")
    unknown = sorted(set(asked) - {"rule", "heads", "column", "watch", *_TOLD})
    if unknown:
        raise SettingsError(
            f"rule {asked['rule']}: no {', '.join(unknown)}; known are heads, column, watch, "
            f"{', '.join(_TOLD)}"
        )
    return asked


def _told(plan: Plan) -> dict[str, Any]:
    """The arguments that made a plan, for the model as a later pass finds it."""
    # of several rules that were joined, and of one edited by hand, nothing is known
    asked = _named(plan.rule)
    return asked | {name: getattr(plan, name) for name in _TOLD if getattr(plan, name) is not None}
