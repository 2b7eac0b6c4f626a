"""Measuring at the attention interface: right numbers for every family, and no trace left."""

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from headsurgeon.arch import layout_of
from headsurgeon.errors import CorpusError, ModelError, SettingsError
from headsurgeon.head_stats import HeadStats
from headsurgeon.heads import QUANTILE_LEVELS
from headsurgeon.measurement import measure
from headsurgeon.measurement.attention_interface import listening
from headsurgeon.measurement.layer_capture import LayerCapture
from tests.pico import tokens
from tests.pico_families import NAMES, VARIANTS, pico_family, pico_gemma3_with_images

LENGTH = 23
SDPA = [name for name in NAMES if VARIANTS[name][0] not in ("Gemma2", "GptOss")]


def maps_of(model: PreTrainedModel, ids: Tensor) -> dict[int, np.ndarray]:
    """Attention by layer as the model itself reports it, float64 [window, head, row, key]."""
    with torch.no_grad():
        result = model.base_model(input_ids=ids, use_cache=False, output_attentions=True)
    layers = layout_of(model).attention_layers
    reported = (layer.double().numpy() for layer in result.attentions)
    return dict(zip(layers, reported, strict=True))


def dense(maps: np.ndarray, seen: int, sinks: bool) -> dict[str, np.ndarray]:
    """Statistics [window, head] straight from whole maps."""
    rows = maps.shape[-1]
    mass = maps[..., :seen, 0]
    entries = np.concatenate((maps, 1 - maps.sum(-1, keepdims=True)), -1) if sinks else maps
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.where(entries > 1e-12, -entries * np.log(entries), 0.0).sum(-1)
    distance = np.arange(rows)[:, None] - np.arange(rows)
    quantiles = np.quantile(mass[..., 1:], QUANTILE_LEVELS, axis=-1)
    return {
        "first_token_mass": mass.mean(-1),
        "first_token_mass_after_row0": mass[..., 1:].mean(-1),
        "sink_rows": (mass > 0.9).mean(-1),
        "entropy": entropy.mean(-1),
        "mean_distance": (maps * distance).sum(-1).mean(-1),
        "previous_token_mass": np.diagonal(maps, -1, 2, 3).mean(-1),
        "local_mass": (maps * (distance <= 2)).sum(-1).mean(-1),
        "row_quantiles": np.moveaxis(quantiles, 0, -1),
    }


def check_against_maps(stats: HeadStats, model: PreTrainedModel, ids: Tensor, atol: float) -> None:
    layout = layout_of(model)
    for layer, maps in maps_of(model, ids).items():
        seen = min(layout.window(layer) or LENGTH, LENGTH)
        expected = dense(maps, seen, layout.learned_sinks)
        quantiles = expected.pop("row_quantiles")
        np.testing.assert_allclose(stats.row_quantiles[:, layer], quantiles, atol=atol)
        for name, values in expected.items():
            np.testing.assert_allclose(
                stats.values[name][:, layer], values, atol=atol * LENGTH, err_msg=name
            )
            if name not in ("mean_distance", "entropy"):
                np.testing.assert_allclose(
                    stats.values[name][:, layer], values, atol=atol, err_msg=name
                )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attention", ["stock", "auto"])
def test_statistics_are_those_of_the_models_own_maps(name: str, attention: str) -> None:
    model = pico_family(name, attention="eager")
    ids = tokens(batch=3, length=LENGTH)
    stats = measure(model, ids, attention=attention, batch_size=2)
    check_against_maps(stats, model, ids, 1e-5 if attention == "stock" else 1e-4)


@pytest.mark.parametrize("name", SDPA)
def test_sdpa_and_eager_measure_the_same(name: str) -> None:
    ids = tokens(batch=2, length=LENGTH)
    stats = measure(pico_family(name, attention="sdpa"), ids, attention="stock")
    check_against_maps(stats, pico_family(name, attention="eager"), ids, 1e-5)


def traces(model: PreTrainedModel) -> tuple[object, ...]:
    found = (getattr(module, "config", None) for module in model.modules())
    configs = {id(config): config for config in found if config is not None}
    return (
        [(key, config._attn_implementation) for key, config in configs.items()],
        sorted(AttentionInterface._global_mapping),
        sorted(AttentionMaskInterface._global_mapping),
        sum(
            len(module._forward_hooks) + len(module._forward_pre_hooks)
            for module in model.modules()
        ),
        list(model.state_dict()),
        model.training,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_model_computes_the_same_while_it_is_measured(name: str, attention: str) -> None:
    if attention == "sdpa" and name not in SDPA:
        return
    model = pico_family(name, attention=attention)
    ids = tokens(length=LENGTH)
    untouched = traces(model)
    with torch.no_grad():
        before = model.base_model(ids, use_cache=False).last_hidden_state.clone()
    # the first time a model is measured its attention is also compared with what describes it
    measure(model, ids)
    during: list[Tensor] = []
    handle = model.base_model.register_forward_hook(
        lambda module, inputs, output: during.append(output.last_hidden_state)
    )
    measure(model, ids)
    handle.remove()
    assert torch.equal(torch.cat(during), before)
    assert traces(model) == untouched


class Broken(Exception):
    """Raised in the middle of a forward pass."""


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_an_exception_leaves_nothing_behind(name: str) -> None:
    model = pico_family(name).train()
    layout = layout_of(model)

    def explode(*_: object) -> None:
        raise Broken

    handle = model.get_submodule(layout.output.path(1)).register_forward_pre_hook(explode)
    untouched = traces(model)
    with pytest.raises(Broken):
        measure(model, tokens())
    assert traces(model) == untouched
    handle.remove()


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_scales_are_those_of_the_layout(name: str) -> None:
    model = pico_family(name, attention="eager")
    layout = layout_of(model)
    ids = tokens(length=LENGTH)
    maps = maps_of(model, ids)

    def check(layer: int, capture: LayerCapture) -> None:
        assert capture.score_terms is not None
        context = torch.tensor(maps[layer]).float() @ capture.value
        torch.testing.assert_close(capture.context, context, atol=1e-5, rtol=0.0)
        assert (capture.score_terms.sinks is not None) == layout.learned_sinks
        assert capture.score_terms.softcap == layout.softcap
        # OPT scales its queries itself, and this GPT-2 divides by the layer's number
        scale = {"opt": 1.0, "opt-nobias": 1.0, "gpt2-inverse": layout.scale / (layer + 1)}
        assert capture.score_terms.scale == pytest.approx(scale.get(name, layout.scale))

    with torch.no_grad(), listening(model, layout, check):
        model.base_model(input_ids=ids, use_cache=False)


@pytest.mark.parametrize("name", NAMES)
def test_the_null_is_what_zero_scores_show(name: str) -> None:
    model = pico_family(name)
    layout = layout_of(model)
    with torch.no_grad():
        for layer in layout.attention_layers:
            for head in range(layout.heads):
                for block in layout.blocks("query", layer, head):
                    block.of(model.get_parameter(block.parameter)).zero_()
        # a norm with a bias would bring zeros back to life
        for key, parameter in model.named_parameters():
            if "q_norm" in key or "q_layernorm" in key:
                parameter.zero_()
    stats = measure(model, tokens(length=LENGTH))
    np.testing.assert_allclose(stats.first_token_mass, stats.null_mass, atol=1e-5)
    assert tuple(np.flatnonzero(stats.attends)) == layout.attention_layers


def test_a_text_model_measures_the_same_inside_a_model_that_reads_images() -> None:
    ids = tokens(length=LENGTH)
    alone, inside = (
        measure(pico_family("gemma3_text"), ids),
        measure(pico_gemma3_with_images(), ids),
    )
    assert set(alone.values) == set(inside.values)
    for name, values in alone.values.items():
        np.testing.assert_allclose(inside.values[name], values, atol=1e-5, err_msg=name)


def test_with_a_window_mass_is_over_the_rows_that_see_position_0() -> None:
    stats = measure(pico_family("mistral"), tokens(length=LENGTH))
    np.testing.assert_allclose(stats.null_mass, np.mean([1 / (t + 1) for t in range(5)]))
    assert (
        stats.null_mass[0, 0]
        > measure(pico_family("mistral-full"), tokens(length=LENGTH)).null_mass[0, 0]
    )


def test_results_say_whether_any_layer_was_measured_in_one_pass() -> None:
    expected = {"llama": True, "qwen2-window": True, "gemma2": False, "mistral": False}
    for name, possible in expected.items():
        found = measure(pico_family(name), tokens(length=LENGTH)).provenance.attention
        assert found == ("tiles" if possible else "blocks")


def test_fast_is_refused_where_no_layer_can_be_fast() -> None:
    with pytest.raises(SettingsError, match="attention 'stock'"):
        measure(pico_family("gemma2"), tokens(length=LENGTH), attention="fast")


def test_attention_that_cannot_be_listened_to_is_refused() -> None:
    model = pico_family("llama", attention="flex_attention")
    with pytest.raises(SettingsError, match=r"expected eager or sdpa: model\.set_attn"):
        measure(model, tokens())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_padding_mask_is_refused(attention: str) -> None:
    model = pico_family("llama", attention=attention)
    padded = torch.ones(2, 12, dtype=torch.long)
    padded[1, :4] = 0
    ignore = listening(model, layout_of(model), lambda layer, capture: None)
    with torch.no_grad(), ignore, pytest.raises(ModelError, match="without padding"):
        model.base_model(input_ids=tokens(), attention_mask=padded, use_cache=False)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_windows_are_refused(side: str) -> None:
    ids = tokens().clamp(min=10)
    part = slice(None, 3) if side == "left" else slice(-3, None)
    ids[1, part] = 7
    measure(pico_family("llama"), ids)
    with pytest.raises(CorpusError, match="window 1 begins or ends with padding"):
        measure(pico_family("llama", pad_token_id=7), ids)


def test_a_mask_the_layout_does_not_describe_is_refused() -> None:
    model = pico_family("mistral")
    model.config.sliding_window = 5
    layout = layout_of(model)
    model.config.sliding_window = 6
    ignore = listening(model, layout, lambda layer, capture: None)
    with torch.no_grad(), ignore, pytest.raises(ModelError, match="window of 5"):
        model.base_model(input_ids=tokens(), use_cache=False)
