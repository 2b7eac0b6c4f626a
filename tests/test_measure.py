"""Measuring on the exact path: right numbers, and a model that is afterwards what it was."""

import hashlib
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from headsurgeon import measure as public_measure
from headsurgeon.arch import layout_of
from headsurgeon.errors import CorpusError, ModelError, SettingsError, UnsupportedModel
from headsurgeon.head_stats import HeadStats
from headsurgeon.heads import STATISTICS
from headsurgeon.measurement import measure, null_mass
from tests.dense import dense_layers, dense_statistics
from tests.pico import PICO, pico, tokens

exact = partial(measure, attention="stock")
CASES = [(family, heads) for family in PICO for heads in (4, 6)]


def check_against_maps(model: PreTrainedModel, ids: torch.Tensor, stats: HeadStats) -> None:
    for layer, dense in enumerate(dense_layers(model, ids)):
        expected = dense_statistics(dense)
        quantiles = expected.pop("row_quantiles")
        assert set(expected) == set(STATISTICS)
        for name, value in expected.items():
            actual = stats.values[name][:, layer]
            np.testing.assert_allclose(actual, value, atol=1e-5, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(stats.row_quantiles[:, layer], quantiles, atol=1e-5)


@pytest.mark.parametrize(("family", "heads"), CASES)
@pytest.mark.parametrize("length", [2, 3, 40])
def test_statistics_are_those_of_the_whole_maps(family: str, heads: int, length: int) -> None:
    model = pico(family, heads=heads, hidden=8 * heads)
    ids = tokens(batch=3, length=length)
    check_against_maps(model, ids, exact(model, ids))


@pytest.mark.parametrize("family", ["bloom", "mpt", "falcon-rw", "falcon-mq", "falcon-new"])
def test_they_still_are_beyond_one_block_and_beyond_256_positions(family: str) -> None:
    model = pico(family, layers=2)
    ids = tokens(batch=2, length=300)
    check_against_maps(model, ids, exact(model, ids))


def test_the_maps_of_the_own_falcon_code_are_the_models() -> None:
    model = pico("falcon-new")
    for layer in dense_layers(model, tokens(length=300)):
        torch.testing.assert_close(
            layer.probabilities @ layer.value, layer.context, atol=1e-5, rtol=0.0
        )


@pytest.mark.parametrize("attention", ["auto", "stock"])
def test_batches_do_not_matter(attention: str) -> None:
    model, ids = pico("bloom"), tokens(batch=5, length=20)
    alone = measure(model, ids, batch_size=1, attention=attention)
    together = measure(model, ids, batch_size=3, attention=attention)
    for name in STATISTICS:
        np.testing.assert_allclose(alone.values[name], together.values[name], atol=1e-5)


def state_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def traces(model: nn.Module) -> list[object]:
    """Everything a forward pass could have been changed by, besides the parameters."""
    return [
        (
            name,
            module.training,
            module.__dict__.get("forward"),
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            len(module._backward_hooks),
        )
        for name, module in model.named_modules()
    ] + [model.config.to_dict(), model.config._attn_implementation]


@pytest.mark.parametrize("family", list(PICO))
@pytest.mark.parametrize("attention", ["auto", "stock"])
def test_measuring_changes_nothing(family: str, attention: str) -> None:
    model, ids = pico(family), tokens(length=30)
    model.base_model.train()
    layout = layout_of(model)
    model.get_submodule(layout.mlp_up.format(layer=1)).eval()
    with torch.no_grad():
        before = model.eval()(ids, use_cache=False).logits.clone()
    model.base_model.train()
    model.get_submodule(layout.mlp_up.format(layer=1)).eval()
    untouched = traces(model), state_hash(model)

    measure(model, ids, attention=attention)

    assert (traces(model), state_hash(model)) == untouched
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        after = model.eval()(ids, use_cache=False).logits
    assert torch.equal(before, after)


@pytest.mark.parametrize("family", ["bloom", "mpt", "falcon-rw"])
def test_the_stock_path_gives_the_same_logits_while_measuring(family: str) -> None:
    model, ids = pico(family), tokens(length=30)
    with torch.no_grad():
        before = model.base_model(ids, use_cache=False).last_hidden_state.clone()
    during = []
    handle = model.base_model.register_forward_hook(
        lambda module, inputs, output: during.append(output.last_hidden_state)
    )
    exact(model, ids)
    handle.remove()
    # the first pass compares the model with its layout
    assert torch.equal(during[-1], before)


class Broken(Exception):
    """Raised in the middle of a forward pass."""


@pytest.mark.parametrize("family", ["bloom", "mpt", "falcon-mq"])
@pytest.mark.parametrize("attention", ["auto", "stock"])
def test_an_exception_leaves_nothing_behind(family: str, attention: str) -> None:
    model, ids = pico(family).train(), tokens(length=10)
    layout = layout_of(model)
    culprit = model.get_submodule(layout.mlp_down.format(layer=layout.layers - 1))

    def explode(*_: object) -> None:
        raise Broken

    handle = culprit.register_forward_hook(explode)
    untouched = traces(model)
    with pytest.raises(Broken):
        measure(model, ids, attention=attention)
    assert traces(model) == untouched
    handle.remove()


@pytest.mark.parametrize("attention", ["auto", "stock"])
def test_nan_weights_are_refused_by_name(attention: str) -> None:
    model = pico("bloom")
    layout = layout_of(model)
    path = layout.query.path(1)
    with torch.no_grad():
        model.get_submodule(path).weight[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"layer 1 .*query_key_value\.weight"):
        measure(model, tokens(), attention=attention)


def test_a_window_longer_than_the_model_reads_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"65 tokens .* 64"):
        measure(pico("mpt", max_seq_len=64), tokens(length=65))


def test_a_window_of_one_token_is_refused() -> None:
    with pytest.raises(SettingsError, match="at least 2"):
        measure(pico("bloom"), tokens(length=1))


def test_no_windows_are_refused() -> None:
    with pytest.raises(SettingsError, match="got 0"):
        measure(pico("bloom"), tokens(batch=0))


def test_a_token_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(CorpusError, match="97"):
        measure(pico("bloom"), torch.full((1, 4), 97))


def test_a_model_without_head_is_refused() -> None:
    with pytest.raises(UnsupportedModel):
        measure(pico("bloom").transformer, tokens())


@pytest.mark.parametrize("family", ["bloom", "mpt", "falcon-rw", "falcon-new"])
@pytest.mark.parametrize("length", [2, 33, 300])
def test_the_null_is_what_zero_scores_show(family: str, length: int) -> None:
    model = pico(family)
    layout = layout_of(model)
    with torch.no_grad():
        for layer in range(layout.layers):
            module = model.get_submodule(layout.query.path(layer))
            for projection in (layout.query, layout.key):
                for start in projection.starts:
                    module.weight[start : start + layout.head_dim] = 0.0
                    if projection.bias:
                        module.bias[start : start + layout.head_dim] = 0.0
    stats = exact(model, tokens(length=length))
    np.testing.assert_allclose(stats.first_token_mass, stats.null_mass, atol=1e-5)


def test_the_null_rises_as_the_slope_falls() -> None:
    # BLOOM's slopes fall with the index when the head count is a power of two
    rising = np.diff(null_mass(layout_of(pico("bloom", heads=8)), 64)[0])
    assert (rising > 0).all()


def test_results_say_what_they_were_measured_on() -> None:
    stats = exact(pico("bloom"), tokens(batch=2, length=12))
    assert stats.provenance.length == 12
    assert stats.provenance.count == 2
    assert stats.provenance.dtype == "float32"
    assert stats.documents == ("window-0", "window-1")


def test_measure_is_public() -> None:
    assert public_measure is measure
