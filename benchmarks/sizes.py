"""What slices cost to keep: optimiser state and patch files, per slice parameter."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from arms import ours
from machine import use_all_cores, write
from subject import bloom, plan, tokens

from headsurgeon import operate

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def optimiser_state(layers: int) -> dict[str, Any]:
    """Bytes of AdamW's state after one step, the step counters apart."""
    arm = ours(bloom(layers, head=False), plan(layers), head=False)
    arm.step(tokens(16))
    moments = counters = 0
    for state in arm.optimizer.state.values():
        for name, value in state.items():
            size = value.numel() * value.element_size()
            moments, counters = (
                (moments, counters + size) if name == "step" else (moments + size, counters)
            )
    return {
        "slice_parameters": arm.trainable,
        "tensors": len(arm.optimizer.state),
        "moment_bytes_per_parameter": moments / arm.trainable,
        "counter_bytes": counters,
    }


def patches(layers: int) -> dict[str, float]:
    """Bytes of a patch file per slice parameter, header included."""
    patient = operate(bloom(layers, head=False), plan(layers))
    count = patient.change().parameters
    with tempfile.TemporaryDirectory() as folder:
        return {
            name: patient.save(Path(folder) / f"{name}.safetensors", dtype).stat().st_size / count
            for name, dtype in DTYPES.items()
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=24)
    options = parser.parse_args()
    use_all_cores()
    content = {"layers": options.layers, "optimiser": optimiser_state(options.layers)}
    write("sizes", {**content, "patch_bytes_per_parameter": patches(options.layers)})


if __name__ == "__main__":
    main()
