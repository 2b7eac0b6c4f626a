"""Layouts of rotary and learned-position families, each proved against the attention itself."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from transformers import PreTrainedModel

import headsurgeon as hs
from headsurgeon.arch import FAMILIES, Layout, layout_for, layout_of
from headsurgeon.arch.layout import PARTS, Part
from headsurgeon.diagnosis import mlp_dormancy
from headsurgeon.errors import HeadsurgeonWarning, UnsupportedModel
from tests.pico import tokens
from tests.pico_families import NAMES, pico_family, pico_gemma3_with_images

LAYER = 1
LENGTH = 9


@dataclass(frozen=True)
class Seen:
    """One forward pass: maps of a layer, its attention's input, and both sides of its output."""

    maps: Tensor
    hidden: Tensor
    context: Tensor
    output: Tensor


def see(model: PreTrainedModel, layout: Layout) -> Seen:
    ids = torch.arange(5, 5 + 2 * LENGTH).view(2, LENGTH)
    heard: dict[str, tuple[Tensor, Tensor]] = {}

    def listen(path: str) -> torch.utils.hooks.RemovableHandle:
        return model.get_submodule(path).register_forward_hook(
            lambda module, inputs, output: heard.update({path: (inputs[0], output)})
        )

    value, output = layout.value.path(LAYER), layout.output.path(LAYER)
    handles = [listen(value), listen(output)]
    with torch.no_grad():
        result = model.base_model(input_ids=ids, use_cache=False, output_attentions=True)
    for handle in handles:
        handle.remove()
    maps = result.attentions[layout.attention_layers.index(LAYER)]
    return Seen(maps, heard[value][0], *heard[output])


def scramble(model: PreTrainedModel, layout: Layout, part: Part, head: int) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for block in layout.blocks(part, LAYER, head):
            view = block.of(model.get_parameter(block.parameter))
            view.copy_(torch.randn(view.shape, generator=generator))


def changed_heads(before: Tensor, after: Tensor) -> set[int]:
    """Heads [batch, head, …] that differ at all."""
    difference = (before - after).abs().amax(dim=(0, 2, 3))
    return set(torch.nonzero(difference > 1e-6).flatten().tolist())


def by_head(layout: Layout, context: Tensor) -> Tensor:
    starts = torch.tensor(layout.output.starts)
    return context[..., starts[:, None] + torch.arange(layout.head_dim)].transpose(1, 2)


@pytest.mark.parametrize("name", NAMES)
def test_every_row_and_column_belongs_to_exactly_one_head(name: str) -> None:
    model = pico_family(name)
    layout = layout_of(model)
    shapes = {key: parameter.shape for key, parameter in model.named_parameters()}
    owners: dict[str, Counter[int]] = {}
    for part in PARTS:
        group = layout.heads // layout.kv_heads if part in ("key", "value") else 1
        for head in range(0, layout.heads, group):
            for block in layout.blocks(part, LAYER, head):
                indices = range(block.start, block.start + block.length)
                owners.setdefault(f"{block.parameter} {block.axis}", Counter()).update(indices)
    for key, counts in owners.items():
        parameter, axis = key.split()
        assert counts == dict.fromkeys(range(shapes[parameter][int(axis)]), 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_layout_names_every_bias_that_belongs_to_heads(name: str) -> None:
    model = pico_family(name)
    layout = layout_of(model)
    for part in ("query", "key", "value"):
        projection = layout.projection(part)
        module = model.get_submodule(projection.path(LAYER))
        assert projection.bias == (getattr(module, "bias", None) is not None)


@pytest.mark.parametrize("name", NAMES)
def test_zeroing_output_columns_removes_exactly_that_heads_contribution(name: str) -> None:
    model = pico_family(name, attention="eager")
    layout = layout_of(model)
    stock = see(model, layout)
    for head in range(layout.heads):
        weight, *bias = (
            block.of(model.get_parameter(block.parameter)).detach()
            for block in layout.blocks("value", LAYER, head)
        )
        oriented = weight if layout.value.axis == 0 else weight.T
        values = nn.functional.linear(stock.hidden, oriented, *bias)
        if layout.clip is not None:
            values = values.clamp(-layout.clip, layout.clip)
        (block,) = layout.blocks("output", LAYER, head)
        columns = block.of(model.get_parameter(block.parameter)).detach().clone()
        down = columns if layout.output.axis == 1 else columns.T
        contribution = stock.maps[:, head] @ values @ down.T
        assert contribution.abs().max() > 1e-3

        with torch.no_grad():
            block.of(model.get_parameter(block.parameter)).zero_()
        without = see(model, layout)
        torch.testing.assert_close(stock.output - without.output, contribution, atol=1e-5, rtol=0)
        with torch.no_grad():
            block.of(model.get_parameter(block.parameter)).copy_(columns)


@pytest.mark.parametrize("name", NAMES)
def test_scrambling_queries_changes_the_rows_of_that_head_alone(name: str) -> None:
    for head in range(4):
        model = pico_family(name, attention="eager")
        layout = layout_of(model)
        stock = see(model, layout)
        scramble(model, layout, "query", head)
        changed = changed_heads(stock.maps, see(model, layout).maps)
        # a norm over all heads lets every head feel a change in one
        assert changed == (set(range(4)) if layout.joint_norm else {head})


@pytest.mark.parametrize("name", NAMES)
def test_scrambling_keys_and_values_changes_exactly_the_heads_that_share_them(name: str) -> None:
    for head in range(4):
        model = pico_family(name, attention="eager")
        layout = layout_of(model)
        stock = see(model, layout)
        scramble(model, layout, "value", head)
        seen = see(model, layout)
        assert changed_heads(stock.maps, seen.maps) == set()
        contexts = by_head(layout, stock.context), by_head(layout, seen.context)
        assert changed_heads(*contexts) == set(layout.sharing(head))

        scramble(model, layout, "key", head)
        changed = changed_heads(stock.maps, see(model, layout).maps)
        assert changed == (set(range(4)) if layout.joint_norm else set(layout.sharing(head)))


@pytest.mark.parametrize("name", NAMES)
def test_windows_are_those_the_model_masks_with(name: str) -> None:
    model = pico_family(name, attention="eager")
    layout = layout_of(model)
    window = layout.window(LAYER) or LENGTH
    distance = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
    visible = (distance >= 0) & (distance < window)
    assert torch.equal((see(model, layout).maps > 0).all(dim=(0, 1)), visible)


@pytest.mark.parametrize("name", NAMES)
def test_mlp_neurons_are_where_the_layout_says(name: str) -> None:
    model = pico_family(name)
    layout = layout_of(model)
    if layout.mlp_up is None or layout.mlp_down is None:
        assert np.isnan(mlp_dormancy(model, layout)).all()
        return
    up = model.get_parameter(f"{layout.mlp_up}.weight".format(layer=LAYER))
    down = model.get_parameter(f"{layout.mlp_down}.weight".format(layer=LAYER))
    neurons = down.shape[1 - layout.mlp_axis]
    assert layout.mlp_up_start + neurons == up.shape[layout.mlp_axis]
    with torch.no_grad():
        up.select(layout.mlp_axis, layout.mlp_up_start + 3).zero_()
        down.select(1 - layout.mlp_axis, 5).zero_()
    expected = np.zeros(layout.layers)
    expected[LAYER] = 2 / neurons
    np.testing.assert_allclose(mlp_dormancy(model, layout), expected)


def reads(model: PreTrainedModel, length: int) -> bool:
    try:
        with torch.no_grad():
            model(tokens(1, length))
    except IndexError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_windows_are_bounded_by_learned_positions_and_not_by_rotations(name: str) -> None:
    model = pico_family(name)
    layout = layout_of(model)
    # a table of positions has an end, beyond which the model itself fails
    assert layout.max_length == (None if reads(model, 65) else 64)
    assert layout.trained_length == 64
    assert layout.slopes == (0.0,) * 4


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "phi3", "gemma2"])
def test_a_window_longer_than_the_configuration_names_is_read_as_the_model_reads_it(
    name: str,
) -> None:
    model, ids = pico_family(name), tokens(2, 80)
    with torch.no_grad():
        own = float(model(ids, labels=ids).loss)
    with pytest.warns(HeadsurgeonWarning, match="80 tokens are longer than the 64"):
        assert hs.evaluate(model, ids).nll == pytest.approx(own, rel=1e-4)


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"kv_heads": 12}, "key lies in 2 places, where the layout has 12 key/value heads"),
        ({"heads": 5}, "query lies in 4 places, where the layout has 5 heads"),
        ({"heads": 3}, "query lies in 4 places, where the layout has 3 heads"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused_in_words(
    over: dict[str, int], words: str
) -> None:
    layout = layout_of(pico_family("llama"))
    with pytest.raises(UnsupportedModel, match=f"llama: {words}"):
        replace(layout, **over)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 3), (2, 4)])
def test_key_value_heads_that_cannot_be_shared_out_are_refused(heads: int, kv_heads: int) -> None:
    config = hf.LlamaConfig(num_attention_heads=heads, num_key_value_heads=kv_heads)
    words = f"{heads} heads cannot share {kv_heads} key/value heads evenly.* divides that of heads"
    with pytest.raises(UnsupportedModel, match=words):
        layout_for(config)


def test_the_text_model_inside_gemma_3_is_described() -> None:
    model = pico_gemma3_with_images()
    layout = layout_of(model)
    assert (layout.family, layout.layers, layout.head_dim) == ("gemma3", 2, 12)
    names = dict(model.named_parameters())
    for blocks in layout.head_blocks(LAYER, 3).values():
        assert all(block.parameter in names for block in blocks)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (hf.BertConfig(), "an encoder"),
        (hf.T5Config(), "encoder–decoder"),
        (hf.MambaConfig(), "none of its layers attends"),
        (hf.JambaConfig(), "a hybrid"),
        (hf.Qwen3NextConfig(), "a hybrid"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_what_cannot_be_described_is_refused_with_the_reason(
    config: hf.PretrainedConfig, why: str
) -> None:
    with pytest.raises(UnsupportedModel, match=why):
        layout_for(config)


def test_a_model_of_a_hybrid_family_in_which_no_layer_attends_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="none of the 2 layers"):
        layout_for(hf.Lfm2Config(num_hidden_layers=2, full_attn_idxs=[]))


def test_an_undescribed_decoder_is_refused_with_the_list_and_the_recipe() -> None:
    with pytest.raises(UnsupportedModel) as caught:
        layout_for(hf.CodeGenConfig())
    assert "'codegen';" in str(caught.value)
    assert "docs/add_an_architecture.md" in str(caught.value)
    assert all(family in str(caught.value) for family in FAMILIES)


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        (hf.GPT2Config(add_cross_attention=True), "add_cross_attention"),
        (hf.GPT2Config(reorder_and_upcast_attn=True), "reorder_and_upcast_attn"),
        (hf.Gemma3TextConfig(use_bidirectional_attention=True), "use_bidirectional_attention"),
    ],
    ids=["cross", "upcast", "bidirectional"],
)
def test_settings_that_take_another_path_are_refused(
    config: hf.PretrainedConfig, setting: str
) -> None:
    with pytest.raises(UnsupportedModel, match=setting):
        layout_for(config)
