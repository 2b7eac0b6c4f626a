"""What a benchmark ran on, and how its results are written."""

import datetime
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from headsurgeon import files

RESULTS = Path(__file__).parent / "results"
SEED = 0


def machine() -> dict[str, Any]:
    """Processor, cores, memory and versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def use_all_cores() -> None:
    """One thread per core, whatever the environment says, and a fixed seed."""
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(SEED)


def write(name: str, content: dict[str, Any]) -> None:
    """Writes `results/NAME.json`, saying where and when it was measured."""
    complete = {
        **files.header("benchmark"),
        "command": " ".join(["python", *(Path(word).name for word in sys.argv[:1]), *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seed": SEED,
        "machine": machine(),
        **content,
    }
    RESULTS.mkdir(exist_ok=True)
    files.write_json(RESULTS / f"{name}.json", complete)


def _processor() -> str:
    """Name of the processor, with its model number where the name is not one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(
        (part.strip() for part in line.split(":", 1)) for line in reversed(lines) if ":" in line
    )
    name = facts.get("model name", platform.machine())
    return f"{name}, family {facts.get('cpu family')}, model {facts.get('model')}"
