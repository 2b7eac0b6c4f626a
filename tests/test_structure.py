"""Models whose layers or heads are not those of their configuration."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from transformers import PreTrainedModel

import headsurgeon as hs
from headsurgeon.arch import layout_of
from headsurgeon.errors import ModelError, UnsupportedModel
from headsurgeon.planning import Plan
from tests.pico import PICO, pico, tokens
from tests.pico_families import pico_family

FAMILIES = ("bloom", "gpt2", "llama", "phi3")


def model_of(family: str) -> PreTrainedModel:
    return pico(family) if family in PICO else pico_family(family)


def one_head_less(model: PreTrainedModel, layer: int) -> None:
    """Cuts the last head, with the keys and values that it reads, out of one layer."""
    layout = layout_of(model)
    cut: dict[str, tuple[int, list[int]]] = {}
    for head in layout.sharing(layout.heads - 1):
        for blocks in layout.head_blocks(layer, head).values():
            for block in blocks:
                axis, rows = cut.setdefault(block.parameter, (block.axis, []))
                rows.extend(range(block.start, block.start + block.length))
    for name, (axis, rows) in cut.items():
        path, _, leaf = name.rpartition(".")
        value = model.get_parameter(name)
        kept = sorted(set(range(value.shape[axis])) - set(rows))
        smaller = value.detach().index_select(axis, torch.tensor(kept)).clone()
        setattr(model.get_submodule(path), leaf, nn.Parameter(smaller))


USES: dict[str, Callable[[PreTrainedModel], object]] = {
    "measure": lambda model: hs.measure(model, tokens()),
    "evaluate": lambda model: hs.evaluate(model, tokens(), attention="stock"),
    "ablate": lambda model: hs.ablate(model, ["L0H0"], tokens()),
    "operate": lambda model: hs.operate(model, Plan(model="", heads=({"id": "L0H0"},))),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_with_fewer_heads_is_refused_by_its_number(family: str, use: str) -> None:
    model = model_of(family)
    one_head_less(model, 1)
    with pytest.raises(UnsupportedModel, match="layer 1 has other heads"):
        USES[use](model)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("family", ["bloom", "llama"])
def test_layers_that_were_cut_or_doubled_are_refused(family: str, use: str) -> None:
    for change in (lambda layers: layers[:-1], lambda layers: [*layers, layers[-1]]):
        model = model_of(family)
        path = layout_of(model).block(0).rpartition(".")[0]
        stack = model.get_submodule(path)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, nn.ModuleList(change(list(stack))))
        with pytest.raises(UnsupportedModel, match="layers and the configuration says"):
            USES[use](model)


@pytest.mark.parametrize("family", ["bloom", "llama"])
def test_one_layer_in_two_places_is_refused(family: str) -> None:
    model = model_of(family)
    path = layout_of(model).block(0).rpartition(".")[0]
    stack = model.get_submodule(path)
    stack[1] = stack[0]
    for use in USES.values():
        with pytest.raises(UnsupportedModel, match="layers 0 and 1 are one and the same"):
            use(model)


@pytest.mark.parametrize("first", [0, 1])
def test_weights_that_two_layers_share_can_be_measured_and_not_operated_on(first: int) -> None:
    model = pico_family("llama")
    layers = model.model.layers
    layers[1 - first].self_attn.q_proj.weight = layers[first].self_attn.q_proj.weight
    hs.measure(model, tokens())
    for layer in (0, 1):
        with pytest.raises(ModelError, match=r"q_proj\.weight is also .*tied"):
            hs.operate(model, Plan(model="", heads=({"id": f"L{layer}H0"},)))


def test_a_weight_that_is_computed_can_be_measured_and_not_operated_on() -> None:
    model = pico("bloom")
    before = hs.measure(model, tokens()).first_token_mass
    weight_norm(model.transformer.h[1].self_attention.query_key_value)
    assert hs.measure(model, tokens()).first_token_mass == pytest.approx(before)
    with pytest.raises(ModelError, match="computed from others"):
        hs.operate(model, Plan(model="", heads=({"id": "L1H0"},)))


def test_a_language_model_head_of_another_kind_is_refused() -> None:
    model = pico_family("llama")
    model.lm_head = nn.Sequential(model.lm_head, nn.Tanh())
    with pytest.raises(ModelError, match="expected a linear module"):
        hs.evaluate(model, tokens())


def test_a_note_of_pruned_heads_beside_whole_weights_changes_nothing() -> None:
    model = pico("bloom")
    before = hs.measure(model, tokens()).first_token_mass
    model.config.pruned_heads = {1: [3]}
    assert (hs.measure(model, tokens()).first_token_mass == before).all()
