"""What there is to draw in a folder of results: diagnoses, changes of heads, losses. No torch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.errors import InputError
from headsurgeon.evaluation.redistribution import Redistribution
from headsurgeon.evaluation.sweep import Sweep
from headsurgeon.study.results import (
    PREPARED,
    STUDY,
    Prepared,
    cells_of,
    diagnosis_file,
    folder_of,
)
from headsurgeon.study.spec import Study
from headsurgeon.training.recorded import redistribution, sweep

_DIAGNOSIS, _RUN = "diagnosis.json", "run.json"
_REDISTRIBUTION, _SWEEP = "redistribution.json", "sweep.json"


@dataclass(frozen=True, eq=False)
class Material:
    """What figures are drawn from.

    Attributes:
        diagnoses: of models that nothing was done to.
        changes: of every run, where attention went; `run` is its name.
        losses: of every run; of the same names.
        lacking: what could not be read of a run, in words.
        planted: models of which a study knows that their collapse was planted.
    """

    diagnoses: tuple[Diagnosis, ...] = ()
    changes: tuple[Redistribution, ...] = ()
    losses: tuple[Sweep, ...] = ()
    lacking: tuple[str, ...] = ()
    planted: frozenset[str] = frozenset()

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of all runs, in order."""
        names = [each.run for each in self.losses] + [each.run for each in self.changes]
        return tuple(dict.fromkeys(names))

    @property
    def models(self) -> tuple[str, ...]:
        """The models that anything here is of."""
        names = [each.stats.provenance.model for each in self.diagnoses]
        names += [each.model for each in self.changes]
        names += [each.model for each in self.losses]
        return tuple(dict.fromkeys(names))

    def of_runs(self, names: Iterable[str]) -> "Material":
        """The same of some runs alone, in the order named.

        Raises:
            InputError: no such run; lists those that there are.
        """
        names = tuple(names)
        unknown = [name for name in names if name not in self.runs]
        if unknown:
            raise InputError(
                f"no run {', '.join(unknown)}; there are {', '.join(self.runs) or 'none'}"
            )
        return replace(
            self,
            changes=tuple(each for name in names for each in self.changes if each.run == name),
            losses=tuple(each for name in names for each in self.losses if each.run == name),
        )


def read_material(folders: Sequence[Path]) -> Material:
    """What lies in the folders of runs, diagnoses, comparisons, passes, studies, and `dynamics`.

    Args:
        folders: at least one. A run is called by its folder's name, and by those of the folders
            above, too, where two would have the same.

    Raises:
        InputError: nothing of the kind lies in one of them, or it is damaged.
    """
    diagnoses: list[Diagnosis] = []
    runs: list[Path] = []
    for folder in folders:
        measured, trained = list(_diagnoses(folder)), list(_runs(folder))
        if not measured and not trained:
            raise InputError(
                f"{folder}: there is nothing to draw (neither a run, a diagnosis, a comparison, "
                "passes, a study nor what dynamics wrote); name a folder that a command of "
                "headsurgeon wrote"
            )
        diagnoses += measured
        runs += trained
    changes, losses, lacking = [], [], []
    for place, name in zip(runs, distinct_names(runs), strict=True):
        try:
            losses += [each.replace(run=name) for each in _losses(place)]
            changes += [each.replace(run=name) for each in _changes(place)]
        except InputError as error:
            lacking.append(str(error))
    planted = frozenset(model for folder in folders for model in _planted(folder))
    return Material(tuple(diagnoses), tuple(changes), tuple(losses), tuple(lacking), planted)


def _planted(folder: Path) -> Iterator[str]:
    if (folder / PREPARED).is_file() and Prepared.load(folder / PREPARED).planted:
        yield Study.load(folder / STUDY).model


def _diagnoses(folder: Path) -> Iterator[Diagnosis]:
    if (folder / STUDY).is_file():
        for text in Study.load(folder / STUDY).diagnosed:
            if diagnosis_file(folder, text).is_file():
                yield Diagnosis.load(diagnosis_file(folder, text))
        return
    # one model's, or a comparison's with a folder for each
    for path in (folder / _DIAGNOSIS, *sorted(folder.glob(f"*/{_DIAGNOSIS}"))):
        # those of passes are of models that were operated on
        if path.is_file() and not (path.parent / _RUN).exists():
            yield Diagnosis.load(path)


def _runs(folder: Path) -> Iterator[Path]:
    """A study's trained cells, or the folder itself, those of passes, what `dynamics` wrote."""
    if (folder / STUDY).is_file():
        # in the order of the arms
        places = [folder_of(folder, cell) for cell in cells_of(Study.load(folder / STUDY))]
    else:
        places = [folder, *sorted(folder.glob("*/"))]
    for place in places:
        if any((place / name).is_file() for name in (_RUN, _SWEEP, _REDISTRIBUTION)):
            yield place


def _losses(place: Path) -> Iterator[Sweep]:
    if (place / _SWEEP).is_file():
        yield Sweep.load(place / _SWEEP)
    elif (place / _RUN).is_file():
        yield sweep(place)


def _changes(place: Path) -> Iterator[Redistribution]:
    if (place / _REDISTRIBUTION).is_file():
        yield Redistribution.load(place / _REDISTRIBUTION)
    elif (place / _RUN).is_file():
        yield redistribution(place)


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or as much of it as tells them all apart."""
    resolved = [folder.resolve() for folder in folders]
    for parts in range(1, max((len(path.parts) for path in resolved), default=0) + 1):
        names = ["/".join(path.parts[-parts:]) for path in resolved]
        if len(set(names)) == len(names):
            return names
    return [f"{path.name} ({number})" for number, path in enumerate(resolved, 1)]
