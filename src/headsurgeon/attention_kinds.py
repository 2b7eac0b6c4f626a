"""The words for attention: which is asked for, and which one ran. Results name the latter.

Asked for:

- `stock`: the model's own forward;
- `fast`: without attention maps, equal to it up to rounding;
- `auto`: `fast` where there is such attention, `stock` elsewhere and for figures in 16 bit.

What ran:

- `stock`: the model's own forward;
- `blocks`: the same, with statistics taken beside it in blocks of queries;
- `tiles`: fast, in tiles of scores that fit a processor's cache (fp32 on a CPU);
- `kernel`: fast, by one of PyTorch's fused kernels.
"""

from typing import Literal, get_args

from headsurgeon.errors import SettingsError

AttentionChoice = Literal["auto", "stock", "fast"]
AttentionRan = Literal["stock", "blocks", "tiles", "kernel"]

# of transformers' own implementations, those that hand over queries, keys and the mask
STOCK = ("eager", "sdpa")
FUSED_IS_FAST = "what was called 'fused' is now called 'fast'; ask for that"
_EARLIER_IN_DIAGNOSES = {"blocked": "blocks", "tiled": "tiles", "fused": "kernel"}


def check_choice(attention: str) -> None:
    """Raises `SettingsError` where `attention` is no `AttentionChoice`."""
    if attention == "fused":
        raise SettingsError(f"attention: {FUSED_IS_FAST}")
    if attention not in get_args(AttentionChoice):
        known = ", ".join(get_args(AttentionChoice))
        raise SettingsError(f"expected attention to be one of {known}, got {attention!r}")


def ran_in_diagnosis(name: object) -> object:
    """What a diagnosis says ran, by its name of today where an earlier version wrote the file."""
    return _EARLIER_IN_DIAGNOSES.get(name, name) if isinstance(name, str) else name
