"""One head's map is the map the model itself computed, and looking leaves no trace."""

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from headsurgeon.errors import CorpusError, HeadError, ModelError, SettingsError
from headsurgeon.heads import HeadId
from headsurgeon.measurement import measure
from headsurgeon.measurement.one_head_map import attention_map
from tests.dense import dense_layers
from tests.pico import PICO, pico, tokens
from tests.pico_families import NAMES, pico_family

LENGTH = 19
SINKS = "gpt_oss"


def own_maps(model: PreTrainedModel, ids: torch.Tensor) -> list[torch.Tensor]:
    """Each layer's maps as the model itself reports them."""
    with torch.no_grad():
        return list(model.base_model(ids, use_cache=False, output_attentions=True).attentions)


@pytest.mark.parametrize("family", sorted(PICO))
def test_the_map_of_an_alibi_head_is_the_models_own(family: str) -> None:
    # dense_layers asks the model, except for Falcon, whose reported maps have the bias twice
    model = pico(family)
    ids = tokens(batch=1, length=LENGTH)
    for layer, dense in enumerate(dense_layers(model, ids)):
        for head in range(4):
            found = attention_map(model, ids[0], HeadId(layer, head))
            expected = dense.probabilities[0, head].numpy()
            np.testing.assert_allclose(found, expected, atol=1e-5)
            np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_map_of_any_other_head_is_the_models_own(name: str) -> None:
    model = pico_family(name, attention="eager")
    ids = tokens(batch=1, length=LENGTH)
    layers = layout_of(model).attention_layers
    for layer, maps in zip(layers, own_maps(model, ids), strict=True):
        for head in range(4):
            found = attention_map(model, ids[0], HeadId(layer, head))
            np.testing.assert_allclose(found, maps[0, head].numpy(), atol=1e-5)
            if name != SINKS:
                np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_a_model_loaded_with_sdpa_has_the_same_map(name: str) -> None:
    ids = tokens(batch=1, length=LENGTH)[0]
    fused, eager = (
        attention_map(pico_family(name, attention=attention), ids, "L1H2")
        for attention in ("sdpa", "eager")
    )
    np.testing.assert_allclose(fused, eager, atol=1e-5)


def test_what_a_learned_sink_takes_is_missing_from_the_rows() -> None:
    ids = tokens(batch=1, length=LENGTH)[0]
    found = attention_map(pico_family(SINKS, attention="eager"), ids, "L0H1")
    assert found.sum(1).max() < 1.0
    assert found[0, 0] < 1.0


@pytest.mark.parametrize("model", [pico("bloom"), pico_family("llama")], ids=["bloom", "llama"])
def test_the_map_agrees_with_the_statistics_and_nothing_of_it_lies_ahead(
    model: PreTrainedModel,
) -> None:
    ids = tokens(batch=1, length=LENGTH)
    found = attention_map(model, ids[0], "L1H3")
    assert np.abs(np.triu(found, 1)).max() == 0.0
    stats = measure(model, ids, attention="stock")
    assert stats.first_token_mass[1, 3] == pytest.approx(found[:, 0].mean(), abs=1e-6)
    entropy = -(found * np.log(np.maximum(found, 1e-30))).sum(1).mean()
    assert stats.entropy[1, 3] == pytest.approx(entropy, abs=1e-5)


def test_looking_leaves_no_trace() -> None:
    for model in (pico("bloom"), pico_family("llama")):
        model.train()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        attention_map(model, tokens(batch=1, length=LENGTH)[0], "L0H0")
        assert model.training
        assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
        assert not any(module._forward_hooks for module in model.modules())


def test_bad_input_is_refused() -> None:
    model = pico("bloom")
    ids = tokens(batch=1, length=LENGTH)[0]
    with pytest.raises(HeadError, match=r"L9H0.*layers 0–2"):
        attention_map(model, ids, "L9H0")
    with pytest.raises(HeadError, match="such as L5H14"):
        attention_map(model, ids, "head 3")
    with pytest.raises(SettingsError, match="at least 2 tokens"):
        attention_map(model, ids[:1], "L0H0")
    with pytest.raises(CorpusError, match="vocabulary"):
        attention_map(model, ids + 90, "L0H0")
    layout = layout_of(model)
    with torch.no_grad():
        model.get_parameter(f"{layout.query.path(1)}.bias").fill_(torch.nan)
    with pytest.raises(ModelError, match="L1H0 is NaN"):
        attention_map(model, ids, "L1H0")
