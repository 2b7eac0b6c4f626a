"""Results → figures, tables and one HTML page. Takes numbers, never models: torch is not needed."""

from headsurgeon.report.data import Bar, Curve, HeadView, Page, Picture, Section, Table
from headsurgeon.report.figures import interval_bars, loss_curves, mass_histogram
from headsurgeon.report.head_map import head_map
from headsurgeon.report.page import render, write_page
from headsurgeon.report.style import write_png

__all__ = [
    "Bar",
    "Curve",
    "HeadView",
    "Page",
    "Picture",
    "Section",
    "Table",
    "head_map",
    "interval_bars",
    "loss_curves",
    "mass_histogram",
    "render",
    "write_page",
    "write_png",
]
