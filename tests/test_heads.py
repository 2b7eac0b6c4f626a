"""Head names and statistics as data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headsurgeon.errors import HeadError
from headsurgeon.head_stats import HeadStats
from headsurgeon.heads import QUANTILE_LEVELS, STATISTICS, HeadId, check_heads, parse_heads
from tests.head_stats import PROVENANCE


@given(st.integers(0, 200), st.integers(0, 200))
def test_a_head_reads_back_what_it_prints(layer: int, head: int) -> None:
    assert HeadId.parse(str(HeadId(layer, head))) == HeadId(layer, head)
    assert HeadId.parse(f" l{layer}h{head} ") == (layer, head)


@pytest.mark.parametrize("text", ["", "5,14", "L5", "H14L5", "L-1H0", "L5H14x"])
def test_another_form_is_an_error_that_shows_the_right_one(text: str) -> None:
    with pytest.raises(HeadError, match="L5H14"):
        HeadId.parse(text)


def test_heads_are_sorted_and_unique() -> None:
    assert parse_heads(["L2H0", "L0H3", (2, 0)]) == (HeadId(0, 3), HeadId(2, 0))


def test_every_head_out_of_range_is_named() -> None:
    check_heads([HeadId(2, 3)], 3, 4)
    with pytest.raises(HeadError, match="L3H0, L0H4: the model has layers 0–2 and heads 0–3"):
        check_heads([HeadId(3, 0), HeadId(0, 4), HeadId(0, 0)], 3, 4)


def stats(documents: tuple[str, ...], seed: int = 0) -> HeadStats:
    rng = np.random.default_rng(seed)
    shape = (len(documents), 2, 3)
    return HeadStats(
        values={name: rng.uniform(size=shape) for name in STATISTICS},
        row_quantiles=rng.uniform(size=(*shape, len(QUANTILE_LEVELS))),
        documents=documents,
        slopes=np.ones((2, 3)),
        null_mass=np.zeros((2, 3)),
        provenance=PROVENANCE.replace(count=len(documents)),
    )


def test_means_are_over_windows_and_documents_are_means_of_their_own() -> None:
    measured = stats(("a", "b", "a"))
    values = measured.values["entropy"]
    assert np.allclose(measured.entropy, values.mean(axis=0))
    per_document = measured.per_document("entropy")
    assert np.allclose(per_document[0], (values[0] + values[2]) / 2)
    assert np.allclose(per_document[1], values[1])
    assert np.allclose(measured.variance("entropy"), values.var(axis=0, ddof=1))
    assert np.allclose(measured.document_variance("entropy"), per_document.var(axis=0, ddof=1))


def test_one_window_has_no_variance() -> None:
    assert np.isnan(stats(("a",)).variance("entropy")).all()
    assert np.isnan(stats(("a", "a")).document_variance("entropy")).all()


def test_the_frame_has_one_row_per_head_with_every_statistic() -> None:
    measured = stats(("a", "b"))
    frame = measured.to_frame()
    assert len(frame) == 6
    assert list(zip(frame["layer"], frame["head"], strict=True))[4] == (1, 1)
    for name in STATISTICS:
        assert np.allclose(frame[name].to_numpy().reshape(2, 3), getattr(measured, name))
    assert "row_mass_q50" in frame
