"""In 16 bit, what is scored and diagnosed is the model that will run, with its own rounding."""

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import headsurgeon as hs
from headsurgeon.measurement.one_head_map import attention_map
from tests.pico import pico, tokens

HALVES = (torch.bfloat16, torch.float16)


def own_loss(model: PreTrainedModel, ids: torch.Tensor) -> float:
    """The loss of transformers' own forward, in nats per predicted token."""
    with torch.no_grad():
        logits = model(ids).logits.float()
    return float(
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    )


def own_masses(model: PreTrainedModel, ids: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        maps = model(ids, output_attentions=True).attentions
    return np.stack([each.float().mean(dim=(0, 2))[:, 0].numpy() for each in maps])


def peaked(family: str, dtype: torch.dtype) -> PreTrainedModel:
    """Scores large enough that rounding them is felt."""
    extra = {"max_seq_len": 1024} if family == "mpt" else {}
    model = pico(family, hidden=64, **extra)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name and "wte" not in name:
                parameter.mul_(6.0)
    return model.to(dtype)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", ["bloom", "mpt", "falcon-rw"])
def test_the_loss_is_that_of_the_models_own_forward(family: str, dtype: torch.dtype) -> None:
    model, ids = peaked(family, dtype), tokens(1, 600)
    found = hs.evaluate(model, ids)
    assert found.attention == "stock"
    assert found.nll == pytest.approx(own_loss(model, ids), rel=1e-4)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", ["bloom", "mpt"])
def test_masses_are_those_of_the_models_own_maps(family: str, dtype: torch.dtype) -> None:
    model, ids = peaked(family, dtype), tokens(1, 600)
    stats = hs.measure(model, ids)
    assert stats.provenance.attention == "blocks"
    np.testing.assert_allclose(stats.first_token_mass, own_masses(model, ids), atol=2e-3)


def test_blooms_rounding_of_its_bias_is_seen_and_can_be_left_out() -> None:
    model, ids = peaked("bloom", torch.bfloat16), tokens(1, 600)
    own = own_masses(model, ids)
    error = {
        attention: np.abs(hs.measure(model, ids, attention=attention).first_token_mass - own).max()
        for attention in ("stock", "fast")
    }
    assert error["stock"] < 0.1 * error["fast"]


def test_one_heads_map_is_that_of_the_models_own_forward() -> None:
    model, ids = peaked("bloom", torch.bfloat16), tokens(1, 400)
    with torch.no_grad():
        own = model(ids, output_attentions=True).attentions[1][0, 3].float().numpy()
    found = attention_map(model, ids[0], hs.HeadId(1, 3))
    assert np.abs(found - own).max() < 0.02


def test_autocast_counts_as_16_bit() -> None:
    model, ids = pico("bloom"), tokens(1, 60)
    with torch.autocast("cpu", torch.bfloat16):
        assert hs.evaluate(model, ids).attention == "stock"
        assert hs.measure(model, ids).provenance.attention == "blocks"
    assert hs.evaluate(model, ids).attention == "tiles"
