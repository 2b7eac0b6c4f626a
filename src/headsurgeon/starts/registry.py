"""The starts by name: what Q, K and V become, and what the output is at step 0.

To add one, write a function and enter it here; docs/add_a_start.md shows how.
"""

from headsurgeon.starts.canonical import canonical
from headsurgeon.starts.choosing import ChosenStart, Number, Start, choose_start
from headsurgeon.starts.fitted import (
    gradient_matched,
    induction,
    induction_gradient_matched,
    unpin,
)
from headsurgeon.starts.fresh import (
    model,
    none,
    partial_reset,
    qk_only,
    vo_only,
    xavier_normal,
    xavier_uniform_head,
)
from headsurgeon.starts.output_starts import (
    carry,
    carry_value,
    keep_output,
    random_output,
    zero_output,
)

INITS: dict[str, Start] = {
    "xavier_uniform_head": Start(xavier_uniform_head, untrained=True),
    "xavier_normal": Start(xavier_normal, untrained=True),
    "model": Start(model, untrained=True),
    "none": Start(none),
    "qk_only": Start(qk_only, untrained=True),
    "vo_only": Start(vo_only),
    "partial_reset": Start(partial_reset, {"rho": Number(0.5, least=0.0, most=1.0)}),
    "unpin": Start(unpin, calibrated=True),
    "gradient_matched": Start(gradient_matched, calibrated=True),
    "induction": Start(induction, calibrated=True),
    "induction_gradient_matched": Start(induction_gradient_matched, calibrated=True),
    "canonical": Start(canonical, calibrated=True),
}

OUTPUT_STARTS: dict[str, Start] = {
    "zero_output": Start(zero_output),
    "keep_output": Start(keep_output),
    "random_output": Start(random_output),
    "carry": Start(carry, calibrated=True, output_bias=True),
    "carry_value": Start(carry_value, calibrated=True),
}


def choose_init(written: str) -> ChosenStart:
    """What Q, K and V become, by its name in a plan; raises as `choose_start` does."""
    return choose_start("init", written, INITS)


def looking_at_text(init: str, output_start: str) -> tuple[str, ...]:
    """The names of those of a plan's two starts that look at text before they choose weights."""
    parts = (choose_init(init), choose_output_start(output_start))
    return tuple(part.name for part in parts if part.start.calibrated)


def choose_output_start(written: str) -> ChosenStart:
    """What the output is at step 0, by its name in a plan; raises as `choose_start` does."""
    return choose_start("output_start", written, OUTPUT_STARTS)
