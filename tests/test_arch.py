"""Layouts: each family's attention output follows from the slices of its heads alone."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertConfig, BloomConfig, CodeGenConfig, FalconConfig, MptConfig
from transformers.models.bloom.modeling_bloom import _get_alibi_slopes
from transformers.models.falcon.modeling_falcon import build_alibi_tensor
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

from headsurgeon.arch import FAMILIES, Layout, layout_for, layout_of
from headsurgeon.arch.layout import PARTS
from headsurgeon.errors import UnsupportedModel
from tests.pico import PICO, pico, tokens

SHAPES = [("bloom", 4), ("bloom", 6), ("mpt", 4), ("mpt", 6), ("mpt-clip", 4), ("mpt-clip", 5)]
SHAPES += [("falcon-rw", 4), ("falcon-rw", 6), ("falcon-mq", 4), ("falcon-mq", 5)]
SHAPES += [("falcon-new", 4), ("falcon-new", 6)]
CONFIGS = {
    "bloom": lambda heads, width: BloomConfig(hidden_size=heads * width, n_head=heads, n_layer=2),
    "mpt": lambda heads, width: MptConfig(d_model=heads * width, n_heads=heads, n_layers=2),
    "falcon-rw": lambda heads, width: _falcon(heads, width, multi_query=False),
    "falcon-mq": lambda heads, width: _falcon(heads, width, multi_query=True),
    "falcon-new": lambda heads, width: _falcon(
        2 * heads, width, new_decoder_architecture=True, num_kv_heads=heads
    ),
}


def _falcon(heads: int, width: int, **over: object) -> FalconConfig:
    return FalconConfig(
        hidden_size=heads * width,
        num_attention_heads=heads,
        num_hidden_layers=2,
        alibi=True,
        bias=True,
        **over,
    )


def projected(layout: Layout, hidden: Tensor, weight: Tensor, *bias: Tensor) -> Tensor:
    """Queries, keys or values of one head."""
    result = nn.functional.linear(hidden, weight, *bias)
    return result if layout.clip is None else result.clamp(-layout.clip, layout.clip)


def from_slices(layout: Layout, state: dict[str, Tensor], layer: int, hidden: Tensor) -> Tensor:
    """A layer's attention output, head by head, from the blocks that the layout names."""
    rows = hidden.shape[1]
    bias = layout.key_bias(rows)
    later = torch.ones(rows, rows, dtype=torch.bool).triu(1)
    total = torch.zeros_like(hidden)
    for head in range(layout.heads):
        blocks = layout.head_blocks(layer, head)
        query, key, value = (
            projected(layout, hidden, *(block.of(state[block.parameter]) for block in blocks[part]))
            for part in ("query", "key", "value")
        )
        scores = layout.scale * query @ key.transpose(-1, -2) + bias[head]
        (columns,) = (block.of(state[block.parameter]) for block in blocks["output"])
        total += scores.masked_fill(later, -torch.inf).softmax(-1) @ value @ columns.T
    return total + state.get(f"{layout.output.path(layer)}.bias", torch.zeros(()))


@pytest.mark.parametrize(("family", "heads"), SHAPES)
@pytest.mark.parametrize("length", [9, 300])
def test_the_layout_reproduces_the_models_own_attention(
    family: str, heads: int, length: int
) -> None:
    # 300: beyond 256 positions Falcon's bias, built in bf16, is a staircase.
    # float64, so that what is compared is the layout and not the rounding of two sums; MPT rounds
    # its scores to float32 even then, the more the longer the windows it is made for
    limit = {"max_seq_len": length} if family.startswith("mpt") else {}
    model = pico(family, heads=heads, hidden=8 * heads, **limit).double()
    layout = layout_of(model)
    ids = tokens(batch=2, length=length)
    heard: dict[str, Tensor] = {}

    def listen(name: str) -> None:
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output: heard.update({f"{name}.in": inputs[0], name: output})
        )

    for layer in range(layout.layers):
        listen(layout.query.path(layer))
        listen(layout.output.path(layer))
    with torch.no_grad():
        model.base_model(input_ids=ids, use_cache=False)
        for layer in range(layout.layers):
            hidden = heard[f"{layout.query.path(layer)}.in"]
            expected = heard[layout.output.path(layer)]
            actual = from_slices(layout, model.state_dict(), layer, hidden)
            largest = max(1.0, float(expected.abs().max()))
            torch.testing.assert_close(actual, expected, atol=1e-5 * largest, rtol=0.0)


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 25, 32, 71, 112])
def test_slopes_are_those_of_transformers(heads: int) -> None:
    bloom = layout_for(BloomConfig(hidden_size=heads * 2, n_head=heads, n_layer=1))
    torch.testing.assert_close(torch.tensor(bloom.slopes), _get_alibi_slopes(heads, "cpu"))

    mpt = layout_for(MptConfig(d_model=heads * 2, n_heads=heads, n_layers=1))
    steps = build_mpt_alibi_tensor(heads, 9).diff(dim=-1)[:, 0, 0]
    torch.testing.assert_close(torch.tensor(mpt.slopes), steps, atol=1e-6, rtol=1e-5)

    falcon = layout_for(_falcon(heads, 64, multi_query=False))
    own = build_alibi_tensor(torch.ones(1, 600, dtype=torch.long), heads, torch.float32)[:, 0]
    torch.testing.assert_close(falcon.key_bias(600), own / math.sqrt(64))
    torch.testing.assert_close(torch.tensor(falcon.slopes), own[:, 1] / math.sqrt(64))


def test_the_first_bloom_head_is_the_steepest() -> None:
    layout = layout_for(BloomConfig(hidden_size=32, n_head=16, n_layer=1))
    assert layout.slopes[0] == pytest.approx(2**-0.5)
    assert layout.slopes[-1] == pytest.approx(2**-8)


@given(
    family=st.sampled_from(sorted(CONFIGS)),
    heads=st.integers(1, 12),
    width=st.sampled_from([2, 4, 8]),
)
def test_every_row_and_column_belongs_to_exactly_one_head(
    family: str, heads: int, width: int
) -> None:
    config = CONFIGS[family](heads, width)
    layout = layout_for(config)
    for part in PARTS:
        projection = layout.projection(part)
        owners = layout.kv_heads if part in ("key", "value") else layout.heads
        assert len(projection.starts) == owners
    fused = [layout.query, layout.key, layout.value]
    rows = Counter(
        index
        for projection in fused
        for start in projection.starts
        for index in range(start, start + width)
    )
    share = (layout.heads + 2 * layout.kv_heads) * width
    assert rows == dict.fromkeys(range(share), 1)
    columns = sorted(
        index for start in layout.output.starts for index in range(start, start + width)
    )
    assert columns == list(range(layout.hidden))


@pytest.mark.parametrize("family", sorted(PICO))
def test_blocks_name_real_parameters_and_cover_the_projections(family: str) -> None:
    model = pico(family)
    layout = layout_of(model)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    covered: dict[str, set[tuple[int, int]]] = {}
    for head in range(layout.heads):
        for blocks in layout.head_blocks(0, head).values():
            for block in blocks:
                run = range(block.start, block.start + block.length)
                assert run.stop <= shapes[block.parameter][block.axis]
                covered.setdefault(block.parameter, set()).update((block.axis, i) for i in run)
    for name, indices in covered.items():
        (axis,) = {axis for axis, _ in indices}
        assert len(indices) == shapes[name][axis]


@pytest.mark.parametrize(("family", "groups"), [("falcon-mq", 1), ("falcon-new", 2), ("mpt", 4)])
def test_heads_that_share_keys_say_so(family: str, groups: int) -> None:
    layout = layout_of(pico(family))
    assert len({layout.sharing(head) for head in range(layout.heads)}) == groups
    assert all(head in layout.sharing(head) for head in range(layout.heads))


@pytest.mark.parametrize("config", [BertConfig(), CodeGenConfig()], ids=["encoder", "unknown"])
def test_an_undescribed_architecture_is_refused_with_the_known_ones(config: object) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        layout_for(config)
    assert all(family in str(caught.value) for family in FAMILIES)
    assert config.model_type in str(caught.value)


def test_falcon_without_alibi_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="alibi=False"):
        layout_for(FalconConfig(alibi=False))


def test_bloom_split_over_ranks_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="slow_but_exact"):
        layout_for(BloomConfig(pretraining_tp=2, slow_but_exact=True))


def test_a_model_without_a_language_model_head_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="AutoModelForCausalLM"):
        layout_of(pico("bloom").transformer)
