"""The chunked loss equals the model's own, and holds a few rows of logits at a time."""

import pytest
import torch
from torch import nn

from headsurgeon.errors import StateError
from headsurgeon.heads import HeadId, Plan, PlannedHead
from headsurgeon.models import loss as module
from headsurgeon.models.loss import next_token_loss, token_nll
from headsurgeon.operate import operate
from tests.pico import PICO, VOCABULARY, pico, tokens

FAMILIES = sorted(PICO)
PLAN = Plan("pico", "heads", (PlannedHead(HeadId(1, 1)),), output_start="keep-output")


@pytest.fixture(params=[1, 7, 1000], ids=lambda rows: f"{rows}rows")
def chunk_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * VOCABULARY * request.param)
    return int(request.param)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_and_its_slice_gradients_equal_the_models_own(
    family: str, chunk_rows: int
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
def test_token_nll_is_each_tokens_cross_entropy(family: str, chunk_rows: int) -> None:
    model, batch = pico(family), tokens(3, 9)
    logits = model(batch).logits[:, :-1]
    expected = nn.functional.cross_entropy(
        logits.reshape(-1, VOCABULARY), batch[:, 1:].reshape(-1), reduction="none"
    )
    nll = token_nll(model, batch)
    assert nll.shape == (3, 8)
    assert not nll.requires_grad
    torch.testing.assert_close(nll, expected.view(3, 8))


def test_no_more_than_a_chunk_of_logits_is_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * VOCABULARY * 5)
    rows: list[int] = []
    linear = module._logits

    def counting(hidden: torch.Tensor, *rest: torch.Tensor | None) -> torch.Tensor:
        rows.append(len(hidden))
        return linear(hidden, *rest)

    monkeypatch.setattr(module, "_logits", counting)
    model = pico("bloom")
    operate(model, PLAN)
    next_token_loss(model, tokens(3, 9)).backward()
    assert max(rows) == 5
    assert sum(rows) == 3 * 8


def test_a_trainable_head_is_refused_rather_than_left_without_a_gradient() -> None:
    with pytest.raises(StateError, match="freeze the head"):
        next_token_loss(pico("mpt"), tokens())
    with torch.no_grad():
        next_token_loss(pico("mpt"), tokens())


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
