"""Claims about MLP dormancy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from headsurgeon.arch import layout_of
from headsurgeon.diagnosis import mlp_dormancy
from headsurgeon.errors import ModelError
from tests.pico import pico

FAMILIES = ["bloom", "mpt", "falcon-rw", "falcon-mq", "falcon-new"]


@pytest.mark.parametrize("family", FAMILIES)
def test_ablated_neurons_are_counted_and_no_others(family: str) -> None:
    model = pico(family)
    layout = layout_of(model)
    up = model.get_parameter(layout.mlp_up.format(layer=1) + ".weight")
    down = model.get_parameter(layout.mlp_down.format(layer=1) + ".weight")
    with torch.no_grad():
        for layer in range(layout.layers):
            for path in (layout.mlp_up, layout.mlp_down):
                model.get_parameter(path.format(layer=layer) + ".weight").fill_(1.0)
        up[0] = 0.0
        down[:, 1] = 0.0
        down[:, 2] = 1e-5
    neurons = up.shape[0]
    assert mlp_dormancy(model, layout)[:2].tolist() == [0.0, 3 / neurons]


def test_the_limit_is_on_the_product_of_the_two_norms() -> None:
    model = pico("bloom")
    layout = layout_of(model)
    up = model.get_parameter(layout.mlp_up.format(layer=0) + ".weight").detach()
    down = model.get_parameter(layout.mlp_down.format(layer=0) + ".weight").detach()
    product = np.linalg.norm(up.numpy(), axis=1) * np.linalg.norm(down.numpy(), axis=0)
    limit = float(np.median(product))
    assert mlp_dormancy(model, layout, limit)[0] == (product < limit).mean()


def test_neurons_may_lie_on_the_other_axis() -> None:
    """The same MLP read backwards, its last projection as the first one, has the same neurons."""
    model = pico("bloom")
    layout = layout_of(model)
    backwards = replace(layout, mlp_up=layout.mlp_down, mlp_down=layout.mlp_up, mlp_axis=1)
    np.testing.assert_array_equal(
        mlp_dormancy(model, layout, 1.2), mlp_dormancy(model, backwards, 1.2)
    )
    assert 0.0 < mlp_dormancy(model, layout, 1.2)[0] < 1.0


def test_a_gate_stacked_before_the_neurons_is_left_out() -> None:
    model = pico("bloom")
    layout = layout_of(model)
    plain = mlp_dormancy(model, layout, 1.2)
    for layer in range(layout.layers):
        module = model.get_submodule(str(layout.mlp_up).format(layer=layer))
        neurons = module.weight.shape[0]
        stacked = torch.cat([torch.zeros_like(module.weight), module.weight]).detach()
        module.weight = torch.nn.Parameter(stacked)
    gated = replace(layout, mlp_up_start=neurons)
    np.testing.assert_array_equal(mlp_dormancy(model, gated, 1.2), plain)


def test_without_a_dense_mlp_there_is_no_dormancy() -> None:
    model = pico("bloom")
    assert np.isnan(mlp_dormancy(model, replace(layout_of(model), mlp_up=None))).all()


def test_weights_that_are_not_numbers_are_refused() -> None:
    model = pico("bloom")
    layout = layout_of(model)
    with torch.no_grad():
        model.get_parameter(layout.mlp_up.format(layer=1) + ".weight")[0, 0] = torch.nan
    with pytest.raises(ModelError, match="NaN or infinite weights"):
        mlp_dormancy(model, layout)
