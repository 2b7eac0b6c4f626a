"""Every family × operate, train two steps, merge, revert, patch, price; measured in between."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from headsurgeon.evaluation.ablation import ablating
from headsurgeon.heads import HeadId
from headsurgeon.measurement import measure
from headsurgeon.models.token_loss import next_token_loss, token_nll
from headsurgeon.operation import Patient, apply_patch, operate
from headsurgeon.planning import Plan, PlannedHead
from tests.pico import VOCABULARY, tokens
from tests.pico_families import NAMES, pico_family

# With two key/value heads L1H0 and L1H1 are a whole group, L0H2 is one of two.
HEADS = (HeadId(0, 2), HeadId(1, 0), HeadId(1, 1))
PLAN = Plan(model="pico", rule="heads", heads=tuple(PlannedHead(id=head) for head in HEADS))


def state_of(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[n], right[n]) for n in left)


def train_two_steps(patient: Patient) -> None:
    optimiser = torch.optim.AdamW(patient.slices(), lr=1e-2, weight_decay=0.1)
    for seed in range(2):
        optimiser.zero_grad()
        next_token_loss(patient.model, tokens(2, 12, seed)).backward()
        optimiser.step()


def changed_outside(
    patient: Patient, before: dict[str, Tensor], after: dict[str, Tensor]
) -> list[str]:
    """Parameters that differ anywhere but in the planned heads' blocks."""
    layout = patient.layout
    inside = {name: torch.zeros_like(tensor, dtype=torch.bool) for name, tensor in before.items()}
    chosen = set(HEADS)
    for head in HEADS:
        for part, blocks in layout.head_blocks(*head).items():
            group = {HeadId(head.layer, other) for other in layout.sharing(head.head)}
            if part in ("key", "value") and not group <= chosen:
                continue
            for block in blocks:
                block.of(inside[block.parameter]).fill_(True)
    return [n for n in before if not torch.equal(before[n][~inside[n]], after[n][~inside[n]])]


@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_operated_trained_merged_reverted_and_patched(
    name: str, tmp_path: Path
) -> None:
    model = pico_family(name)
    layout = layout_of(model)
    stock = state_of(model)
    before = measure(model, tokens(length=20))
    with ablating(model, layout, HEADS), torch.no_grad():
        silent = model(tokens()).logits
    patient = operate(model, PLAN, seed=1)
    frozen = {
        h for h in HEADS if not {HeadId(h.layer, o) for o in layout.sharing(h.head)} <= {*HEADS}
    }
    assert set(patient.frozen_key_values) == frozen

    if not layout.joint_norm:
        with torch.no_grad():
            torch.testing.assert_close(model(tokens()).logits, silent)

    train_two_steps(patient)
    assert all(torch.isfinite(slice_).all() for slice_ in patient.slices())
    trained = state_of(model)
    assert changed_outside(patient, stock, trained) == []
    during = measure(model, tokens(length=20))
    with torch.no_grad():
        open_logits = model(tokens()).logits

    patient.merge()
    assert equal(state_of(model), trained)
    after = measure(model, tokens(length=20))
    np.testing.assert_array_equal(after.first_token_mass, during.first_token_mass)
    np.testing.assert_array_equal(after.output_norm, during.output_norm)
    assert (after.first_token_mass[1, :2] != before.first_token_mass[1, :2]).all()
    with torch.no_grad():
        assert torch.equal(model(tokens()).logits, open_logits)

    path = patient.save(tmp_path / "patch.safetensors")
    patient.revert()
    assert equal(state_of(model), stock)

    other = pico_family(name)
    patched = apply_patch(other, path)
    assert equal(state_of(other), trained)
    patched.revert()
    assert equal(state_of(other), stock)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_and_its_slice_gradients_are_the_models_own(name: str) -> None:
    model, batch = pico_family(name), tokens(2, 12)
    patient = operate(model, PLAN.replace(output_start="keep_output", init="none"))
    logits = model(batch).logits[:, :-1].float()
    own = nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), batch[:, 1:].reshape(-1))
    own.backward()
    expected = [slice_.grad.clone() for slice_ in patient.slices()]
    model.zero_grad()
    loss = next_token_loss(model, batch) / (2 * 11)
    loss.backward()
    torch.testing.assert_close(loss, own)
    torch.testing.assert_close(token_nll(model, batch).mean(), own.detach())
    for slice_, gradient in zip(patient.slices(), expected, strict=True):
        torch.testing.assert_close(slice_.grad, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_slice_gradients_are_those_of_the_whole_weights(name: str) -> None:
    model, batch = pico_family(name), tokens(2, 12)
    next_token_sum = model(batch, labels=batch).loss
    next_token_sum.backward()
    whole = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    patient = operate(model, PLAN.replace(output_start="keep_output", init="none"))
    model(batch, labels=batch).loss.backward()
    for key, slice_ in patient.named_slices().items():
        torch.testing.assert_close(
            slice_.grad, patient.maps[key].read(whole[key]), rtol=1e-3, atol=1e-6
        )
