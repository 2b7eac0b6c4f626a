"""The slices: same output, gradients of the slices alone, an ordinary module to the outside."""

from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, TrainingArguments

from headsurgeon.arch import layout_of
from headsurgeon.heads import HeadId
from headsurgeon.operation import operate
from headsurgeon.operation.patient import Patient
from headsurgeon.operation.slices import SlicedLinear, SliceMap, merge_runs
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.training.contexts import gradient_checkpointing
from tests.pico import PICO, pico, tokens

HEADS = {
    # scattered, neighbouring, and one complete group of the grouped families
    "bloom": ["L1H1", "L2H2", "L2H3"],
    "mpt": ["L1H1", "L2H2", "L2H3"],
    "mpt-clip": ["L1H1", "L2H2", "L2H3"],
    "falcon-rw": ["L1H1", "L2H2", "L2H3"],
    "falcon-mq": ["L1H1", "L2H0", "L2H1", "L2H2", "L2H3"],
    "falcon-new": ["L1H1", "L2H2", "L2H3"],
}
FAMILIES = sorted(PICO)


def plan(*heads: str, init: str = "xavier_uniform_head", output_start: str = "zero_output") -> Plan:
    planned = tuple(PlannedHead(id=HeadId.parse(head)) for head in sorted(heads))
    return Plan(model="pico", rule="heads", heads=planned, init=init, output_start=output_start)


def stock_bytes(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def outside(patient: Patient, state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Everything of a state dict that does not belong to a slice; slices are blanked."""
    for name, tensor in state.items():
        blank = tensor.clone()
        if name in patient.maps:
            slice_map = patient.maps[name]
            slice_map.write(blank, torch.zeros_like(slice_map.read(blank)))
        yield name, blank


def loss_of(model: PreTrainedModel, batch: Tensor) -> Tensor:
    loss: Tensor = model(batch, labels=batch).loss
    return loss


@pytest.mark.parametrize("family", FAMILIES)
def test_slices_that_kept_their_weights_leave_the_logits_bit_identical(family: str) -> None:
    model, batch = pico(family), tokens()
    before = model(batch).logits
    operate(model, plan(*HEADS[family], init="none", output_start="keep_output"))
    assert torch.equal(model(batch).logits, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_ablated_head_adds_exactly_zero(family: str) -> None:
    model = pico(family)
    layout = layout_of(model)
    operate(model, plan("L1H1"))
    contexts: list[Tensor] = []
    projection = model.get_submodule(layout.output.path(1))

    def erase(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        context = inputs[0].clone()
        contexts.append(context.clone())
        start = layout.output.starts[1]
        context[..., start : start + layout.head_dim] = 0.0
        return (context, *inputs[1:])

    with_head = model(tokens()).logits
    with projection.register_forward_pre_hook(erase):
        without = model(tokens()).logits
    start = layout.output.starts[1]
    assert contexts[0][..., start : start + layout.head_dim].abs().max() > 0.01
    assert torch.equal(with_head, without)


@pytest.mark.parametrize("family", FAMILIES)
def test_slice_gradients_are_those_of_the_whole_tensors(family: str) -> None:
    reference, batch = pico(family), tokens()
    model = deepcopy(reference)
    patient = operate(model, plan(*HEADS[family], init="none", output_start="keep_output"))
    loss_of(reference, batch).backward()
    loss_of(model, batch).backward()
    for name, slice_ in patient.named_slices().items():
        expected = patient.maps[name].read(reference.get_parameter(name).grad)
        assert slice_.grad.dtype == torch.float32
        torch.testing.assert_close(slice_.grad, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_slices_are_trainable_and_state_dict_has_the_old_keys(family: str) -> None:
    model = pico(family)
    keys = list(model.state_dict())
    patient = operate(model, plan(*HEADS[family]))
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in trainable} == {id(p) for p in patient.slices()}
    assert list(model.state_dict()) == keys


def test_layers_below_the_lowest_operated_one_take_no_part_in_backward() -> None:
    model = pico("bloom", layers=4)
    operate(model, plan("L2H1"))
    seen: dict[int, bool] = {}
    for layer, block in enumerate(model.transformer.h):
        block.register_forward_hook(
            lambda module, inputs, output, layer=layer: seen.update(
                {layer: output[0].grad_fn is not None}
            )
        )
    loss_of(model, tokens()).backward()
    assert seen == {0: False, 1: False, 2: True, 3: True}


def test_the_frozen_weight_keeps_no_gradient_and_is_saved_once() -> None:
    model = pico("bloom")
    operate(model, plan("L1H1"))
    loss_of(model, tokens()).backward()
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert all(p.grad is None for p in frozen)


def test_state_dict_holds_the_slices_merged_and_loads_into_a_plain_model() -> None:
    model, batch = pico("bloom"), tokens()
    patient = operate(model, plan("L1H1", "L2H0"))
    with torch.no_grad():
        for slice_ in patient.slices():
            slice_.add_(0.01)
    plain = pico("bloom", seed=5)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain(batch).logits, model(batch).logits)


def test_loading_a_plain_state_dict_brings_the_slices_up_to_date() -> None:
    model, other, batch = pico("bloom"), pico("bloom", seed=5), tokens()
    patient = operate(model, plan("L1H1"))
    model.load_state_dict(other.state_dict())
    assert torch.equal(model(batch).logits, other(batch).logits)
    for name, slice_ in patient.named_slices().items():
        assert torch.equal(slice_, patient.maps[name].read(other.get_parameter(name)))


def test_loading_the_models_own_state_dict_leaves_fp32_masters_their_precision() -> None:
    model = pico("bloom").to(torch.bfloat16)
    patient = operate(model, plan("L1H1"))
    before = [slice_.detach().clone() for slice_ in patient.slices()]
    model.load_state_dict(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(before, patient.slices(), strict=True))
    assert not torch.equal(before[-1], before[-1].to(torch.bfloat16).float())


def test_missing_keys_are_still_reported() -> None:
    model = pico("bloom")
    operate(model, plan("L1H1"))
    name = "transformer.h.1.self_attention.dense.weight"
    state = {key: value for key, value in model.state_dict().items() if key != name}
    with pytest.raises(RuntimeError, match=name):
        model.load_state_dict(state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_casting_the_model_keeps_the_slices_fp32(dtype: torch.dtype) -> None:
    model = pico("bloom")
    patient = operate(model, plan("L1H1"))
    before = [slice_.detach().clone() for slice_ in patient.slices()]
    model.to(dtype)
    assert model.get_parameter("transformer.h.1.self_attention.dense.weight").dtype == dtype
    assert all(slice_.dtype == torch.float32 for slice_ in patient.slices())
    assert all(torch.equal(a, b) for a, b in zip(before, patient.slices(), strict=True))
    if dtype != torch.float16:
        loss_of(model, tokens()).backward()
        assert all(slice_.grad.dtype == torch.float32 for slice_ in patient.slices())


@pytest.mark.parametrize("family", ["bloom", "mpt-clip", "falcon-new"])
def test_autocast_trains_fp32_slices(family: str) -> None:
    model, batch = pico(family), tokens()
    patient = operate(model, plan(*HEADS[family], init="none", output_start="keep_output"))
    loss_of(model, batch).backward()
    exact = [slice_.grad.clone() for slice_ in patient.slices()]
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, batch)
    loss.backward()
    for slice_, expected in zip(patient.slices(), exact, strict=True):
        assert slice_.grad.dtype == torch.float32
        assert (slice_.grad - expected).norm() < 0.1 * expected.norm() + 1e-4


@pytest.mark.parametrize("family", ["bloom", "mpt", "falcon-rw"])
def test_gradient_checkpointing_gives_the_same_gradients(family: str) -> None:
    model, batch = pico(family).train(), tokens()
    patient = operate(model, plan(*HEADS[family], output_start="keep_output"))
    loss_of(model, batch).backward()
    expected = [slice_.grad.clone() for slice_ in patient.slices()]
    model.zero_grad()
    with gradient_checkpointing(model, True):
        loss_of(model, batch).backward()
    assert all(torch.equal(s.grad, e) for s, e in zip(patient.slices(), expected, strict=True))


def test_a_slice_changed_between_forward_and_backward_is_refused() -> None:
    model, batch = pico("bloom"), tokens()
    patient = operate(model, plan("L1H1", output_start="keep_output"))
    loss = loss_of(model, batch)
    with torch.no_grad():
        patient.slices()[0].add_(1.0)
    model(batch)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("implementation", [{}, {"foreach": True}, {"fused": True}])
def test_every_implementation_of_adamw_reaches_the_forward_pass(
    implementation: dict[str, bool],
) -> None:
    model, batch = pico("bloom"), tokens()
    patient = operate(model, plan("L1H1"))
    optimizer = torch.optim.AdamW(patient.slices(), lr=0.01, **implementation)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        # an evaluation between backward and step must not hide the step that follows
        model(batch)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        merged = model.state_dict()
        for name, slice_ in patient.named_slices().items():
            assert torch.equal(patient.maps[name].read(merged[name]), slice_)
    assert losses == sorted(losses, reverse=True)


def test_two_passes_may_be_in_flight_while_a_third_runs() -> None:
    model, batch = pico("bloom"), tokens()
    operate(model, plan("L1H1", output_start="keep_output"))
    first, second = loss_of(model, batch), loss_of(model, batch)
    first.backward()
    loss_of(model, batch)
    second.backward()


def test_a_deep_copy_is_a_patient_of_its_own() -> None:
    model, batch = pico("bloom"), tokens()
    patient = operate(model, plan("L1H1", output_start="keep_output"))
    expected = model(batch).logits
    copy = deepcopy(model)
    with torch.no_grad():
        for slice_ in patient.slices():
            slice_.zero_()
    assert not torch.equal(model(batch).logits, expected)
    assert torch.equal(copy(batch).logits, expected)


def test_generate_works_on_an_operated_model() -> None:
    model, batch = pico("bloom"), tokens(1, 5)
    patient = operate(model, plan("L1H1", output_start="keep_output"))
    generated = model.generate(batch, max_new_tokens=4, do_sample=False)
    patient.merge()
    assert torch.equal(model.generate(batch, max_new_tokens=4, do_sample=False), generated)


def test_the_optimiser_state_is_8_bytes_per_slice_value_and_one_step_counter() -> None:
    model = pico("bloom")
    patient = operate(model, plan("L1H1", "L2H2"))
    optimizer = torch.optim.AdamW(patient.slices())
    loss_of(model, tokens()).backward()
    optimizer.step()
    held = [tensor for state in optimizer.state.values() for tensor in state.values()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in held)
    values = sum(slice_.numel() for slice_ in patient.slices())
    assert size == 8 * values + 4 * len(patient.slices())
    # 2 heads: Q, K, V of 3·8 rows and the output columns, and three biases of 8
    assert values == 2 * (4 * 8 * 32 + 3 * 8)


def flops(model: PreTrainedModel) -> tuple[int, int]:
    """Multiply-adds of one forward and of one backward pass."""
    with FlopCounterMode(display=False) as forward:
        loss = loss_of(model, tokens())
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def test_the_forward_costs_nothing_more_and_the_backward_only_the_slices_gradients() -> None:
    model = pico("bloom").requires_grad_(False)
    forward = flops(deepcopy(model).requires_grad_(True))[0]
    model.get_submodule("transformer.h.1.input_layernorm").requires_grad_(True)
    without_weights = flops(model)[1]
    patient = operate(model, plan("L1H1", "L2H2"))
    model.get_submodule("transformer.h.1.input_layernorm").requires_grad_(True)
    # a multiply and an add for each weight and each of the 2·12 tokens
    weights = sum(slice_.numel() for slice_ in patient.slices() if slice_.ndim == 2)
    assert flops(model) == (forward, without_weights + 2 * weights * 2 * 12)


def train_with_masks(
    model: PreTrainedModel, patient: Patient, batches: list[Tensor], lr: float, clip: float
) -> int:
    """The usual way: whole tensors trainable, gradients outside the slices set to zero by hooks."""
    model.requires_grad_(False)
    trained = []
    for name, slice_map in patient.maps.items():
        parameter = model.get_parameter(name).requires_grad_(True)
        mask = torch.zeros_like(parameter)
        slice_map.write(mask, torch.ones_like(slice_map.read(mask)))
        parameter.register_hook(lambda gradient, mask=mask: gradient * mask)
        trained.append(parameter)
    return _train(model, trained, batches, lr, clip, weight_decay=0.0)


def _train(
    model: PreTrainedModel,
    parameters: list[nn.Parameter],
    batches: list[Tensor],
    lr: float,
    clip: float,
    weight_decay: float,
) -> int:
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, eps=1e-6)
    clipped = 0
    for batch in batches:
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        clipped += int(nn.utils.clip_grad_norm_(parameters, clip) > clip)
        optimizer.step()
    return clipped


@pytest.mark.parametrize("family", FAMILIES)
def test_25_clipped_adamw_steps_equal_training_through_gradient_masks(family: str) -> None:
    model = pico(family)
    patient = operate(model, plan(*HEADS[family]))
    reference = pico(family, seed=9)
    reference.load_state_dict(model.state_dict())
    batches = [tokens(4, 16, seed) for seed in range(25)]
    stock = stock_bytes(reference)

    clipped = train_with_masks(reference, patient, batches, lr=1e-3, clip=0.02)
    assert clipped == _train(model, patient.slices(), batches, 1e-3, 0.02, weight_decay=0.0) >= 20

    merged = model.state_dict()
    moved = max((merged[name] - stock[name]).abs().max().item() for name in patient.maps)
    largest = max((merged[n] - t).abs().max().item() for n, t in reference.state_dict().items())
    assert moved > 5e-3
    assert largest <= 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_outside_the_slices_everything_is_bit_identical_after_steps_with_weight_decay(
    family: str,
) -> None:
    model = pico(family)
    stock = stock_bytes(model)
    patient = operate(model, plan(*HEADS[family]))
    batches = [tokens(4, 16, seed) for seed in range(21)]
    _train(model, patient.slices(), batches, lr=1e-2, clip=1.0, weight_decay=0.5)
    trained = dict(outside(patient, model.state_dict()))
    for name, expected in outside(patient, stock):
        assert torch.equal(trained[name], expected), name
    patient.merge()
    merged = dict(outside(patient, model.state_dict()))
    assert all(torch.equal(merged[name], expected) for name, expected in outside(patient, stock))


class Windows(torch.utils.data.Dataset):
    """Random windows as a Hugging Face Trainer wants them."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        window = tokens(1, 12, index)[0]
        return {"input_ids": window, "labels": window}


@pytest.mark.parametrize("bf16", [False, True])
def test_the_hugging_face_trainer_trains_a_patient_and_its_checkpoint_is_the_merged_model(
    bf16: bool, tmp_path: Path
) -> None:
    model = pico("bloom")
    stock = stock_bytes(model)
    patient = operate(model, plan("L1H1", "L2H2"))
    start = {name: slice_.detach().clone() for name, slice_ in patient.named_slices().items()}
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        save_steps=4,
        weight_decay=0.1,
        bf16=bf16,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        logging_strategy="no",
    )
    Trainer(model=model, args=arguments, train_dataset=Windows()).train()
    assert all(not torch.equal(start[n], slice_) for n, slice_ in patient.named_slices().items())
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-4")
    patient.merge()
    state, merged = reloaded.state_dict(), model.state_dict()
    assert list(state) == list(merged)
    assert all(torch.equal(state[name], merged[name]) for name in merged)
    assert all(not torch.equal(state[name], stock[name]) for name in patient.maps)
    # the Trainer leaves its autocast on the model it trained, so a fresh one is asked
    plain = pico("bloom", seed=5)
    plain.load_state_dict(merged)
    assert torch.equal(reloaded(tokens()).logits, plain(tokens()).logits)


class Conv1D(nn.Module):
    """The transposed linear layer of GPT-2: weight [in, out]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


@pytest.mark.parametrize("side", ["out", "in"])
@pytest.mark.parametrize("transposed", [False, True])
def test_both_axis_orders_give_the_gradients_of_the_whole_weight(
    side: str, transposed: bool
) -> None:
    torch.manual_seed(0)
    base = Conv1D(6, 10) if transposed else nn.Linear(6, 10)
    axis = int((side == "in") != transposed)
    runs = ((1, 2), (4, 1)) if side == "in" else ((0, 3), (7, 2))
    weight = SliceMap("weight", axis, side, runs)
    bias = SliceMap("bias", 0, "out", runs) if side == "out" else None
    inputs = torch.randn(3, 5, 6)
    whole = deepcopy(base)
    target = torch.randn(3, 5, 10)
    (whole(inputs) * target).sum().backward()
    base.requires_grad_(False)
    layer = SlicedLinear(base, weight, bias)
    (layer(inputs) * target).sum().backward()
    torch.testing.assert_close(layer.slice_weight.grad, weight.read(whole.weight.grad))
    if bias is not None:
        torch.testing.assert_close(layer.slice_bias.grad, bias.read(whole.bias.grad))


BLOCKS = st.sets(st.integers(0, 9), min_size=1).map(lambda found: [(4 * b, 4) for b in found])


@given(BLOCKS)
def test_reading_and_writing_a_slice_are_inverse_and_touch_nothing_else(
    blocks: list[tuple[int, int]],
) -> None:
    slice_map = SliceMap("w", 0, "out", merge_runs([*blocks, blocks[0]]))
    tensor = torch.arange(40.0)[:, None].repeat(1, 2)
    index = sorted(start + k for start, _ in blocks for k in range(4))
    assert slice_map.read(tensor)[:, 0].tolist() == index
    assert slice_map.index().tolist() == index
    assert slice_map.length == len(index)
    assert all(index[slice_map.offset(start)] == start for start, _ in blocks)
    assert all(a + la < b for (a, la), (b, _) in pairwise(slice_map.runs))
    changed = tensor.clone()
    slice_map.write(changed, -slice_map.read(tensor) - 1)
    untouched = [i for i in range(40) if i not in index]
    assert torch.equal(changed[untouched], tensor[untouched])
    assert (changed[index] < 0).all()
