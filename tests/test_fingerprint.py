"""Fingerprints: what changes them and what does not."""

import pytest
import torch

from headsurgeon.arch import layout_of
from headsurgeon.errors import ModelError
from headsurgeon.heads import HeadId
from headsurgeon.models import fingerprint as module
from headsurgeon.models.fingerprint import attention, fingerprint, fingerprints, touched
from tests.pico import PICO, pico


def of(model: torch.nn.Module) -> str:
    return fingerprint(model, layout_of(model))


@pytest.mark.parametrize("family", sorted(PICO))
def test_equal_weights_have_equal_fingerprints_and_other_weights_do_not(family: str) -> None:
    assert of(pico(family)) == of(pico(family)) != of(pico(family, seed=1))


@pytest.mark.parametrize("family", sorted(PICO))
def test_every_attention_projection_of_every_layer_counts(family: str) -> None:
    model = pico(family)
    layout = layout_of(model)
    before = of(model)
    for name in attention(model, layout):
        parameter = model.get_parameter(name)
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[0] += 1.0
            assert of(model) != before, name
            parameter.copy_(kept)
    assert of(model) == before
    for layer in range(layout.layers):
        for head in range(layout.heads):
            assert set(touched(layout, [HeadId(layer, head)])) <= set(attention(model, layout))


def test_weights_that_are_not_in_memory_are_refused_by_name() -> None:
    model = pico("bloom")
    dense = model.transformer.h[0].self_attention.dense
    dense.weight = torch.nn.Parameter(dense.weight.detach().to("meta"))
    with pytest.raises(ModelError, match=r"h\.0\.self_attention\.dense\.weight is not in memory"):
        of(model)


def test_one_bit_of_an_attention_tensor_counts_and_the_rest_of_the_model_does_not() -> None:
    model = pico("bloom")
    before = of(model)
    with torch.no_grad():
        model.get_parameter("transformer.h.1.mlp.dense_h_to_4h.weight")[0, 0] += 1.0
    assert of(model) == before
    with torch.no_grad():
        value = model.get_parameter("transformer.h.1.self_attention.dense.weight")[0, :1]
        value.copy_(torch.nextafter(value, torch.tensor([9.0])))
    assert of(model) != before


def test_a_bf16_checkpoint_keeps_its_fingerprint_when_widened() -> None:
    narrow = pico("bloom").to(torch.bfloat16)
    expected = of(narrow)
    assert of(narrow.to(torch.float32)) == expected


def test_tensors_larger_than_a_piece_hash_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pico("bloom")
    expected = of(model)
    monkeypatch.setattr(module, "_BLOCK", 7)
    assert of(model) == expected


def test_touched_names_weights_and_biases_of_the_operated_layers_only() -> None:
    prefix = "transformer.h.1.self_attention."
    names = touched(layout_of(pico("bloom")), [HeadId(1, 1)])
    assert names == [
        f"{prefix}dense.weight",
        f"{prefix}query_key_value.bias",
        f"{prefix}query_key_value.weight",
    ]
    assert sorted(fingerprints(pico("bloom"), names)) == names
