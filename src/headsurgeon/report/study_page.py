"""A study on one page, from its result files alone: no model, no torch."""

from headsurgeon.planning.plan import Plan
from headsurgeon.report import study_before, study_charts
from headsurgeon.report import study_tables as tables
from headsurgeon.report.data import KeyFigure, Page, Section, Table
from headsurgeon.report.run_page import memory_figure
from headsurgeon.report.study_heads import heads_of_study
from headsurgeon.report.study_reported import reported
from headsurgeon.report.wording import NOT_PLANTED, PLANTED, sentence, share, shares_in_words
from headsurgeon.study.conclusion import StudyResult
from headsurgeon.study.results import PLAN, PREPARED, Prepared, folder_of, untouched
from headsurgeon.training.cost import COST, Cost

# shares that stand in a sentence; all are in a table
_SAID = 4


def study_page(result: StudyResult) -> Page:
    """The page of a study, for a browser; the terminal shows its text and tables, too."""
    results = result.results
    prepared = Prepared.load(result.folder / PREPARED)
    planted, study = prepared.planted, results.study
    documents = study_charts.documents_table(result)
    return Page(
        title=f"{study.name}: {study.model}",
        lead=tuple(_answers(result)),
        notice=PLANTED if planted else NOT_PLANTED,
        figures=_figures(result),
        heads=heads_of_study(result),
        sections=(
            Section(
                "What it came to",
                charts=study_charts.of_questions(result, planted),
                tables=_conclusions(result),
            ),
            Section(
                "Before anything is changed",
                text=(study.about,) if study.about else (),
                tables=(
                    study_before.verdicts(study_before.diagnoses_of(results)),
                    study_before.ablating(results),
                ),
            ),
            *(
                Section(
                    f"Trained on {text}",
                    charts=study_charts.of_text(result, text, planted),
                    tables=_per_text(result, text),
                )
                for text in study.train_on
            ),
            Section(
                "Single documents",
                charts=study_charts.of_documents(result),
                tables=() if documents is None else (documents,),
                folded=True,
            ),
            *([Section("Beside the paper", tables=(reported(results),))] if study.reported else []),
            Section(
                "What changed in heads nobody touched",
                charts=tuple(
                    chart
                    for text in study.train_on
                    for chart in study_charts.of_untouched_heads(result, text)
                ),
                tables=tuple(tables.transitions(results, text, text) for text in study.train_on),
                folded=True,
            ),
            Section("Training", tables=(tables.training(results),), folded=True),
            Section(
                "The plan",
                tables=(tables.planned(Plan.load(result.folder / PLAN)),),
                folded=True,
            ),
            Section("The arms", tables=(_arms(result),), folded=True),
        ),
        facts=_facts(result, prepared),
        command="headsurgeon study study.yaml --output DIR",
    )


def _figures(result: StudyResult) -> tuple[KeyFigure, ...]:
    """The numbers at the top: size, what was operated on, what came of it, and what it cost."""
    results = result.results
    stock = untouched(results)
    shape = next(iter(stock.heads.values())).mass().shape
    trained = [cell for cell in results.cells if cell.trained is not None]
    found = [
        KeyFigure(
            f"{len(stock.operated)} of {shape[0] * shape[1]}",
            "heads operated on",
            f"{shape[0]} layers × {shape[1]} heads",
        )
    ]
    for each in result.shares[:2]:
        if each.value is not None:
            said, _, interval = share(each).partition(" [")
            found.append(KeyFigure(said, f"recovered, {each.arm}", f"[{interval}"))
    if trained:
        tokens = [c.trained.tokens + c.trained.calibration_tokens for c in trained if c.trained]
        seconds = sum(cell.seconds for cell in results.cells)
        found += [
            KeyFigure(f"{max(tokens):,}", "tokens per arm", f"{sum(tokens):,} in all"),
            KeyFigure(f"{seconds / 60:.0f}", "minutes of computing", f"{len(results.cells)} cells"),
        ]
    places = [folder_of(result.folder, cell.cell) / COST for cell in trained]
    costs = [Cost.load(place) for place in places if place.is_file()]
    if costs:
        peak = max(costs, key=lambda cost: cost.peak_bytes)
        found.append(memory_figure(peak))
    return tuple(found)


def _facts(result: StudyResult, prepared: Prepared) -> dict[str, str]:
    study = result.results.study
    windows = study.windows
    return {
        **prepared.versions,
        "device": prepared.device,
        "weights (SHA-256)": prepared.model,
        **({"weights of the twin (SHA-256)": prepared.twin} if prepared.twin else {}),
        "plan (SHA-256)": prepared.plan,
        **{f"test windows of {text}": sha for text, sha in prepared.windows.items()},
        "windows": f"{windows.length} tokens, {windows.test} of test, seed {windows.seed}",
        "seeds": ", ".join(map(str, study.seeds)),
        "training": ", ".join(f"{name} {value}" for name, value in study.train.items()),
        "every figure": "study.json and cells/*/cell.json",
    }


def _answers(result: StudyResult) -> list[str]:
    """The answers, one sentence each, and what is not known yet."""
    sentences = [sentence(each) for each in result.decisions]
    known = shares_in_words(result.shares[:_SAID], result.results.study)
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
    return (
        *found,
        *((tables.shares(result.shares, result.results.study),) if result.shares else ()),
    )


def _per_text(result: StudyResult, trained_on: str) -> tuple[Table, ...]:
    """The tables of the arms trained on one text."""
    names = [text.name for text in result.results.study.texts]
    ordered = [trained_on, *(name for name in names if name != trained_on)]
    scored = [tables.losses(result.results, trained_on, name) for name in ordered]
    return (*scored, tables.recovered(result.results, trained_on))


def _arms(result: StudyResult) -> Table:
    rows = tuple((arm.name, arm.about) for arm in result.results.study.every_arm)
    return Table("arms", "Arms", ("arm", "what it is"), rows, align=("left", "left"))
