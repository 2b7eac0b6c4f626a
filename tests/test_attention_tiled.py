"""Attention in tiles: what whole maps give, forward and backward, and an operator to PyTorch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from headsurgeon.attention import head_threads
from headsurgeon.attention import tiled_attention as module
from headsurgeon.attention.tiled_attention import tiled_attention, tiles_are_faster
from headsurgeon.attention.tiled_scores import NUMBERS, ROWS, Tile, TiledScores, spare
from headsurgeon.errors import StateError
from tests.test_attention import dense, drawn, geometric


def gradients(output: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    return list(torch.autograd.grad((output * weights).sum(), leaves))


@pytest.mark.parametrize("rows", [1, 2, 3, ROWS - 1, ROWS, ROWS + 1, 300])
@pytest.mark.parametrize("size", [1.0, 4.0])
def test_outputs_and_gradients_are_those_of_whole_maps(rows: int, size: float) -> None:
    leaves = [part.requires_grad_() for part in drawn((2, 3, rows, 12), size=size)]
    bias = geometric(3)[:, None] * torch.arange(rows)
    ours = tiled_attention(*leaves, bias, 0.3)
    query, key, value = leaves
    whole = dense(query, key, bias, 0.3) @ value.double()
    # scores grow with the square of the size, and their rounding with them
    close = 2e-5 * size**2
    torch.testing.assert_close(ours.double(), whole, atol=close, rtol=0.0)
    for actual, expected in zip(gradients(ours, leaves), gradients(whole, leaves), strict=True):
        largest = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(actual, expected.float(), atol=close * largest, rtol=0.0)


def test_a_value_may_be_of_another_width_and_heads_may_lie_apart() -> None:
    query, key, value = drawn((2, 40, 3, 8))
    value = value[..., :5]
    # as projections give them: rows before heads
    query, key, value = (part.transpose(1, 2).requires_grad_() for part in (query, key, value))
    bias = torch.zeros(3, 40)
    ours = tiled_attention(query, key, value, bias, 0.5)
    whole = dense(query, key, bias, 0.5) @ value.double()
    torch.testing.assert_close(ours.double(), whole, atol=1e-5, rtol=0.0)
    for actual, expected in zip(
        gradients(ours, [query, key, value]), gradients(whole, [query, key, value]), strict=True
    ):
        torch.testing.assert_close(actual, expected.float(), atol=2e-5, rtol=0.0)


def test_a_steep_head_on_a_long_window_loses_no_digits() -> None:
    """The bias reaches 1,448 there; where it is added, and not folded, does not matter."""
    leaves = [part.requires_grad_() for part in drawn((1, 2, 2048, 16))]
    bias = torch.tensor([2**-0.5, 2**-8])[:, None] * torch.arange(2048)
    ours = tiled_attention(*leaves, bias, 0.25)
    query, key, value = leaves
    whole = dense(query, key, bias, 0.25) @ value.double()
    assert float((ours - whole).detach().abs().max()) < 1e-4
    for actual, expected in zip(gradients(ours, leaves), gradients(whole, leaves), strict=True):
        assert float((actual - expected).abs().max()) < 2e-4


def test_probabilities_that_fp32_cannot_add_to_one_are_zero() -> None:
    """They would make denormal numbers of the gradients, which some processors take long over."""
    query, key, value = (part.requires_grad_() for part in drawn((1, 1, 200, 8)))
    bias = 2.0 * torch.arange(200)[None]
    output = tiled_attention(query, key, value, bias, 0.1)
    (first,) = torch.autograd.grad(output[0, 0, 150:].sum(), value)
    # e^(−2·21) is 2^−60.6
    assert not first[0, 0, : 150 - 22].any()
    assert first[0, 0, 150:].all()


def test_autocast_rounds_nothing() -> None:
    leaves = [part.requires_grad_() for part in drawn((1, 2, 150, 16))]
    bias = geometric(2)[:, None] * torch.arange(150)
    plain = tiled_attention(*leaves, bias, 0.25)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = tiled_attention(*leaves, bias, 0.25)
        under_autocast = gradients(cast, leaves)
    assert torch.equal(cast, plain)
    for actual, expected in zip(under_autocast, gradients(plain, leaves), strict=True):
        assert torch.equal(actual, expected)


# opcheck of torch 2.14 reads .grad of its own copies, and torch warns of that
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_both_operators_keep_pytorchs_rules_for_operators() -> None:
    query, key, value = (part[0].requires_grad_() for part in drawn((1, 2, 140, 8)))
    bias = geometric(2)[:, None] * torch.arange(140)
    torch.library.opcheck(module._forward, (query, key, value, bias, 0.3))
    with torch.no_grad():
        output, lse = module._forward(query, key, value, bias, 0.3)
        arguments = (torch.ones_like(output), query, key, value, bias, output, lse, 0.3)
        torch.library.opcheck(module._backward, arguments)


def test_it_is_differentiable_once() -> None:
    leaves = [part.requires_grad_() for part in drawn((1, 1, 4, 8))]
    output = tiled_attention(*leaves, torch.zeros(1, 4), 0.3)
    (first,) = torch.autograd.grad(output.sum(), leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(first.sum(), leaves[:1])


def test_a_broken_query_spoils_its_own_row_alone() -> None:
    query, key, value = drawn((1, 2, 140, 8))
    query[0, 1, 7] = torch.nan
    output = tiled_attention(query, key, value, torch.zeros(2, 140), 0.3)
    broken = output.isnan().any(-1)
    assert broken.nonzero().tolist() == [[0, 1, 7]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_precision_is_refused(dtype: torch.dtype) -> None:
    query, key, value = (part.to(dtype) for part in drawn((1, 2, 4, 8)))
    with pytest.raises(StateError, match="fp32"):
        tiled_attention(query, key, value, torch.zeros(2, 4), 0.3)


@given(heads=st.integers(1, 40), rows=st.integers(1, 1500), worth=st.sampled_from([0, 2**22]))
def test_tiles_cover_every_row_of_every_head_once_and_fit_the_scratch_memory(
    heads: int, rows: int, worth: int
) -> None:
    empty = torch.empty(heads, rows, 0)
    tiles = TiledScores(empty, empty, torch.zeros(1, rows), 1.0, held=1)
    seen = torch.zeros(heads, rows, dtype=torch.long)

    def look(tile: Tile, scratch: Tensor) -> None:
        seen[tile.heads, tile.rows] += 1
        assert tile.keys == slice(0, tile.rows.stop)
        assert spare(tile, scratch, 0).shape == tile.shape
        assert spare(tile, scratch, 0).numel() <= max(NUMBERS, ROWS * rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_threads, "WORTH", worth)
        tiles.each(look)
    assert (seen == 1).all()


def test_tiles_are_for_fp32_on_a_cpu() -> None:
    assert tiles_are_faster(torch.device("cpu"), torch.float32)
    assert not tiles_are_faster(torch.device("cpu"), torch.bfloat16)
    assert not tiles_are_faster(torch.device("meta"), torch.float32)
