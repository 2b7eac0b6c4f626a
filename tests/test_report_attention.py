"""The figure of one head and the maps of several models say what they must."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from headsurgeon.report.attention_figure import LABELLED, attention_figure
from headsurgeon.report.comparison import model_maps
from headsurgeon.report.data import HeadView
from headsurgeon.report.style import png
from tests.pictures import coloured

NOTE = "The collapse of this model was PLANTED."


def attention(length: int) -> np.ndarray:
    scores = np.random.default_rng(0).normal(size=(length, length))
    exponents = np.where(np.triu(np.ones_like(scores), 1) > 0, 0.0, np.exp(scores))
    return exponents / exponents.sum(1, keepdims=True)


def view(title: str, layers: int, heads: int) -> HeadView:
    mass = np.linspace(0.0, 1.0, layers * heads).reshape(layers, heads)
    verdicts = np.where(mass > 0.95, "dead", np.where(mass > 0.5, "sink", "healthy"))
    slopes = np.tile(2.0 ** -np.arange(1.0, heads + 1), (layers, 1))
    return HeadView(title, mass, verdicts, mass > 2.0, slopes, np.full((layers, heads), 0.03))


def texts(figure: Figure) -> list[str]:
    return [item.get_text() for item in figure.findobj(lambda o: hasattr(o, "get_text"))]


def test_the_figure_names_every_token_as_it_is_written() -> None:
    # a formula, a character the font lacks, one that is too long, and one that repeats
    tokens = ["</s>", "$x$", "我", "averyveryverylongtoken", "</s>"]
    figure = attention_figure(attention(5), tokens, title="L5H14", footnote=NOTE)
    assert coloured(png(figure)) > 0.1
    found = texts(figure)
    assert {"L5H14", NOTE, "$x$", "□", "averyveryvery…"} <= set(found)
    assert found.count("</s>") >= 4


def test_the_figure_holds_the_map_and_hides_what_lies_ahead() -> None:
    expected = attention(6)
    figure = attention_figure(expected, list("abcdef"), title="t")
    [image] = [axes.images[0] for axes in figure.axes if axes.images]
    drawn = image.get_array()
    assert drawn is not None
    assert (np.ma.getmaskarray(drawn) == np.triu(np.ones((6, 6), dtype=bool), 1)).all()
    np.testing.assert_allclose(drawn.filled(0.0), expected)
    bars = [patch.get_height() for patch in figure.axes[0].patches]
    np.testing.assert_allclose(bars, expected.mean(axis=0))


def test_a_long_text_is_numbered() -> None:
    length = LABELLED + 1
    figure = attention_figure(attention(length), ["word"] * length, title="t")
    assert "word" not in texts(figure)


@pytest.mark.parametrize("shapes", [[(2, 3)], [(3, 4), (2, 8), (4, 40), (2, 40)]])
def test_models_of_any_shape_stand_in_one_figure(shapes: list[tuple[int, int]]) -> None:
    views = [view(f"model {index}", *shape) for index, shape in enumerate(shapes)]
    figure = model_maps(views, footnote=NOTE)
    maps = [axes for axes in figure.axes if axes.images]
    assert [axes.images[0].get_array().shape for axes in maps] == shapes
    assert [axes.get_title(loc="left") for axes in maps] == [view.title for view in views]
    assert NOTE in "\n".join(texts(figure))
    assert coloured(png(figure)) > 0.05
    cells = [axes.get_window_extent().width / axes.images[0].get_array().shape[1] for axes in maps]
    assert max(cells) / min(cells) < 1.5
