"""Zeroing MLPs: against a model whose weights are zero there, and the residual stream untouched."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import headsurgeon as hs
from headsurgeon.arch import layout_of
from headsurgeon.data import texts
from headsurgeon.errors import SettingsError, UnsupportedModel
from headsurgeon.evaluation import LayerAblation, ablate_layers
from headsurgeon.evaluation.layer_ablation import quarters
from tests.char_tokenizer import char_tokenizer
from tests.pico import pico, tokens
from tests.pico_families import pico_family

WINDOWS = tokens(batch=6, length=16)


def without(family: str, layers: tuple[int, ...]) -> float:
    """The loss of a model whose MLPs of these layers end in weights of zero."""
    model = pico(family)
    layout = layout_of(model)
    assert layout.mlp_down is not None
    with torch.no_grad():
        for layer in layers:
            module = model.get_submodule(layout.mlp_down.format(layer=layer))
            for parameter in module.parameters():
                parameter.zero_()
    return hs.evaluate(model, WINDOWS).nll


@pytest.mark.parametrize("family", ["bloom", "mpt", "falcon-rw"])
def test_a_layers_cost_is_that_of_an_mlp_with_weights_of_zero(family: str) -> None:
    model = pico(family)
    found = ablate_layers(model, WINDOWS, groups=[(1, 0), (2,)])
    stock = hs.evaluate(model, WINDOWS)
    assert found.baseline.nll == pytest.approx(stock.nll)
    for each in (*found.singles, *found.groups):
        assert each.nll == pytest.approx(without(family, each.layers), abs=1e-5)
        assert each.cost.value == pytest.approx(each.nll - stock.nll, abs=1e-6)
        assert each.cost.low <= each.cost.value <= each.cost.high
    assert [each.layers for each in found.groups] == [(0, 1), (2,)]
    # nothing is left behind
    assert hs.evaluate(model, WINDOWS).nll == stock.nll
    assert not any(module._forward_hooks for module in model.modules())


def test_the_residual_stream_stays_though_blooms_mlp_module_returns_it_too() -> None:
    model = pico("bloom")

    def papers(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(output)

    handle = model.transformer.h[1].mlp.register_forward_hook(papers)
    erased = hs.evaluate(model, WINDOWS, attention="stock").nll
    handle.remove()
    ours = ablate_layers(model, WINDOWS, attention="stock").singles[1].nll
    assert abs(erased - ours) > 0.01


def test_texts_of_unequal_length_are_scored_and_the_file_comes_back(tmp_path: Path) -> None:
    given = texts(["a short one", "a text of another length"], char_tokenizer())
    found = ablate_layers(pico("bloom"), given)
    assert math.isfinite(found.singles[0].cost.low)
    found.save(tmp_path / "layers.json")
    assert LayerAblation.load(tmp_path / "layers.json").model_dump() == found.model_dump()


def test_quarters_cover_every_layer_once_and_none_is_a_single_layer() -> None:
    assert [list(group) for group in quarters(24)] == np.arange(24).reshape(4, 6).tolist()
    assert [len(quarters(layers)) for layers in (1, 3, 4, 7, 8)] == [0, 0, 2, 2, 4]
    for layers in range(4, 40):
        assert [layer for group in quarters(layers) for layer in group] == list(range(layers))
        assert min(map(len, quarters(layers))) > 1
    assert ablate_layers(pico("bloom"), WINDOWS).groups == ()


def test_layers_that_there_are_not_are_refused() -> None:
    for groups in ([()], [(0, 3)], [(-1,)]):
        with pytest.raises(SettingsError, match="layers from 0 to 2"):
            ablate_layers(pico("bloom"), WINDOWS, groups=groups)


def test_a_family_without_dense_mlps_is_refused_in_words() -> None:
    with pytest.raises(UnsupportedModel, match="no dense MLP"):
        ablate_layers(pico_family("mixtral"), WINDOWS)
