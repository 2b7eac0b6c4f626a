"""Peak memory above the weights: a fresh process per arm, which loads a model and does one thing.

python benchmarks/memory.py --lengths 512 2048
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import keep, use_all_cores
from torch import Tensor
from transformers import PreTrainedModel

MEASURING = ("measure-ours", "measure-maps")
CASES = ("512:24", "2048:8", "512:24:head")
TRAINING = ("ours", "ours-checkpointed", "paper", "lora", "full")


def one(arm: str, length: int, layers: int, head: bool) -> dict[str, int]:
    """What this process does: peak resident size in bytes beyond that after loading.

    Two steps, because AdamW's moments exist from the end of the first one on.
    """
    from arms import ARMS
    from measuring import with_maps
    from subject import bloom, plan, tokens

    import headsurgeon as hs

    use_all_cores()
    model = bloom(layers, head)
    batch = tokens(length)

    def measured() -> None:
        if arm == "measure-ours":
            hs.measure(model, batch)
        elif arm == "measure-maps":
            with torch.no_grad():
                with_maps(model, batch, head)
        else:
            step = ARMS[arm](model, plan(layers), head).step
            step(batch)
            step(batch)

    return peak_beyond(model, batch, measured)


def peak_beyond(model: PreTrainedModel, batch: Tensor, run: Callable[[], None]) -> dict[str, int]:
    """Resident size with the model loaded, and how far beyond it `run` gets, in bytes."""
    # libraries set their threads and workspaces up once, which is not the method's doing
    with torch.no_grad():
        model.base_model(batch[:, :16], use_cache=False)
    # making the model may have taken more than keeping it does
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    loaded = _peak()
    run()
    return {"loaded": loaded, "above": _peak() - loaded}


def fresh(arm: str, length: int, layers: int, head: bool) -> dict[str, Any]:
    """Runs `one` in a process of its own."""
    words = [sys.executable, __file__, "--one", arm, str(length), str(layers), str(int(head))]
    output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    found = json.loads(output.strip().splitlines()[-1])
    return {"arm": arm, "length": length, "layers": layers, "head": head, **found}


def _peak() -> int:
    """Highest resident size since it was last reset, from Linux's own record."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--one", nargs=4, metavar=("ARM", "LENGTH", "LAYERS", "HEAD"))
    parser.add_argument("--measure", nargs="+", type=int, default=[512, 2048, 4096])
    parser.add_argument("--measure-layers", type=int, default=8)
    parser.add_argument(
        "--case",
        action="append",
        metavar="LENGTH:LAYERS[:head]",
        help="shapes of the training steps; all of the published ones by default",
    )
    options = parser.parse_args()
    if options.one:
        arm, length, layers, head = options.one
        print(json.dumps(one(arm, int(length), int(layers), head == "1")))
        return
    wanted = [
        (arm, length, options.measure_layers, False)
        for length in options.measure
        for arm in MEASURING
    ]
    shapes = [text.split(":") for text in options.case or CASES]
    wanted += [
        (arm, int(length), int(layers), bool(head))
        for arm in TRAINING
        for length, layers, *head in shapes
    ]
    for process in wanted:
        keep("memory", fresh(*process), ("arm", "length", "layers", "head"))


if __name__ == "__main__":
    main()
