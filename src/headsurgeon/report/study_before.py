"""What was known of a study's model before anything was changed: verdicts, and what heads do."""

from collections.abc import Mapping

import numpy as np

from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.report.data import Table
from headsurgeon.report.study_tables import windows_of
from headsurgeon.report.wording import estimated
from headsurgeon.scores import Estimate, difference
from headsurgeon.study.parts import UNTOUCHED
from headsurgeon.study.results import CellResult, StudyResults, diagnosis_file, untouched


def verdicts(diagnoses: Mapping[str, Diagnosis]) -> Table:
    """Heads per verdict on each text diagnosed, with the null and the sick heads' masses below."""
    first = next(iter(diagnoses.values()))
    rows = [
        (verdict, *(str(each.counts[verdict]) for each in diagnoses.values()))
        for verdict in first.counts
    ]
    rows.append(
        ("borderline among them", *(str(int(each.borderline.sum())) for each in diagnoses.values()))
    )
    rows.append(("sick: sink or dead", *(str(len(each.sick)) for each in diagnoses.values())))
    return Table(
        "verdicts",
        "Verdicts on dev text, before anything is changed",
        ("verdict", *diagnoses),
        tuple(rows),
        " ".join(f"On {text} an {_masses(each)}." for text, each in diagnoses.items()),
    )


def ablating(results: StudyResults) -> Table:
    """What ablating heads costs the untouched model, on the test windows of every text."""
    texts = [text.name for text in results.study.texts]
    stock = untouched(results)
    columns = {
        "loss": tuple(_loss(stock.scored[name].evaluation(UNTOUCHED).interval()) for name in texts)
    }
    heads = len(stock.operated)
    for mode in ("zero", "mean"):
        columns[f"{heads} planned, {mode}"] = _costs(stock, stock, mode, texts)
    for cell in results.of("ablate_sick"):
        if cell.operated != stock.operated:
            sick = f"all {len(cell.operated)} sick, zero"
            columns[sick] = _costs(cell, stock, None, texts)
    return Table(
        "ablating",
        "What ablating heads costs the untouched model (nats per token)",
        ("text", *columns),
        tuple(zip(texts, *columns.values(), strict=True)),
        f"{windows_of(stock.scored[texts[0]].evaluation(UNTOUCHED))}; 95 % intervals over "
        "documents, differences paired. Zero: their output removed; mean: replaced by its average.",
    )


def diagnoses_of(results: StudyResults) -> dict[str, Diagnosis]:
    """The diagnosis of each text diagnosed, by its name."""
    return {
        name: Diagnosis.load(diagnosis_file(results.folder, name))
        for name in results.study.diagnosed
    }


def _costs(
    cell: CellResult, stock: CellResult, mode: str | None, texts: list[str]
) -> tuple[str, ...]:
    return tuple(
        estimated(
            difference(
                cell.scored[name].evaluation(cell.arm, ablated=mode),
                stock.scored[name].evaluation(UNTOUCHED),
            )
        )
        for name in texts
    )


def _loss(found: Estimate) -> str:
    if found.low != found.low:
        return f"{found.value:.4f} [no interval]"
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"


def _masses(diagnosis: Diagnosis) -> str:
    null, mass = diagnosis.stats.null_mass, diagnosis.stats.first_token_mass
    low, high = f"{np.nanmin(null):.3f}", f"{np.nanmax(null):.3f}"
    # without a position bias every untrained head is alike
    null_mass = low if low == high else f"{low} to {high}"
    text = f"untrained head would show a mass of {null_mass}"
    if not diagnosis.sick:
        return text
    sick = mass[diagnosis.is_sick]
    return f"{text}; the sick ones show {sick.min():.3f} to {sick.max():.3f}"
