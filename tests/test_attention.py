"""Attention in one pass: the same numbers as whole maps, from tiles and kernels that hold none."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from headsurgeon.arch import Projection
from headsurgeon.attention import kernel_statistics as kernel_module
from headsurgeon.attention import private_operators, tiled_scores
from headsurgeon.attention.blocked_statistics import blocked_statistics
from headsurgeon.attention.folded_bias import fold_bias, padded, widen
from headsurgeon.attention.kernel_attention import kernel_attention
from headsurgeon.attention.kernel_statistics import kernel_available, kernel_statistics
from headsurgeon.attention.row_statistics import RowStatistics
from headsurgeon.attention.split_heads import merge_heads, split_heads
from headsurgeon.attention.tiled_attention import tiled_attention
from headsurgeon.attention.tiled_statistics import tiled_statistics
from headsurgeon.errors import StateError

OnePass = Callable[..., tuple[RowStatistics, Tensor | None]]
ONE_PASS = [tiled_statistics, kernel_statistics]
FIELDS = ("first_token", "entropy", "distance", "previous", "local")


def drawn(
    shape: tuple[int, int, int, int], seed: int = 0, size: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(size * torch.randn(shape, generator=generator) for _ in range(3))


def staircase(slopes: Tensor, rows: int) -> Tensor:
    positions = torch.arange(rows)
    return (slopes.bfloat16()[:, None] * positions.bfloat16()).float()


def geometric(heads: int) -> Tensor:
    return torch.tensor([2.0 ** (-8 * (head + 1) / heads) for head in range(heads)])


def dense(query: Tensor, key: Tensor, bias: Tensor, scale: float) -> Tensor:
    rows = query.shape[2]
    scores = query.double() @ key.double().transpose(-1, -2) * scale + bias.double()[:, None]
    later = torch.ones(rows, rows, dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1)


@pytest.mark.parametrize("one_pass", ONE_PASS)
@pytest.mark.parametrize("rows", [1, 2, 3, 127, 128, 129, 300])
@pytest.mark.parametrize("kind", ["straight", "staircase", "none"])
def test_one_pass_gives_the_statistics_of_the_blocked_path(
    one_pass: OnePass, rows: int, kind: str
) -> None:
    heads, width = 6, 20
    query, key, value = drawn((2, heads, rows, width), size=1.5)
    slopes = geometric(heads)
    bias = {
        "straight": slopes[:, None] * torch.arange(rows),
        "staircase": staircase(slopes, rows),
        "none": torch.zeros(heads, rows),
    }[kind]
    reference = blocked_statistics(query, key, bias, 0.3)
    found, output = one_pass(query, key, bias, 0.3, value)
    for name in FIELDS:
        torch.testing.assert_close(
            getattr(found, name), getattr(reference, name), atol=1e-4, rtol=1e-5, msg=name
        )
    expected = dense(query, key, bias, 0.3) @ value.double()
    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("one_pass", ONE_PASS)
def test_head_means_agree_to_1e_4_over_long_windows(one_pass: OnePass) -> None:
    query, key, value = drawn((1, 8, 2048, 64))
    bias = geometric(8)[:, None] * torch.arange(2048)
    reference = blocked_statistics(query, key, bias, 0.125)
    found, _ = one_pass(query, key, bias, 0.125, value)
    for name in ("first_token", "entropy", "previous", "local"):
        difference = getattr(found, name).mean(-1) - getattr(reference, name).mean(-1)
        assert difference.abs().max() < 1e-4, name
    relative = found.distance.mean(-1) / reference.distance.mean(-1) - 1
    assert relative.abs().max() < 1e-4


@pytest.mark.parametrize("one_pass", ONE_PASS)
def test_a_dead_head_is_seen_as_one(one_pass: OnePass) -> None:
    # every query points at the first key
    query, key, _ = drawn((1, 1, 64, 8), size=0.01)
    query[..., 0] = 30.0
    key[:, :, 0, 0] = 30.0
    found, _ = one_pass(query, key, torch.zeros(1, 64), 0.5)
    torch.testing.assert_close(found.first_token, torch.ones(1, 1, 64), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(found.entropy, torch.zeros(1, 1, 64), atol=1e-3, rtol=0.0)


@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 5),
    rows=st.integers(1, 40),
    tile=st.integers(1, 41),
    numbers=st.integers(1, 400),
)
def test_the_cut_into_tiles_does_not_matter(
    batch: int, heads: int, rows: int, tile: int, numbers: int
) -> None:
    query, key, value = drawn((batch, heads, rows, 4), size=2.0)
    bias = geometric(heads)[:, None] * torch.arange(rows)
    reference = blocked_statistics(query, key, bias, 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled_scores, "ROWS", tile)
        patch.setattr(tiled_scores, "NUMBERS", numbers)
        found, output = tiled_statistics(query, key, bias, 0.5, value)
        without, nothing = tiled_statistics(query, key, bias, 0.5)
        leaves = [part.requires_grad_() for part in (query, key, value)]
        attended = tiled_attention(*leaves, bias, 0.5)
        gradients = torch.autograd.grad(attended.sum(), leaves)
    assert nothing is None
    for name in FIELDS:
        expected = getattr(reference, name)
        torch.testing.assert_close(getattr(found, name), expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(getattr(found, name), getattr(without, name))
    averaged = dense(query, key, bias, 0.5) @ value.double()
    torch.testing.assert_close(output.double(), averaged, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attended.double(), averaged, atol=1e-5, rtol=1e-5)
    expected = torch.autograd.grad(averaged.sum(), leaves)
    for actual, whole in zip(gradients, expected, strict=True):
        torch.testing.assert_close(actual, whole, atol=5e-5, rtol=1e-4)


def test_tiles_of_a_broken_model_show_it() -> None:
    query, key, _ = drawn((1, 2, 8, 4))
    key[:, 1, 3] = torch.nan
    found, _ = tiled_statistics(query, key, torch.zeros(2, 8), 0.5)
    assert found.first_token[:, 0].isfinite().all()
    assert found.first_token[:, 1, 3:].isnan().all()


def test_groups_of_heads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = drawn((2, 5, 40, 16))
    bias = geometric(5)[:, None] * torch.arange(40)
    whole, output = kernel_statistics(query, key, bias, 0.25, value)
    monkeypatch.setattr(kernel_module, "GROUP_NUMBERS", 2 * 40 * padded(34) * 2)
    parts, pieces = kernel_statistics(query, key, bias, 0.25, value)
    torch.testing.assert_close(pieces, output)
    for name in FIELDS:
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


@given(
    rows=st.integers(1, 3000),
    slope=st.floats(1e-3, 1.0),
    scale=st.sampled_from([0.05, 0.125, 0.3, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_the_features_are_the_bias(
    rows: int, slope: float, scale: float, dtype: torch.dtype
) -> None:
    bias = torch.tensor([[slope], [slope / 7]]) * torch.arange(rows)
    folded = fold_bias(bias, scale, dtype)
    assert torch.tensor(folded.query_feature, dtype=dtype) == folded.query_feature
    assert folded.query_feature in {2.0**power for power in range(16)}
    total = folded.key_features.double().sum(-1) * folded.query_feature * scale
    difference = total - bias.double()
    largest = bias.abs().max()
    assert (difference - difference[:, :1]).abs().max() <= 1e-6 * largest + 1e-4


def test_one_part_alone_would_not_be_the_bias_in_bf16() -> None:
    bias = torch.tensor([[0.7071]]) * torch.arange(512)
    folded = fold_bias(bias, 0.125, torch.bfloat16)
    total = folded.key_features[..., 0].double() * folded.query_feature * 0.125
    assert (total - (bias - bias[:, 256:257]).double()).abs().max() > 0.1


@given(width=st.integers(1, 200))
def test_widths_are_multiples_of_eight(width: int) -> None:
    assert padded(width) % 8 == 0
    assert 0 <= padded(width) - width < 8


def test_widening_adds_features_and_zeros() -> None:
    query, key, _ = drawn((2, 3, 7, 5))
    folded = fold_bias(torch.randn(3, 7), 0.5, torch.float32)
    wide_query, wide_key = widen(query, key, folded, 16)
    assert torch.equal(wide_query[..., :5], query)
    assert torch.equal(wide_key[..., :5], key)
    assert not wide_query[..., 6:].any()
    assert not wide_key[..., 6:].any()


@pytest.mark.parametrize("rows", [1, 2, 77])
def test_folded_attention_is_biased_causal_attention(rows: int) -> None:
    query, key, value = drawn((2, 4, rows, 12))
    bias = geometric(4)[:, None] * torch.arange(rows)
    actual = kernel_attention(query, key, value, fold_bias(bias, 0.3, torch.float32), 0.3)
    expected = dense(query, key, bias, 0.3) @ value.double()
    torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=1e-5)


def test_gradients_flow_through_the_fold() -> None:
    leaves = [part.requires_grad_() for part in drawn((1, 3, 33, 8))]
    bias = geometric(3)[:, None] * torch.arange(33)
    weights = torch.randn(1, 3, 33, 8, generator=torch.Generator().manual_seed(5))
    ours = kernel_attention(*leaves, fold_bias(bias, 0.4, torch.float32), 0.4)
    gradients = torch.autograd.grad((ours * weights).sum(), leaves)
    query, key, value = leaves
    theirs = (dense(query, key, bias, 0.4) @ value.double() * weights).sum()
    for actual, expected in zip(gradients, torch.autograd.grad(theirs, leaves), strict=True):
        torch.testing.assert_close(actual, expected.to(actual.dtype), atol=1e-5, rtol=1e-4)


def test_bf16_folded_attention_is_nearer_to_fp32_than_a_rounded_bias() -> None:
    query, key, value = (part.bfloat16() for part in drawn((1, 8, 512, 32)))
    bias = geometric(8)[:, None] * torch.arange(512)
    exact = dense(query, key, bias, 0.177) @ value.double()
    folded = kernel_attention(query, key, value, fold_bias(bias, 0.177, torch.bfloat16), 0.177)
    rounded = dense(query, key, bias.bfloat16().float(), 0.177) @ value.double()
    assert (folded.double() - exact).abs().mean() < (rounded - exact).abs().mean()


def test_autocast_does_not_round_the_bias_of_fp32_queries() -> None:
    query, key, value = drawn((1, 4, 256, 16))
    bias = geometric(4)[:, None] * torch.arange(256)
    folded = fold_bias(bias, 0.25, torch.float32)
    plain = kernel_attention(query, key, value, folded, 0.25)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = kernel_attention(query, key, value, folded, 0.25)
    assert torch.equal(cast, plain)


@pytest.fixture
def fresh_check() -> object:
    kernel_module._checked.cache_clear()
    yield None
    kernel_module._checked.cache_clear()


@pytest.mark.usefixtures("fresh_check")
class TestSelfCheck:
    def test_it_passes_on_the_cpu(self) -> None:
        assert kernel_available(torch.device("cpu"))

    def test_a_device_without_operator_fails_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(private_operators, "OPERATORS", {})
        assert not kernel_available(torch.device("cpu"))
        query, key, _ = drawn((1, 1, 4, 8))
        with pytest.raises(StateError, match="blocked"):
            kernel_statistics(query, key, torch.zeros(1, 4), 1.0)

    def test_a_vanished_operator_fails_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(
            private_operators.OPERATORS, "cpu", ("_no_such_operator", private_operators._cpu)
        )
        assert not kernel_available(torch.device("cpu"))

    def test_a_changed_signature_fails_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def changed(operator: object, *_: object) -> None:
            operator("nothing it knows")

        monkeypatch.setitem(
            private_operators.OPERATORS, "cpu", (private_operators.OPERATORS["cpu"][0], changed)
        )
        assert not kernel_available(torch.device("cpu"))

    @pytest.mark.parametrize("wrong", ["output", "lse"])
    def test_other_numbers_fail_it(self, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
        def off(operator: object, *inputs: object) -> tuple[Tensor, Tensor]:
            output, logsum = private_operators._cpu(operator, *inputs)
            return (output * 1.01, logsum) if wrong == "output" else (output, logsum + 0.01)

        monkeypatch.setitem(
            private_operators.OPERATORS, "cpu", (private_operators.OPERATORS["cpu"][0], off)
        )
        assert not kernel_available(torch.device("cpu"))


@pytest.mark.parametrize(
    "starts",
    [(0, 12, 24), (4, 16, 28), (8, 20, 32), (12,), (0, 4, 12), (12, 16, 20)],
    ids=["interleaved-q", "interleaved-k", "interleaved-v", "single", "uneven", "stacked"],
)
def test_heads_are_cut_where_the_layout_says(starts: tuple[int, ...]) -> None:
    projected = torch.randn(2, 5, 36, generator=torch.Generator().manual_seed(0))
    heads = split_heads(projected, Projection("module", starts), 4)
    assert heads.shape == (2, len(starts), 5, 4)
    for index, start in enumerate(starts):
        assert torch.equal(heads[:, index], projected[..., start : start + 4])


@pytest.mark.parametrize("starts", [(0, 4, 8), (8, 0, 4)])
def test_merging_puts_heads_back(starts: tuple[int, ...]) -> None:
    features = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    projection = Projection("module", starts, axis=1)
    assert torch.equal(merge_heads(split_heads(features, projection, 4), projection), features)
