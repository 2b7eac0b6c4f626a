"""Peak memory above the weights: a fresh process per arm, which loads a model and does one thing.

python benchmarks/memory.py --lengths 512 2048
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from machine import use_all_cores, write

MEASURING = ("measure-ours", "measure-maps")
CASES = ("512:24", "2048:8", "512:24:head")
TRAINING = ("ours", "ours-checkpointed", "paper", "lora", "full")


def one(arm: str, length: int, layers: int, head: bool) -> dict[str, int]:
    """What this process does: peak resident size in bytes beyond that after loading.

    Two steps, because AdamW's moments exist from the end of the first one on.
    """
    import torch
    from arms import ARMS
    from measuring import with_maps
    from subject import bloom, plan, tokens

    import headsurgeon as hs

    use_all_cores()
    model = bloom(layers, head)
    batch = tokens(length)
    # libraries set their threads and workspaces up once, which is not the method's doing
    with torch.no_grad():
        model.base_model(batch[:, :16], use_cache=False)
    # making the model may have taken more than keeping it does
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    loaded = _peak()
    if arm == "measure-ours":
        hs.measure(model, batch)
    elif arm == "measure-maps":
        with torch.no_grad():
            with_maps(model, batch, head)
    else:
        step = ARMS[arm](model, plan(layers), head).step
        step(batch)
        step(batch)
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
    rows = []
    for process in wanted:
        rows.append(fresh(*process))
        # what is measured stays, should the rest be interrupted
        write("memory", {"rows": rows})


if __name__ == "__main__":
    main()
