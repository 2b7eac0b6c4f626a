"""What a sequence of passes came to, pass by pass, against the untouched model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from headsurgeon.passes.comparison import BecameSick, Zone, ZoneChange
from headsurgeon.records import Finite, HeadName, Record
from headsurgeon.results import Result
from headsurgeon.scores import Estimate

if TYPE_CHECKING:
    from headsurgeon.evaluation import Recovery

PASSES = "passes.json"
Count = Annotated[int, Field(ge=0)]


class RecoveredHeads(Record):
    """What the recovery rule says of the heads of one pass; `recovery.json` has all of it.

    A reinitialised head is no longer sick at once, so `no_longer_sick` proves nothing by itself.

    Attributes:
        no_longer_sick: sick as the pass found them, and not now.
        unlike_untrained: those that differ from the same heads reinitialised and not trained.
        recovered: those of which all conditions hold.
        ablating_costs: what ablating them together costs now, nats per token.
        more_than_before: the same minus what it cost as the pass found them.
        untrained_mass: mean first-token mass of the untrained heads, fraction.
    """

    no_longer_sick: tuple[HeadName, ...]
    unlike_untrained: tuple[HeadName, ...]
    recovered: tuple[HeadName, ...]
    ablating_costs: Estimate
    more_than_before: Estimate
    untrained_mass: Finite

    @classmethod
    def of(cls, recovery: "Recovery") -> "RecoveredHeads":
        """A summary of what was found on one text."""

        def named(mask: np.ndarray) -> tuple[HeadName, ...]:
            return tuple(head for head, yes in zip(recovery.heads, mask, strict=True) if yes)

        return cls(
            no_longer_sick=named(recovery.left_sick),
            unlike_untrained=named(recovery.unlike_null),
            recovered=recovery.recovered,
            ablating_costs=recovery.revived[0].joint,
            more_than_before=recovery.function[0],
            untrained_mass=recovery.null_mass[0],
        )


class Pass(Record):
    """One pass: what it operated on, and how the model stands after it.

    Attributes:
        number: 1 for the first.
        folder: in the folder of the sequence: a run's folder with `plan.yaml`, `diagnosis.json`,
            `drift.json` and `recovery.json` besides.
        rule: what chose its heads, in words.
        operated, watched: its heads.
        steps, tokens: of its training.
        kept_step: the step whose slices the next pass starts from.
        dev_loss_before, dev_loss: loss on dev text as the pass found the model, and at that step,
            nats per token.
        sick: heads that are sick after it.
        borderline: those of them of which the interval of the mass crosses a threshold.
        became_sick: those of them that were not sick in the untouched model.
        zones: healthy ↔ sick against the untouched model, by zone; heads operated on in any pass so
            far are `operated`.
        fell_sick, got_well: healthy ↔ sick since the pass before.
        recovery: of its heads, against the model as it found it; None where it was not measured.
        test_loss: after it, nats per token, and
        test_change: the same minus that of the untouched model; None where not measured.
    """

    number: Annotated[int, Field(ge=1)]
    folder: str
    rule: str
    operated: tuple[HeadName, ...]
    watched: tuple[HeadName, ...]
    steps: Count
    tokens: Count
    kept_step: Count
    dev_loss_before: Finite
    dev_loss: Finite
    sick: tuple[HeadName, ...]
    borderline: tuple[HeadName, ...]
    became_sick: tuple[BecameSick, ...]
    zones: Mapping[Zone, ZoneChange]
    fell_sick: tuple[HeadName, ...]
    got_well: tuple[HeadName, ...]
    recovery: RecoveredHeads | None
    test_loss: Finite | None
    test_change: Estimate | None


class Passes(Result):
    """A sequence of passes, finished or not; `passes.json` in its folder.

    Attributes:
        model: id of the untouched model.
        identity: all that decides what comes out, but for the number of passes asked for; another
            sequence is refused in the same folder.
        sick: the sick heads of the untouched model.
        passes: those that came to their end.
        ended: why there is no further one, in words; empty while there may be.
        patch: name of the composed patch in the folder; None before the end, and without a pass.
    """

    kind: ClassVar[str] = "passes"

    model: str
    identity: Mapping[str, Any]
    sick: tuple[HeadName, ...] = ()
    passes: tuple[Pass, ...] = ()
    ended: str = ""
    patch: str | None = None
