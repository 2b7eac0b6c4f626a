"""Where and in which precision a model runs."""

import torch

from headsurgeon.errors import SettingsError

DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def short_name(dtype: torch.dtype) -> str | None:
    """What options call a precision; None where they do not."""
    return next((name for name, each in DTYPES.items() if each == dtype), None)


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        SettingsError: no such device on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(name)
        # one without memory, such as meta, has no values to give back
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        known = ["cpu"]
        known += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        known += ["mps"] if torch.backends.mps.is_available() else []
        raise SettingsError(
            f"device {name[:80]!r} cannot be used on this machine, which has {', '.join(known)}"
        ) from error
    return device


def pick_dtype(name: str) -> torch.dtype:
    """The dtype of that name, such as `bf16` or `bfloat16`.

    Raises:
        SettingsError: not one of fp32, bf16, fp16.
    """
    for short, dtype in DTYPES.items():
        if name in (short, str(dtype).removeprefix("torch.")):
            return dtype
    raise SettingsError(f"expected a dtype of {', '.join(DTYPES)}, got {name!r}")
