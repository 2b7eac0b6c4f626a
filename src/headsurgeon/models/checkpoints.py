"""Checkpoints of one training run: which there are, and the step that each is of."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headsurgeon.errors import ModelError, SettingsError
from headsurgeon.models.address import Address, located
from headsurgeon.models.subfolders import CONFIG

# how the Trainer of transformers names what it saves on the way
STEP = re.compile(r"checkpoint-([0-9]+)")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a run.

    Attributes:
        spec: what `headsurgeon.load` takes.
        label: what tells it from the others: the name of its folder, its revision or subfolder.
        step: the number in its label; where the labels have none, its place in the series.
    """

    spec: str
    label: str
    step: int


def checkpoints_of(models: Sequence[str], revisions: Sequence[str] = ()) -> tuple[Checkpoint, ...]:
    """The checkpoints that are meant, in the order of their steps.

    One folder stands for the `checkpoint-N` in it (what lies beside these, such as the model that
    was saved at the end, is not part of the series). Labels that differ in one number, as in
    `step1000` and `step2000`, give the steps; others stay in the order in which they were given.

    Args:
        models: checkpoints, or one output folder of a Trainer, or one Hub id with `revisions`.
        revisions: of the one model.

    Raises:
        SettingsError: revisions of several models, or fewer than two checkpoints.
        ModelError: a folder without checkpoints.
    """
    if revisions and len(models) != 1:
        raise SettingsError(f"--revisions are of one model; {len(models)} were named")
    specs = [located(models[0], revision) for revision in revisions] or _saved(models)
    if len(specs) < 2:
        raise SettingsError(
            f"a series takes two checkpoints or more, got {', '.join(specs)}; name several, a "
            "folder with checkpoint-N in it, or --revisions A,B"
        )
    labels = [_label(spec) for spec in specs]
    if len(set(labels)) < len(labels):
        labels = list(specs)
    steps = steps_in(labels)
    checkpoints = [
        Checkpoint(spec, label, place if steps is None else steps[place])
        for place, (spec, label) in enumerate(zip(specs, labels, strict=True))
    ]
    return tuple(sorted(checkpoints, key=lambda checkpoint: checkpoint.step))


def steps_in(labels: Sequence[str]) -> list[int] | None:
    """The numbers in which labels differ; None where they differ otherwise, or not all of them."""
    parts = [re.split(r"([0-9]{1,15})", label) for label in labels]
    for place in range(min(map(len, parts))):
        pieces = [part[place] for part in parts]
        if len(set(pieces)) == 1:
            continue
        if place % 2 == 0 or len({int(number) for number in pieces}) < len(pieces):
            return None
        return [int(number) for number in pieces]
    return None


def _saved(models: Sequence[str]) -> list[str]:
    """The models; instead of a single one that is a folder with checkpoints in it, these."""
    folder = Path(os.path.expanduser(models[0]))
    if len(models) > 1 or not folder.is_dir():
        return list(models)
    numbers = sorted(
        int(step[1])
        for path in folder.iterdir()
        if (step := STEP.fullmatch(path.name)) and (path / CONFIG).is_file()
    )
    if not numbers:
        raise ModelError(f"{models[0]}: expected folders checkpoint-N with a {CONFIG} in it")
    return [str(Path(models[0]) / f"checkpoint-{number}") for number in numbers]


def _label(spec: str) -> str:
    if Path(os.path.expanduser(spec)).is_dir():
        return Path(os.path.expanduser(spec)).resolve().name
    address = Address.parse(spec)
    return address.subfolder or address.revision or address.repository
