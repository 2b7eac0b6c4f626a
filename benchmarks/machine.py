"""What a benchmark ran on, and how its results are written."""

import datetime
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from headsurgeon import files

RESULTS = Path(__file__).parent / "results"
SEED = 0
# ends with the process that started it, however that ends
_SPIN = """
import os
parent = os.getppid()
while os.getppid() == parent:
    sum(range(100_000))
"""


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


@contextmanager
def busy_cores(busy: bool = True) -> Iterator[None]:
    """While open, one process that only counts runs for each core; nothing unless `busy`."""
    count = (os.cpu_count() or 1) if busy else 0
    others = [subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def results_file() -> Path:
    """Where the results of this kind of processor are kept."""
    return RESULTS / f"{re.sub('[^a-z0-9]+', '-', _processor().lower()).strip('-')}.json"


def results() -> dict[str, Any]:
    """Every part that this kind of processor has results of."""
    path = results_file()
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def write(name: str, content: dict[str, Any]) -> None:
    """Writes part NAME of `results/PROCESSOR.json`, saying where and when it was measured."""
    complete = {
        **files.header("benchmark"),
        "command": " ".join(["python", *(Path(word).name for word in sys.argv[:1]), *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seed": SEED,
        "machine": machine(),
        **content,
    }
    RESULTS.mkdir(exist_ok=True)
    files.write_json(results_file(), {**results(), name: complete})


def keep(name: str, row: dict[str, Any], marks: tuple[str, ...]) -> None:
    """Puts a row into part NAME, in place of the one with the same marks; no row spans two runs."""
    rows = results().get(name, {}).get("rows", [])
    others = [other for other in rows if any(other[mark] != row[mark] for mark in marks)]
    write(name, {"rows": [*others, row]})


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
