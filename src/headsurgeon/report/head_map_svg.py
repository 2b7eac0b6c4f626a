"""The head map as inline SVG: for notebooks, and for pages that are read without scripts."""

from collections.abc import Collection

import numpy as np
from markupsafe import Markup, escape

from headsurgeon.heads import NO_ATTENTION, HeadId
from headsurgeon.printable import printable
from headsurgeon.report.colours import NOTHING, OPERATED, SEQUENTIAL, colour, ink_on
from headsurgeon.report.data import HeadView

# user units: one cell is 20 wide
_CELL, _LEFT, _TOP, _SCALE = 20, 34, 34, 34
_OUTLINES = {"operate": OPERATED, "watch": "#7f8694"}


def head_map_svg(
    view: HeadView,
    operated: Collection[HeadId] = (),
    watched: Collection[HeadId] = (),
    *,
    titles: bool = True,
) -> Markup:
    """Layers × heads, layer 0 at the top, the darker the more mass lies on the first token.

    A letter says a sick or low-entropy head's verdict (`?`: borderline); heads operated on have a
    solid outline, watched ones a dashed one. Every text is escaped, and no style sheet is needed.

    Args:
        view: what is shown; its title names the picture for those who cannot see it.
        operated, watched: heads to outline.
        titles: whether each head has its numbers as a title, which browsers show under the mouse;
            they take some 100 bytes a head.
    """
    layers, heads = view.mass.shape
    width, height = _LEFT + heads * _CELL + 58, _TOP + layers * _CELL + 8
    cells = [_cell(view, layer, head, titles) for layer, head in np.ndindex(layers, heads)]
    named = escape(printable(f"{view.title}: attention on the first token, by layer and head"))
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{named}" font-family="system-ui,sans-serif" '
        f'font-size="9" fill="#5c6370">'
        f"{_axes(layers, heads)}{''.join(cells)}"
        f"{_outlined(watched, 'watch')}{_outlined(operated, 'operate')}"
        f"{_scale(view, heads, layers)}</svg>"
    )


def head_title(view: HeadView, head: HeadId) -> str:
    """The numbers of one head in words."""
    verdict = str(view.verdicts[head])
    if verdict == NO_ATTENTION:
        return f"{head}: no attention in this layer"
    sure = ", borderline" if view.borderline[head] else ""
    text = f"{head}: {verdict}{sure}, mass {view.mass[head]:.3f}"
    null = view.null_mass[head]
    text += "" if np.isnan(null) else f", null {null:.3f}"
    return text + (f", slope {view.slopes[head]:.4g}" if view.slopes.any() else "")


def _cell(view: HeadView, layer: int, head: int, titled: bool) -> str:
    fill = colour(float(view.mass[layer, head]))
    left, top = _LEFT + head * _CELL, _TOP + layer * _CELL
    title = f"<title>{escape(head_title(view, HeadId(layer, head)))}</title>" if titled else ""
    square = f"M{left} {top}h19v19h-19z"
    end = f">{title}</path>" if title else "/>"
    drawn = f'<path d="{square}" fill="{fill}"{end}'
    mark = view.mark((layer, head))
    if not mark:
        return drawn
    middle = f'x="{left + 9.5}" y="{top + 13}" text-anchor="middle" pointer-events="none"'
    return f'{drawn}<text {middle} fill="{ink_on(fill)}">{mark}</text>'


def _axes(layers: int, heads: int) -> str:
    # a number for each would touch its neighbours
    step = 1 if max(layers, heads) <= 32 else 4
    names = [f'<text x="{_LEFT}" y="12">head</text>']
    names += [
        f'<text x="{_LEFT + head * _CELL + 9.5}" y="28" text-anchor="middle">{head}</text>'
        for head in range(0, heads, step)
    ]
    names += [
        f'<text x="{_LEFT - 5}" y="{_TOP + layer * _CELL + 13}" text-anchor="end">L{layer}</text>'
        for layer in range(0, layers, step)
    ]
    return "".join(names)


def _outlined(heads: Collection[HeadId], role: str) -> str:
    if not heads:
        return ""
    squares = "".join(
        f"M{_LEFT + head.head * _CELL + 1} {_TOP + head.layer * _CELL + 1}h17v17h-17z"
        for head in sorted(heads)
    )
    dashes = ' stroke-dasharray="3 2"' if role == "watch" else ""
    return (
        f'<path d="{squares}" fill="none" stroke="{_OUTLINES[role]}" stroke-width="2"{dashes} '
        'pointer-events="none"/>'
    )


def _scale(view: HeadView, heads: int, layers: int) -> str:
    """The colours from 0 to 1 at the right, and where a head becomes sick."""
    left, height = _LEFT + heads * _CELL + 14, min(layers * _CELL, 160)
    steps = len(SEQUENTIAL) * 2
    part = height / steps
    bars = "".join(
        f'<path d="M{left} {_TOP + height - (step + 1) * part:.1f}h8v{part + 0.3:.1f}h-8z" '
        f'fill="{colour(step / (steps - 1))}"/>'
        for step in range(steps)
    )
    limit = _TOP + height * (1 - view.thresholds.sink)
    without = ""
    if (view.verdicts == NO_ATTENTION).any() and layers * _CELL > height + 24:
        place = _TOP + height + 14
        without = f'<path d="M{left} {place}h8v8h-8z" fill="{NOTHING}"/>'
        without += f'<text x="{left + 12}" y="{place + 8}">none</text>'
    return (
        f'{bars}<text x="{left + 12}" y="{_TOP + 7}">1</text>'
        f'<text x="{left + 12}" y="{_TOP + height}">0</text>'
        f'<path d="M{left - 2} {limit:.1f}h12" stroke="{OPERATED}" stroke-width="1.5"/>'
        f'<text x="{left + 12}" y="{limit + 3:.1f}">sick</text>{without}'
    )
