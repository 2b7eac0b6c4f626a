"""summary.html: the demo on one page."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from headsurgeon.demo import tables
from headsurgeon.demo.examination import Case
from headsurgeon.demo.judgement import Judgement
from headsurgeon.demo.material import OTHER, TEST
from headsurgeon.demo.settings import DemoSettings
from headsurgeon.demo.wording import NOT_PLANTED, PLANTED, conclusions, planned, sickness, working
from headsurgeon.printable import printable
from headsurgeon.report import Page, Picture, Section, Table, write_page


def write_summary(
    folder: Path,
    case: Case,
    judgement: Judgement,
    function: Table,
    pictures: Mapping[str, Picture],
    settings: DemoSettings,
    seconds: float,
) -> Path:
    """Writes the page to `folder`.

    Args:
        function: the table of the operated heads.
        pictures: what `pictures.draw` made.
        seconds: how long the demo took.
    """
    ablated = (tables.ablating(case, settings),) if case.all_sick else ()
    before = (working(case, settings),) if case.all_sick else ()
    # the last conclusion is the notice, which stands on top here
    lead = conclusions(judgement, settings)[:-1]
    page = Page(
        title=f"Head surgery on {printable(settings.model)}",
        lead=lead,
        notice=PLANTED if settings.planted else NOT_PLANTED,
        sections=(
            Section(
                "What surgery brought",
                tables=(
                    tables.losses(judgement, TEST, settings),
                    tables.comparison(judgement, settings),
                    tables.losses(judgement, OTHER, settings),
                ),
                pictures=(pictures["result"], pictures["loss"]),
            ),
            Section(
                "The heads, before and after",
                text=(
                    *sickness(case.diagnoses, settings),
                    *before,
                    planned(case.plan, settings),
                ),
                tables=(tables.diagnosed(case.diagnoses, settings), *ablated, function),
                pictures=(pictures["head_map"], pictures["mass"]),
            ),
            Section("The plan", tables=(tables.planned_heads(case.plan),), folded=True),
            Section("Settings", tables=(_settings(settings),), folded=True),
        ),
        facts={
            "headsurgeon": version("headsurgeon"),
            "torch": version("torch"),
            "transformers": version("transformers"),
            "Python": platform.python_version(),
            "seed": str(settings.seed),
            "took": f"{seconds:.0f} s",
            "every figure": "demo.json",
        },
    )
    return write_page(page, folder / "summary.html")


def _settings(settings: DemoSettings) -> Table:
    rows = tuple(
        (name, "none" if value is None else str(value))
        for name, value in settings.to_dict().items()
    )
    return Table("settings", "Settings of the demo", ("setting", "value"), rows)
