"""Trains, measures and exports the pair of miniature BLOOMs that ships with the package.

    python zoo/train_twins.py tokenizer
    python zoo/train_twins.py train --twin healthy
    python zoo/train_twins.py train --twin collapsed --stop-after 1000     (run again to resume)
    python zoo/train_twins.py train --twin healthy-second-seed
    python zoo/train_twins.py card

Everything is kept in `--work` (default `runs/zoo`). Training uses one thread and can be stopped
with Ctrl-C or `--stop-after`; the next call resumes from the last checkpoint and ends the same.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from recipe import TWINS, Recipe


def main() -> None:
    """Reads the command line and runs one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, default=Path("runs/zoo"), help="folder of all files")
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("tokenizer", help="train the tokenizer on the train split")
    training = parts.add_parser("train", help="train one twin, or resume it")
    training.add_argument("--twin", choices=sorted(TWINS), required=True)
    training.add_argument("--output", type=Path, help="folder of the run; default WORK/TWIN")
    training.add_argument("--stop-after", type=int, help="stop when so many steps are done in all")
    training.add_argument("--steps", type=int, help="another number of steps, for experiments")
    training.add_argument("--planting-steps", type=int, help="another number, for experiments")
    training.add_argument("--planting-weight", type=float, help="another weight, for experiments")
    training.add_argument("--learning-rate", type=float, help="another rate, for experiments")
    training.add_argument("--planted-heads", help="other heads, such as 3,4,5,6,7")
    card = parts.add_parser("card", help="measure the pair, write its cards, export it")
    card.add_argument("--export", type=Path, default=Path("src/headsurgeon/models/zoo"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # a collapsed head's other probabilities are denormal numbers, many times slower on a CPU
    torch.set_flush_denormal(True)
    if arguments.part == "tokenizer":
        from text import train_tokenizer

        tokenizer = train_tokenizer(Recipe(), arguments.work / "tokenizer")
        print(f"{len(tokenizer)} tokens in {arguments.work / 'tokenizer'}")
    elif arguments.part == "train":
        from train import train

        folder = arguments.output or arguments.work / arguments.twin
        try:
            train(
                _recipe(arguments),
                TWINS[arguments.twin],
                folder,
                arguments.work,
                arguments.stop_after,
                lambda line: print(line, flush=True),
            )
        except KeyboardInterrupt:
            print(f"stopped; the same command resumes from the last checkpoint in {folder}")
    else:
        from card import export

        export(Recipe(), arguments.work, arguments.export)


def _recipe(arguments: argparse.Namespace) -> Recipe:
    changed = {
        name: value
        for name in ("steps", "planting_steps", "planting_weight", "learning_rate")
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.planted_heads:
        changed["planted_heads"] = tuple(int(head) for head in arguments.planted_heads.split(","))
    return replace(Recipe(), **changed)


if __name__ == "__main__":
    main()
