"""A study on one page, from its result files alone: no model, no torch."""

from pathlib import Path

from headsurgeon.arguments import checked
from headsurgeon.planning.plan import Plan
from headsurgeon.printable import printable
from headsurgeon.report import study_before
from headsurgeon.report import study_tables as tables
from headsurgeon.report.data import Page, Section, Table
from headsurgeon.report.page import write_page
from headsurgeon.report.study_figures import draw
from headsurgeon.report.study_reported import reported
from headsurgeon.report.wording import NOT_PLANTED, PLANTED, sentence, shares_in_words
from headsurgeon.study.conclusion import StudyResult, conclude
from headsurgeon.study.results import PLAN, PREPARED, Prepared

PAGE = "study.html"
FIGURES = "figures"


@checked
def write_report(folder: Path | str) -> Path:
    """Rewrites `study.json`, `study.html` and `figures/` of a study, finished or not.

    Raises:
        StudyError: no study lies there.
        InputError: it has not been prepared, or one of its files is damaged.
        WriteError: a file could not be written.
    """
    result = conclude(folder)
    return write_page(study_page(result), result.folder / PAGE)


def study_page(result: StudyResult) -> Page:
    """The page of a study, for a browser; the terminal shows its text and tables, too.

    Its pictures are written to `figures/` beside it.
    """
    prepared = Prepared.load(result.folder / PREPARED)
    planted = prepared.planted
    pictures = draw(result, result.folder / FIGURES, planted)
    study = result.results.study
    return Page(
        title=f"{study.name}: {printable(study.model)}",
        lead=tuple(_answers(result)),
        notice=PLANTED if planted else NOT_PLANTED,
        sections=(
            Section(
                "Before anything is changed",
                text=(study.about,) if study.about else (),
                tables=(
                    study_before.verdicts(study_before.diagnoses_of(result.results)),
                    study_before.ablating(result.results),
                ),
            ),
            *(
                Section(
                    f"Trained on {text}",
                    tables=_per_text(result, text),
                    pictures=tuple(
                        pictures[f"{kind}_{text}"]
                        for kind in ("head_map", "mass", "loss")
                        if f"{kind}_{text}" in pictures
                    ),
                )
                for text in study.train_on
            ),
            Section(
                "What it came to",
                tables=_conclusions(result),
                pictures=tuple(
                    pictures[name] for name in ("shares", "decisions") if name in pictures
                ),
            ),
            *(
                [Section("Beside the paper", tables=(reported(result.results),))]
                if study.reported
                else []
            ),
            Section("Training", tables=(tables.training(result.results),), folded=True),
            Section(
                "The plan",
                tables=(tables.planned(Plan.load(result.folder / PLAN)),),
                folded=True,
            ),
            Section("The arms", tables=(_arms(result),), folded=True),
        ),
        facts={
            **prepared.versions,
            "device": prepared.device,
            "seeds": ", ".join(map(str, study.seeds)),
            "every figure": "study.json and cells/*/cell.json",
        },
    )


def _answers(result: StudyResult) -> list[str]:
    """The answers, one sentence each, and what is not known yet."""
    sentences = [sentence(each) for each in result.decisions]
    known = shares_in_words(result.shares)
    sentences += [known] if known else []
    missing, failed = result.results.missing, result.results.failed
    if missing:
        names = ", ".join(map(str, missing))
        sentences.append(f"NOT finished: {len(missing)} cells are missing ({names}).")
    if failed:
        reasons = "; ".join(f"{cell.cell}: {cell.failure.splitlines()[-1]}" for cell in failed)
        sentences.append(f"{len(failed)} cells FAILED and are left out: {reasons}")
    return sentences


def _conclusions(result: StudyResult) -> tuple[Table, ...]:
    """The tables of the questions."""
    found = (tables.decided(result.decisions),) if result.decisions else ()
    return (*found, *((tables.shares(result.shares),) if result.shares else ()))


def _per_text(result: StudyResult, trained_on: str) -> tuple[Table, ...]:
    """The tables of the arms trained on one text."""
    names = [text.name for text in result.results.study.texts]
    ordered = [trained_on, *(name for name in names if name != trained_on)]
    scored = [tables.losses(result.results, trained_on, name) for name in ordered]
    return (*scored, tables.recovered(result.results, trained_on))


def _arms(result: StudyResult) -> Table:
    rows = tuple((arm.name, arm.about) for arm in result.results.study.every_arm)
    return Table("arms", "Arms", ("arm", "what it is"), rows, align=("left", "left"))
