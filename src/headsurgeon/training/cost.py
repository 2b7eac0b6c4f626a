"""What a run took: wall time and the most memory, beside its other files. No torch here."""

import resource
import sys
from typing import Annotated, ClassVar

from pydantic import Field

from headsurgeon.records import Finite
from headsurgeon.results import Result

COST = "cost.json"


class Cost(Result):
    """Time and memory of the session that finished a run; `cost.json`.

    Attributes:
        seconds: wall time.
        peak_bytes: the most memory.
        memory: whose memory it is, in words: of the process as a whole, or of its accelerator.
    """

    kind: ClassVar[str] = "cost"

    seconds: Annotated[Finite, Field(ge=0)]
    peak_bytes: Annotated[int, Field(ge=0)]
    memory: str


def peak_of_process() -> int:
    """The most memory that this process has held, bytes."""
    # in kilobytes, but for macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
