"""Drift: which heads changed, which could not, and who fell sick."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from headsurgeon.arch import layout_of
from headsurgeon.errors import InputError
from headsurgeon.evaluation import drift
from headsurgeon.heads import HeadId
from headsurgeon.measurement import measure
from tests.pico import pico, tokens
from tests.pico_families import pico_family
from tests.stand_ins import windows_of


def changed(heads: list[tuple[int, int]]):
    """Statistics before and after the queries of `heads` were replaced."""
    model = pico("bloom")
    windows = windows_of(tokens(4, 16))
    before = measure(model, windows)
    generator = torch.Generator().manual_seed(5)
    for layer, head in heads:
        for part in ("query", "output"):
            block = layout_of(model).blocks(part, layer, head)[0]
            with torch.no_grad():
                block.of(model.get_parameter(block.parameter)).normal_(0, 2, generator=generator)
    return before, measure(model, windows)


def test_heads_at_or_below_the_lowest_operated_layer_are_structural_zeros() -> None:
    before, after = changed([(1, 2)])
    result = drift(before, after, ["L1H2"])
    fixed = result.structural_zeros
    assert fixed[0].all()
    assert fixed[1].sum() == 3
    assert not fixed[2].any()
    assert np.abs(result.mass_change[fixed]).max() == 0.0
    assert np.abs(result.mass_change[2]).min() > 0.0
    assert result.could_drift == 4


def test_structural_zeros_and_operated_heads_never_count_as_drifted() -> None:
    before, after = changed([(1, 2)])
    result = drift(before, after, ["L1H2"], threshold=0.0)
    assert set(result.drifted) == {HeadId(2, head) for head in range(4)}


def test_where_a_norm_spans_all_heads_the_neighbours_of_an_operated_head_can_change() -> None:
    model = pico_family("olmo2")
    layout = layout_of(model)
    windows = windows_of(tokens(4, 16))
    before = measure(model, windows)
    (block,) = layout.blocks("query", 1, 0)
    with torch.no_grad():
        block.of(model.get_parameter(block.parameter)).mul_(4.0)
    result = drift(before, measure(model, windows), ["L1H0"])
    assert result.structural_zeros[0].all()
    assert not result.structural_zeros[1:].any()


@pytest.mark.parametrize("changes", [{"split": "dev"}, {"seed": 1}, {"first_token": "</s>"}])
def test_measurements_of_another_selection_cannot_be_compared(changes: dict[str, object]) -> None:
    windows = windows_of(tokens(2, 8))
    first = measure(pico("bloom"), windows)
    second = measure(pico("bloom"), replace(windows, **changes))
    with pytest.raises(InputError, match=f"different: {next(iter(changes))}"):
        drift(first, second)


def test_transitions_account_for_every_head_once() -> None:
    before, after = changed([(0, 1), (2, 2)])
    tables = drift(before, after, ["L0H1", "L2H2"], sick_mass=0.2).transitions
    assert sum(tables["operated"].values()) == 2
    assert sum(tables["untouched"].values()) == 10


def test_a_head_that_falls_sick_is_a_transition() -> None:
    before, after = changed([(0, 1)])
    limit = float(before.first_token_mass[0, 1] + after.first_token_mass[0, 1]) / 2
    table = drift(before, after, ["L0H1"], sick_mass=limit).transitions["operated"]
    fell = after.first_token_mass[0, 1] > before.first_token_mass[0, 1]
    assert table[("healthy", "sick") if fell else ("sick", "healthy")] == 1


def test_measurements_of_different_windows_cannot_be_compared() -> None:
    model = pico("bloom")
    first = measure(model, windows_of(tokens(2, 8)))
    second = measure(model, windows_of(tokens(2, 8), corpus="other"))
    with pytest.raises(InputError, match="same corpus"):
        drift(first, second)
