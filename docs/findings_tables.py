"""Writes the tables of findings.md from docs/results: `python docs/findings_tables.py`.

A table stands below a comment that names its folder and its key, `<!-- twins-quick/decisions -->`,
perhaps with its title between them, and ends at the next empty line. So no figure of a table is
typed by hand, and the tests notice when page and results part.
"""

import re
from functools import cache
from pathlib import Path

from headsurgeon.report import study_tables
from headsurgeon.report.data import Table
from headsurgeon.study.decision_rule import decisions_of, shares_of
from headsurgeon.study.results import load_results

DOCS = Path(__file__).parent
_TABLE = re.compile(r"<!-- (?P<folder>[\w-]+)/(?P<key>[\w-]+) -->\n\n(?:\*.*\*\n\n)?(?:\|.*\n)*\n?")
# of these there are several in a row, which their columns do not tell apart
_TITLED = ("losses_", "heads_")


@cache
def tables_of(folder: Path) -> dict[str, Table]:
    """The tables of a study's page that follow from its cells alone, by key."""
    results = load_results(folder)
    study = results.study
    found = [
        study_tables.decided(decisions_of(results)),
        study_tables.shares(shares_of(results), study),
        study_tables.training(results),
    ]
    for trained_on in study.train_on:
        found.append(study_tables.recovered(results, trained_on))
        losses = [study_tables.losses(results, trained_on, text.name) for text in study.texts]
        found += [*losses, _side_by_side(trained_on, losses, [text.name for text in study.texts])]
    return {table.key: table for table in found}


def _side_by_side(trained_on: str, losses: list[Table], texts: list[str]) -> Table:
    """Of the tables of single texts what they say of each arm against the untouched model."""
    rows = []
    for parts in zip(*(table.rows for table in losses), strict=True):
        arm, seeds = parts[0][:2]
        differences = [part[-1] for part in parts]
        if any(differences):
            rows.append((arm, seeds, *differences))
    columns = ("arm", "seeds", *texts)
    return Table(f"texts_{trained_on}", "Minus untouched, nats per token", columns, tuple(rows))


def with_tables(text: str, results: Path) -> str:
    """The page with every named table written anew.

    Raises:
        KeyError: no such table.
    """

    def written(found: re.Match[str]) -> str:
        folder, key = found["folder"], found["key"]
        table = tables_of(results / folder)[key]
        title = f"*{table.title}*\n\n" if key.startswith(_TITLED) else ""
        return f"<!-- {folder}/{key} -->\n\n{title}{_markdown(table)}\n"

    return _TABLE.sub(written, text)


def _markdown(table: Table) -> str:
    rule = ["---:" if side == "right" else "---" for side in table.alignment]
    return "".join(f"| {' | '.join(row)} |\n" for row in (table.columns, rule, *table.rows))


if __name__ == "__main__":
    page = DOCS / "findings.md"
    page.write_text(with_tables(page.read_text("utf-8"), DOCS / "results"), encoding="utf-8")
