"""How the heads of a learner start, and that read back from the entries of a file.

What a file says is checked before any of it is used; each reader adds what is wrong to `faults`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from pydantic import TypeAdapter, ValidationError

from headsurgeon.errors import HeadsurgeonError, SettingsError
from headsurgeon.planning import Plan
from headsurgeon.records import HIGHEST_SEED
from headsurgeon.starts import (
    CalibrationRecord,
    ChosenStart,
    choose_init,
    choose_output_start,
)

_CALIBRATION = TypeAdapter(CalibrationRecord)


@dataclass(frozen=True)
class Beginning:
    """How the heads of a learner start.

    Attributes:
        seed: of all that is random about it.
        init: what Q, K and V become.
        output_start: what the output is at step 0.
        calibration: the text that one of the two looked at.
    """

    seed: int
    init: ChosenStart
    output_start: ChosenStart
    calibration: CalibrationRecord = field(default_factory=CalibrationRecord)

    def planned(self, plan: Plan) -> Plan:
        """A plan with this start."""
        return plan.replace(
            init=self.init.name, output_start=self.output_start.name, seed=self.seed
        )

    def entries(self) -> dict[str, str]:
        """What a file says of it, which `read_beginning` reads."""
        said = {
            "seed": str(self.seed),
            "init": self.init.name,
            "output_start": self.output_start.name,
        }
        if self.calibration.tokens:
            said["calibration"] = json.dumps(asdict(self.calibration))
        return said


class Begun:
    """What every learner whose start is recorded tells of it."""

    beginning: Beginning

    @property
    def seed(self) -> int:
        """Seed of all that was random about the start."""
        return self.beginning.seed

    @property
    def init(self) -> str:
        """What Q, K and V became, parameters included; `none` where they are as they were."""
        return self.beginning.init.name

    @property
    def output_start(self) -> str:
        """What the output was at step 0, parameters included."""
        return self.beginning.output_start.name

    @property
    def calibration(self) -> CalibrationRecord:
        """The tokens that the start looked at, their number and hash."""
        return self.beginning.calibration

    @property
    def calibration_tokens(self) -> int:
        """How many these are; they count against a budget of training tokens."""
        return self.beginning.calibration.tokens


BEGINNING_ENTRIES = ("seed", "init", "output_start")


def as_it_is() -> Beginning:
    """That of heads which start as they are in the model."""
    return Beginning(0, choose_init("none"), choose_output_start("keep_output"))


def read_beginning(metadata: Mapping[str, str], faults: list[str]) -> Beginning | None:
    """How heads started, by the `BEGINNING_ENTRIES` of a file, all of which are there."""
    seed = read_whole("seed", metadata["seed"], faults)
    init = _start(choose_init, metadata["init"], faults)
    output_start = _start(choose_output_start, metadata["output_start"], faults)
    calibration = _calibration(metadata.get("calibration"), faults)
    if seed is None or init is None or output_start is None:
        return None
    return Beginning(seed, init, output_start, calibration)


def in_one_line(faults: Sequence[str]) -> str:
    """The first eight of them, and how many more there are."""
    more = f"; and {len(faults) - 8} more" if len(faults) > 8 else ""
    return "; ".join(faults[:8]) + more


def read_plan(text: str, faults: list[str]) -> Plan | None:
    """The plan that was carried out."""
    try:
        plan = Plan.from_yaml(text)
    except HeadsurgeonError as error:
        faults.append(str(error))
        return None
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError) as e:
        faults.append(f"plan: cannot be read ({type(e).__name__})")
        return None
    if not plan.operated:
        faults.append("plan: operates on no head")
    return plan


def _start(
    choose: Callable[[str], ChosenStart], text: str, faults: list[str]
) -> ChosenStart | None:
    try:
        return choose(text)
    except SettingsError as error:
        faults.append(str(error))
        return None


def _calibration(text: str | None, faults: list[str]) -> CalibrationRecord:
    if text is None:
        return CalibrationRecord()
    try:
        return _CALIBRATION.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        faults.append(f"calibration: expected tokens and sha256: {first['msg'][:200]}")
        return CalibrationRecord()


def read_whole(name: str, text: str, faults: list[str]) -> int | None:
    """A seed, or the step of a run."""
    if text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) <= HIGHEST_SEED:
        return int(text)
    faults.append(f"{name}: expected a whole number from 0 to {HIGHEST_SEED}, got {text[:40]!r}")
    return None
