"""How long the package and its command take to start, beyond Python itself."""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from machine import write
from timing import alternate

COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "import": [sys.executable, "-c", "import headsurgeon"],
    "help": [str(Path(sys.executable).with_name("headsurgeon")), "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    arms = {
        name: lambda words=words: subprocess.run(words, check=True, capture_output=True)
        for name, words in COMMANDS.items()
    }
    seconds = alternate(arms, options.rounds)
    beyond = {}
    for name in ("import", "help"):
        differences = [one - own for one, own in zip(seconds[name], seconds["python"], strict=True)]
        beyond[name] = {
            "median": statistics.median(differences),
            "low": min(differences),
            "high": max(differences),
            "rounds": options.rounds,
        }
    write("startup", {"python_seconds": statistics.median(seconds["python"]), "beyond": beyond})


if __name__ == "__main__":
    main()
