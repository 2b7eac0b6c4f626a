"""The loss in blocks equals the model's own, and holds a few columns of logits at a time."""

import pytest
import torch
from torch import nn

from headsurgeon.heads import HeadId
from headsurgeon.models import token_loss as module
from headsurgeon.models.token_loss import next_token_loss, token_nll
from headsurgeon.operation import operate
from headsurgeon.planning import Plan, PlannedHead
from tests.pico import PICO, VOCABULARY, pico, tokens
from tests.pico_families import pico_family

FAMILIES = sorted(PICO)
PLAN = Plan(
    model="pico", rule="heads", heads=(PlannedHead(id=HeadId(1, 1)),), output_start="keep_output"
)


# of the 24 tokens that are predicted
@pytest.fixture(params=[1, 7, 1000], ids=lambda size: f"{size}columns")
def block_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 24 * request.param)
    return int(request.param)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_and_its_slice_gradients_equal_the_models_own(
    family: str, block_size: int
) -> None:
    model, batch = pico(family), tokens(3, 9)
    patient = operate(model, PLAN)
    model(batch, labels=batch).loss.backward()
    expected = [slice_.grad.clone() for slice_ in patient.slices()]
    model.zero_grad()
    loss = next_token_loss(model, batch) / (3 * 8)
    loss.backward()
    torch.testing.assert_close(loss, model(batch, labels=batch).loss)
    for slice_, gradient in zip(patient.slices(), expected, strict=True):
        torch.testing.assert_close(slice_.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_token_nll_is_each_tokens_cross_entropy(family: str, block_size: int) -> None:
    model, batch = pico(family), tokens(3, 9)
    logits = model(batch).logits[:, :-1]
    expected = nn.functional.cross_entropy(
        logits.reshape(-1, VOCABULARY), batch[:, 1:].reshape(-1), reduction="none"
    )
    nll = token_nll(model, batch)
    assert nll.shape == (3, 8)
    assert not nll.requires_grad
    torch.testing.assert_close(nll, expected.view(3, 8))


def test_no_more_than_a_block_of_logits_is_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 24 * 5)
    sizes: list[int] = []
    plain = module.LanguageModelHead.logits

    def counting(part: module.LanguageModelHead, hidden: torch.Tensor) -> torch.Tensor:
        logits = plain(part, hidden)
        sizes.append(logits.shape[1])
        return logits

    monkeypatch.setattr(module.LanguageModelHead, "logits", counting)
    model = pico("bloom")
    operate(model, PLAN)
    next_token_loss(model, tokens(3, 9)).backward()
    assert max(sizes) == 5
    assert sum(sizes) == VOCABULARY


@pytest.mark.parametrize("size", [1, 3, 100])
def test_logits_of_any_size_neither_overflow_nor_vanish(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # rising, falling and far apart, so that the running maximum changes in every block or in none
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 4 * size)
    weight = torch.linspace(-400.0, 400.0, 11)[:, None].repeat(1, 2)
    hidden = torch.tensor([[1.0, 0.5], [-1.0, -0.5], [0.01, 0.0], [0.0, 0.0]], requires_grad=True)
    labels = torch.tensor([10, 0, 3, 10])
    expected = nn.functional.cross_entropy(hidden @ weight.T, labels, reduction="sum")
    [gradient] = torch.autograd.grad(expected, hidden)
    head = module.LanguageModelHead(weight, None, 1.0, None)
    loss = module._LossInBlocks.apply(hidden, head, labels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, hidden)[0], gradient, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("family", ["bloom", "mpt", "gemma2", "granite", "cohere", "phi"])
def test_a_head_that_is_trained_has_the_gradient_of_the_models_own_loss(family: str) -> None:
    model = pico(family) if family in PICO else pico_family(family)
    batch = tokens()
    own = model(input_ids=batch, labels=batch, use_cache=False).loss
    own.backward()
    wanted = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()
    loss = next_token_loss(model, batch) / (batch.numel() - len(batch))
    loss.backward()
    torch.testing.assert_close(loss, own)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.grad, wanted[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_bf16_weights_or_autocast_give_the_loss_within_bf16(dtype: torch.dtype) -> None:
    model, batch = pico("bloom"), tokens(3, 9)
    operate(model, PLAN)
    exact = next_token_loss(model, batch).item()
    model.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
        loss = next_token_loss(model, batch)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=0.02)
