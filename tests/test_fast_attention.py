"""A model inside `fast_attention`: the same model, only faster, and itself again afterwards."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from headsurgeon.arch import layout_of
from headsurgeon.attention import biased_attention as biased_attention_module
from headsurgeon.attention import fast_attention
from headsurgeon.attention import tiled_attention as tiled_attention_module
from headsurgeon.errors import UnsupportedModel
from headsurgeon.training.contexts import gradient_checkpointing
from tests.pico import PICO, pico, tokens
from tests.test_measure import traces


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry per layer that ran without maps: by what."""
    seen: list[str] = []
    for name in ("kernel_attention", "tiled_attention"):
        original = getattr(biased_attention_module, name)

        def counted(*given: object, name: str = name, original: Any = original) -> Tensor:
            seen.append(name)
            return original(*given)

        monkeypatch.setattr(biased_attention_module, name, counted)
    return seen


@pytest.fixture(params=["tiled_attention", "kernel_attention"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a CPU runs in fp32, and what everything else runs."""
    if request.param == "kernel_attention":
        monkeypatch.setattr(tiled_attention_module, "TILED_DEVICES", frozenset())
    return str(request.param)


def logits(model: PreTrainedModel, ids: Tensor, **named: object) -> Tensor:
    with torch.no_grad():
        return model(ids, use_cache=False, **named).logits


@pytest.mark.parametrize("family", list(PICO))
@pytest.mark.parametrize("heads", [4, 6])
@pytest.mark.parametrize("length", [1, 2, 17, 300])
def test_logits_are_the_stock_ones(
    family: str, heads: int, length: int, calls: list[str], way: str
) -> None:
    model = pico(family, heads=heads, hidden=8 * heads)
    ids = tokens(batch=3, length=length)
    stock = logits(model, ids)
    with fast_attention(model):
        fast = logits(model, ids)
    assert calls == [way] * model.config.num_hidden_layers
    largest = max(1.0, float(stock.abs().max()))
    torch.testing.assert_close(fast, stock, atol=1e-5 * largest, rtol=0.0)


def test_the_implementation_that_was_configured_is_put_back() -> None:
    ids = tokens(length=40)
    stock = logits(pico("falcon-mq"), ids)
    # its own logits are no reference: Falcon's eager forward adds the bias twice
    model = pico("falcon-mq", attn_implementation="eager")
    with fast_attention(model):
        torch.testing.assert_close(logits(model, ids), stock, atol=1e-5, rtol=0.0)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("family", list(PICO))
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_the_stock_ones(
    family: str, checkpointing: bool, calls: list[str], way: str
) -> None:
    model, ids = pico(family).train(), tokens(length=24)
    switch_off_dropout(model)
    stock = gradients(model, ids)
    with gradient_checkpointing(model, checkpointing), fast_attention(model):
        fast = gradients(model, ids)
    # a checkpointed layer runs again, and fast again, in backward
    assert calls == [way] * model.config.num_hidden_layers * (1 + checkpointing)
    assert stock.keys() == fast.keys()
    for name, gradient in stock.items():
        size = max(1e-3, float(gradient.abs().max()))
        torch.testing.assert_close(
            fast[name], gradient, atol=2e-5 * size, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def switch_off_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def gradients(model: PreTrainedModel, ids: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model(ids, labels=ids).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", list(PICO))
def test_nothing_is_left_afterwards(family: str) -> None:
    model, ids = pico(family), tokens()
    before = traces(model)
    stock = logits(model, ids)
    with fast_attention(model):
        logits(model, ids)
        assert traces(model)[-1] == before[-1], "the configuration changes only during a call"
    assert traces(model) == before
    assert torch.equal(logits(model, ids), stock)


def test_nothing_is_left_after_an_exception() -> None:
    model = pico("mpt")
    before = traces(model)
    with pytest.raises(IndexError), fast_attention(model):
        model(torch.full((1, 4), 10_000))
    assert traces(model) == before


def test_contexts_nest() -> None:
    model, ids = pico("bloom"), tokens()
    before = traces(model)
    with fast_attention(model):
        outer = logits(model, ids)
        inside = traces(model)[:-2]
        with fast_attention(model):
            assert torch.equal(logits(model, ids), outer)
        assert traces(model)[:-2] == inside
        assert torch.equal(logits(model, ids), outer)
    assert traces(model) == before


def test_hidden_dropout_of_bloom_stays() -> None:
    model, ids = pico("bloom", hidden_dropout=0.5).train(), tokens()
    torch.manual_seed(0)
    stock = logits(model, ids)
    torch.manual_seed(0)
    with fast_attention(model):
        fast = logits(model, ids)
    torch.testing.assert_close(fast, stock, atol=1e-5, rtol=0.0)


class TestStockCalls:
    """Calls that go the stock way, bit for bit."""

    @pytest.mark.parametrize("family", list(PICO))
    def test_padding(self, family: str, calls: list[str]) -> None:
        model, ids = pico(family), tokens(batch=2, length=9)
        mask = torch.ones_like(ids)
        mask[1, 6:] = 0
        stock = logits(model, ids, attention_mask=mask)
        with fast_attention(model):
            assert torch.equal(logits(model, ids, attention_mask=mask), stock)
        assert not calls

    @pytest.mark.parametrize("family", list(PICO))
    def test_a_mask_without_padding_is_no_mask(self, family: str, calls: list[str]) -> None:
        model, ids = pico(family), tokens(batch=2, length=9)
        stock = logits(model, ids)
        with fast_attention(model):
            fast = logits(model, ids, attention_mask=torch.ones_like(ids))
        torch.testing.assert_close(fast, stock, atol=1e-5, rtol=0.0)
        assert calls

    @pytest.mark.parametrize("family", list(PICO))
    def test_generation_with_a_cache(self, family: str, calls: list[str]) -> None:
        model, ids = pico(family), tokens(batch=1, length=6)
        asked = {"max_new_tokens": 8, "do_sample": False, "use_cache": True}
        stock = model.generate(ids, **asked)
        with fast_attention(model):
            assert torch.equal(model.generate(ids, **asked), stock)
        assert not calls

    def test_generation_without_a_cache_is_fast(self, calls: list[str]) -> None:
        model, ids = pico("bloom"), tokens(batch=1, length=6)
        asked = {"max_new_tokens": 8, "do_sample": False, "use_cache": False}
        stock = model.generate(ids, **asked)
        with fast_attention(model):
            assert torch.equal(model.generate(ids, **asked), stock)
        assert calls

    def test_a_cache_that_was_not_asked_for_is_not_made(self) -> None:
        model, ids = pico("bloom"), tokens()
        assert model.config.use_cache
        with fast_attention(model), torch.no_grad():
            assert model(ids).past_key_values is None
            assert model(ids, use_cache=True).past_key_values is not None

    @pytest.mark.parametrize("family", ["bloom", "mpt"])
    def test_attention_maps(self, family: str, calls: list[str]) -> None:
        model, ids = pico(family), tokens()
        with fast_attention(model), torch.no_grad():
            maps = model(ids, output_attentions=True, use_cache=False).attentions
        assert maps[0].shape[-1] == ids.shape[1]
        assert not calls

    @pytest.mark.parametrize("family", ["bloom", "falcon-rw"])
    def test_training_with_attention_dropout(self, family: str, calls: list[str]) -> None:
        model, ids = pico(family, attention_dropout=0.1).train(), tokens()
        with fast_attention(model):
            logits(model, ids)
            assert not calls
            logits(model.eval(), ids)
            assert calls

    def test_training_mpt_with_attention_dropout(self, calls: list[str]) -> None:
        model, ids = pico("mpt", attn_config={"attn_pdrop": 1}).train(), tokens()
        with fast_attention(model):
            logits(model, ids)
        assert not calls

    def test_windows_longer_than_the_model_reads_fail_as_before(self) -> None:
        model, ids = pico("mpt", max_seq_len=16), tokens(length=17)
        with fast_attention(model), pytest.raises(RuntimeError):
            logits(model, ids)


def test_layers_put_in_place_of_the_projections_are_called() -> None:
    model, ids = pico("bloom"), tokens()
    layout = layout_of(model)

    class Doubled(nn.Module):
        def __init__(self, linear: nn.Linear) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, hidden: Tensor) -> Tensor:
            return 2.0 * self.linear(hidden)

    with fast_attention(model):
        parent = model.get_submodule(layout.query.path(0).rpartition(".")[0])
        name = layout.query.path(0).rpartition(".")[2]
        before = logits(model, ids)
        setattr(parent, name, Doubled(getattr(parent, name)))
        after = logits(model, ids)
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, logits(model, ids), atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("family", ["bloom", "mpt", "falcon-rw"])
def test_in_bf16_it_is_no_further_from_fp32_than_stock(family: str) -> None:
    errors = {"stock": 0.0, "fast": 0.0}
    for seed in range(3):
        model, ids = pico(family, seed=seed, hidden=64), tokens(length=400, seed=seed)
        exact = logits(model, ids)
        low = copy.deepcopy(model).bfloat16()
        errors["stock"] += float((logits(low, ids).float() - exact).square().mean())
        with fast_attention(low):
            errors["fast"] += float((logits(low, ids).float() - exact).square().mean())
    # how products in bf16 are rounded differs between processors, by far less than a tenth; what is
    # at stake is a factor: BLOOM's own rounding of its bias makes its error ten times ours
    assert errors["fast"] <= 1.1 * errors["stock"]


def test_another_family_is_refused() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=11))
    with pytest.raises(UnsupportedModel), fast_attention(model):
        pass


def test_contexts_may_close_in_any_order_and_leave_no_name_behind() -> None:
    names = set(ALL_MASK_ATTENTION_FUNCTIONS.keys())
    first, second = pico("bloom"), pico("bloom")
    ids = tokens(2, 8)
    outer, inner = fast_attention(first), fast_attention(second)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    with torch.no_grad():
        expected = first(ids).logits
        torch.testing.assert_close(second(ids).logits, expected, atol=1e-5, rtol=0.0)
    inner.__exit__(None, None, None)
    assert set(ALL_MASK_ATTENTION_FUNCTIONS.keys()) == names
