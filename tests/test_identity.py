"""A layout is for the code it describes: under its name no other code is measured."""

from typing import Any

import pytest
import torch
from transformers import BloomForCausalLM, LlamaForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama

import headsurgeon as hs
from headsurgeon.arch import FAMILIES, layout_of
from headsurgeon.errors import UnsupportedModel
from tests.pico import pico, tokens
from tests.pico_families import VARIANTS, pico_family

REFUSED = "code that no layout describes"


@pytest.mark.parametrize("name", [*VARIANTS, "bloom", "mpt"])
def test_the_families_own_code_is_known(name: str) -> None:
    layout_of(pico(name) if name in ("bloom", "mpt") else pico_family(name))


def test_a_class_that_computes_something_else_under_a_familys_name_is_refused() -> None:
    class Own(LlamaForCausalLM):
        def forward(self, *arguments: Any, **named: Any) -> Any:
            return super().forward(*arguments, **named)

    model = pico_family("llama")
    model.__class__ = Own
    with pytest.raises(UnsupportedModel, match=f"{REFUSED}.*forward of .*Own"):
        hs.measure(model, tokens())


def test_a_class_that_only_adds_to_the_familys_is_measured() -> None:
    class Named(BloomForCausalLM):
        def nickname(self) -> str:
            return "own"

    model = pico("bloom")
    model.__class__ = Named
    hs.measure(model, tokens())


def test_a_module_of_ones_own_inside_of_the_model_is_refused() -> None:
    class Halved(torch.nn.Linear):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return super().forward(values) / 2

    model = pico_family("llama")
    model.model.layers[1].self_attn.q_proj.__class__ = Halved
    with pytest.raises(UnsupportedModel, match=r"Halved.*layers\.1\.self_attn\.q_proj"):
        hs.measure(model, tokens())


def test_a_forward_put_on_one_module_is_refused() -> None:
    model = pico("bloom")
    attention = model.transformer.h[2].self_attention
    stock = attention.forward
    attention.forward = lambda *arguments, **named: stock(*arguments, **named)
    with pytest.raises(UnsupportedModel, match=r"a forward from .* at transformer\.h\.2\."):
        hs.measure(model, tokens())


def test_a_function_patched_into_the_familys_file_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unrotated(query: Any, key: Any, *_: Any, **__: Any) -> Any:
        return query, key

    model = pico_family("llama")
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", unrotated)
    with pytest.raises(UnsupportedModel, match="apply_rotary_pos_emb, which comes from"):
        hs.measure(model, tokens())


def test_a_method_patched_into_the_familys_class_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = pico_family("llama")
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", lambda self, values: values)
    with pytest.raises(UnsupportedModel, match=r"the method forward of .*LlamaMLP"):
        hs.measure(model, tokens())


def test_an_attention_function_of_ones_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def attend(*arguments: Any, **named: Any) -> Any:
        return modeling_llama.eager_attention_forward(*arguments, **named)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "own_kind", attend)
    model = pico_family("llama")
    model.config._attn_implementation_internal = "own_kind"
    with pytest.raises(UnsupportedModel, match="attention function 'own_kind'"):
        hs.measure(model, tokens())


def test_another_familys_class_under_this_name_is_refused() -> None:
    model = pico_family("qwen2")
    model.config.__class__ = pico_family("llama").config.__class__
    assert model.config.__class__.model_type in FAMILIES
    with pytest.raises(UnsupportedModel):
        layout_of(model)
