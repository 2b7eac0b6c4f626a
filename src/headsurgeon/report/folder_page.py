"""The page of whatever lies in one or several folders: their kind is told by their files."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from headsurgeon.arguments import checked
from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.diagnosis.series import HeadSeries
from headsurgeon.errors import InputError
from headsurgeon.evaluation.completions import Generation
from headsurgeon.files import read_json, shorten
from headsurgeon.passes.result import PASSES
from headsurgeon.planning.plan import Plan
from headsurgeon.report import diagnosis_page, generation_page, passes_page
from headsurgeon.report.data import Page
from headsurgeon.report.material import distinct_names
from headsurgeon.report.page import write_page
from headsurgeon.report.run_page import run_page
from headsurgeon.report.runs_section import side_by_side
from headsurgeon.report.study_page import study_page
from headsurgeon.study.conclusion import conclude
from headsurgeon.study.results import PREPARED, STUDY
from headsurgeon.training.run_file import RUN_NAME

PAGE = "report.html"
# folders on one page; more are a study
_MOST = 12
PLAN, DIAGNOSIS, SERIES = "plan.yaml", "diagnosis.json", "series.jsonl"
COMPARISON, GENERATION = "comparison.json", "generation.json"


@checked
def write_report(*folders: Path | str, output: Path | str | None = None) -> Path:
    """Writes one page that stands alone, of a run, a study, a diagnosis, …, or of several.

    Whatever else such a folder derives from its files (a study's `study.json`) is written again.

    Args:
        folders: what `operate`, `study`, `demo`, `diagnose`, `compare`, `plan`, `generate` or a
            monitor wrote: folders, or a plan, a diagnosis or a series itself.
        output: the page; by default `report.html` in the first folder.

    Returns:
        The path of the page.

    Raises:
        InputError: a folder holds nothing that is known, or one of its files is damaged.
        StudyError: it holds a study that cannot be read.
        WriteError: the page could not be written.
    """
    if not 1 <= len(folders) <= _MOST:
        raise InputError(f"expected 1 to {_MOST} folders, got {len(folders)}")
    paths = [Path(folder) for folder in folders]
    first = paths[0].parent if _there(paths[0]) else paths[0]
    return write_page(page_of(paths), first / PAGE if output is None else output)


def page_of(folders: Sequence[Path]) -> Page:
    """The page of one or several folders; raises as `write_report`."""
    pages = [_of_one(folder) for folder in folders]
    if len(pages) == 1:
        return pages[0]
    names = distinct_names(folders)
    section = side_by_side([folder for folder in folders if _there(folder / RUN_NAME)])
    return Page(
        title=f"{len(pages)} results: {', '.join(names)}",
        lead=tuple(
            f"{name}: {said}" for name, page in zip(names, pages, strict=True) for said in page.lead
        ),
        notice=" ".join(dict.fromkeys(page.notice for page in pages if page.notice)),
        figures=tuple(
            replace(figure, label=f"{name}: {figure.label}")
            for name, page in zip(names, pages, strict=True)
            for figure in page.figures[:2]
        ),
        heads=tuple(
            replace(heads, name=f"{name}: {heads.name}" if heads.name != name else name)
            for name, page in zip(names, pages, strict=True)
            for heads in page.heads
        ),
        sections=(
            *section,
            *(
                replace(part, title=f"{name}: {part.title}", folded=True)
                for name, page in zip(names, pages, strict=True)
                for part in page.sections
            ),
        ),
        facts={
            f"{name}: {key}": value
            for name, page in zip(names, pages, strict=True)
            for key, value in page.facts.items()
        },
        command="\n".join(dict.fromkeys(page.command for page in pages if page.command)),
    )


def _of_one(folder: Path) -> Page:
    if _there(folder):
        return _of_file(folder)
    kinds: dict[str, Callable[[Path], Page]] = {
        STUDY: _of_study,
        PASSES: passes_page.page,
        RUN_NAME: run_page,
        COMPARISON: diagnosis_page.of_comparison,
        GENERATION: lambda path: generation_page.page(Generation.load(path / GENERATION)),
        DIAGNOSIS: diagnosis_page.of_folder,
        SERIES: lambda path: _of_series(path / SERIES),
        PLAN: lambda path: diagnosis_page.of_plan(Plan.load(path / PLAN)),
    }
    for name, page in kinds.items():
        if _there(folder / name):
            return page(folder)
    raise InputError(
        f"{shorten(str(folder), 300)}: expected a folder that holds one of {', '.join(kinds)}, or "
        "a plan, a diagnosis or a series"
    )


def _there(path: Path) -> bool:
    """Whether it is a file; a name that the system cannot have is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _of_file(path: Path) -> Page:
    if path.suffix in (".yaml", ".yml"):
        return diagnosis_page.of_plan(Plan.load(path))
    if path.suffix == ".jsonl":
        return _of_series(path)
    read_json(path, Diagnosis.kind)
    return diagnosis_page.page(Diagnosis.load(path))


def _of_study(folder: Path) -> Page:
    if not (folder / PREPARED).is_file():
        raise InputError(f"{folder}: the study has not been prepared; run it first")
    return study_page(conclude(folder))


def _of_series(path: Path) -> Page:
    return diagnosis_page.of_series(HeadSeries.load(path))
