"""How large a page may become, and what is left out where it would be larger."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from headsurgeon.report.data import Chart, Page, Section, Table

# bytes, without maps of attention and with them
SMALL, LARGE = 300_000, 1_000_000
# a packed map of 48 tokens in base64, with its name
_MAP = 1_600
# the most changing numbers of heads that are shown, and rows of a table, at each attempt
_ATTEMPTS = ((150_000, 400), (100_000, 200), (60_000, 100), (25_000, 40), (8_000, 12), (2_000, 4))

Render = Callable[[Page, int, int, Sequence[str]], str]


def fitted(page: Page, render: Render) -> str:
    """The page rendered with as much as there is room for.

    What a reader came for, the heads as they are now, is never left out: a page of several thousand
    heads may become larger.

    Args:
        render: makes a page of it, of a number of changing numbers, of a number of maps, and of
            remarks on what was left out.
    """
    html = ""
    for numbers, rows in _ATTEMPTS:
        shorter, remarks = shortened(page, rows)
        html = render(shorter, numbers, 0, remarks)
        size = len(html.encode("utf-8"))
        if size <= SMALL:
            maps = (LARGE - SMALL) // _MAP
            with_maps = any(model.samples for model in page.heads)
            return render(shorter, numbers, maps, remarks) if with_maps else html
    return html


def shortened(page: Page, rows: int) -> tuple[Page, list[str]]:
    """The page with at most so many rows in each table, and remarks where there were more."""
    longer = [
        table.title
        for section in page.sections
        for table in (*section.tables, *(c.table for c in section.charts if c.table is not None))
        if len(table.rows) > rows
    ]
    sections = tuple(_section(section, rows) for section in page.sections)
    remark = f"Tables show at most {rows} rows here; all are in the files beside the page."
    return replace(page, sections=sections), [remark] if longer else []


def _section(section: Section, rows: int) -> Section:
    return replace(
        section,
        tables=tuple(_table(table, rows) for table in section.tables),
        charts=tuple(_chart(chart, rows) for chart in section.charts),
    )


def _chart(chart: Chart, rows: int) -> Chart:
    return chart if chart.table is None else replace(chart, table=_table(chart.table, rows))


def _table(table: Table, rows: int) -> Table:
    if len(table.rows) <= rows:
        return table
    more = f"{len(table.rows) - rows} more rows are in the files."
    return replace(table, rows=table.rows[:rows], note=f"{table.note} {more}".strip())
