"""Which optimiser moves which slices, and by how much."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.errors import Interrupted, SettingsError
from headsurgeon.heads import HeadId
from headsurgeon.operation import Patient, open_full, operate
from headsurgeon.operation.slice_maps import slice_maps
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.training import StepEvent, read_log
from headsurgeon.training.contexts import masters
from headsurgeon.training.log import read_entries
from headsurgeon.training.memory import memory_plan
from headsurgeon.training.optimiser import Optimiser
from headsurgeon.training.schedule import learning_rate
from tests.pico import PICO, pico
from tests.pico_families import pico_family
from tests.test_train_loop import STEPS, end_state, patient, run, same, short

# heads 0 and 1 share keys and values where they are shared at all
WIDE = Plan(
    model="pico", rule="heads", heads=tuple(PlannedHead(id=HeadId(1, head)) for head in (0, 1, 3))
)
FAMILIES = ["bloom", "gpt2", "llama", "falcon-new"]
# settings, and the family they are tried on
ARMS = {
    "muon": ("bloom", {"optimizer": "muon"}),
    "muon-columns": ("gpt2", {"optimizer": "muon", "weight_decay": 0.1}),
    "muon-rates": ("bloom", {"optimizer": "muon", "output_rate": 4.0}),
    "rates": ("bloom", {"output_rate": 8.0}),
    "first-rate": ("bloom", {"first_rate": "zero"}),
    "bf16-masters": ("bloom", {"masters": "bf16"}),
    "bf16-muon": ("llama", {"masters": "bf16", "optimizer": "muon"}),
}
QUICK = {"statistics_windows": 0}


def tiny(family: str) -> PreTrainedModel:
    return pico(family) if family in PICO else pico_family(family)


def with_gradients(subject: Patient) -> Patient:
    generator = torch.Generator().manual_seed(3)
    for slice_ in subject.slices():
        slice_.grad = torch.randn(slice_.shape, generator=generator)
    return subject


def values(subject: Patient) -> dict[str, Tensor]:
    return {name: slice_.detach().clone() for name, slice_ in subject.named_slices().items()}


def matrices(subject: Patient, of: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for head in subject.head_tensors(of):
        for part, view in head.weights.items():
            yield f"{head.id}.{part}", view


# --- muon ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_muon_gives_each_heads_matrix_the_update_it_would_have_alone(family: str) -> None:
    subject = with_gradients(operate(tiny(family), WIDE))
    settings = short(optimizer="muon", weight_decay=0.1)
    gradients = {name: slice_.grad for name, slice_ in subject.named_slices().items()}
    wanted = {}
    before = values(subject)
    gradient_of = dict(matrices(subject, gradients))
    for name, view in matrices(subject, before):
        alone = torch.nn.Parameter(view.clone())
        alone.grad = gradient_of[name].clone()
        torch.optim.Muon([alone], lr=5e-3, weight_decay=0.1, adjust_lr_fn="match_rms_adamw").step()
        wanted[name] = alone.detach() - view
    Optimiser(subject, settings).step(5e-3)
    found = dict(matrices(subject, values(subject)))
    start = dict(matrices(subject, before))
    assert found.keys() == wanted.keys()
    for name in wanted:
        # products in bf16 round otherwise where the strides are others
        torch.testing.assert_close(
            found[name] - start[name], wanted[name], rtol=0.05, atol=0.05 * 5e-3
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_muon_moves_every_direction_of_every_heads_matrix_about_equally(family: str) -> None:
    subject = with_gradients(operate(tiny(family), WIDE))
    before = values(subject)
    Optimiser(subject, short(optimizer="muon")).step(1e-3)
    start = dict(matrices(subject, before))
    for name, view in matrices(subject, values(subject)):
        singular = torch.linalg.svdvals(view - start[name])
        assert singular.shape == (8,)
        size = 1e-3 * 0.2 * 32**0.5
        assert 0.5 * size < float(singular.min()) <= float(singular.max()) < 1.5 * size


def test_under_muon_biases_take_adamws_step_and_have_its_moments() -> None:
    subject = with_gradients(operate(pico("bloom"), WIDE))
    before = values(subject)
    optimiser = Optimiser(subject, short(optimizer="muon"))
    optimiser.step(1e-3)
    biases = [name for name, value in before.items() if value.ndim == 1]
    assert biases
    for name in biases:
        slice_ = subject.named_slices()[name]
        torch.testing.assert_close(
            slice_.detach() - before[name], -1e-3 * slice_.grad.sign(), rtol=1e-2, atol=1e-6
        )
        assert f"exp_avg/{name}" in optimiser.state()
    assert "momentum_buffer/L1H0.query" in optimiser.state()
    assert sum(part.numel() for part in optimiser.parts.values()) == sum(
        slice_.numel() for slice_ in subject.slices()
    )


def test_muon_takes_less_memory_than_adamw() -> None:
    plans = {
        name: memory_plan(patient(), short(optimizer=name, **QUICK)) for name in ("adamw", "muon")
    }
    matrices_of = sum(s.nbytes for s in patient().slices() if s.ndim == 2)
    saved = plans["adamw"].evaluation - plans["muon"].evaluation
    # one moment instead of two, but for a counter of four bytes a slice
    assert abs(saved - matrices_of) < 1024


# --- rates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bloom", "gpt2"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_output_columns_alone_learn_at_their_multiple_of_the_rate(
    family: str, optimizer: str
) -> None:
    moved = {}
    for factor in (1.0, 8.0):
        subject = with_gradients(operate(tiny(family), WIDE))
        before = values(subject)
        Optimiser(subject, short(optimizer=optimizer, output_rate=factor)).step(1e-3)
        moved[factor] = {name: after - before[name] for name, after in values(subject).items()}
    outputs = subject.outputs()
    assert outputs == {name for name in moved[1.0] if ".dense." in name or "c_proj" in name}
    for name, once in moved[1.0].items():
        times = 8.0 if name in outputs else 1.0
        torch.testing.assert_close(moved[8.0][name], times * once, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_alone_learn_at_their_multiple_where_everything_is_trained(family: str) -> None:
    """Held to AdamW with a rate for every single weight, written out."""
    subject = open_full(tiny(family), WIDE)
    stock = {name: tensor.double() for name, tensor in subject.untouched_values().items()}
    multiples = {name: torch.ones_like(tensor) for name, tensor in stock.items()}
    for name, part in slice_maps(subject.layout, WIDE.operated).items():
        part.write(multiples[name], torch.tensor(4.0).expand_as(part.read(multiples[name])))
    assert {1.0, 4.0} == {float(x) for each in multiples.values() for x in each.unique()}
    optimiser = Optimiser(subject, short(heads_rate=4.0, weight_decay=0.1))
    first = {name: torch.zeros_like(tensor) for name, tensor in stock.items()}
    second = {name: torch.zeros_like(tensor) for name, tensor in stock.items()}
    generator = torch.Generator().manual_seed(3)
    for step in (1, 2, 3):
        for name, part in subject.trainable().items():
            part.grad = torch.randn(part.shape, generator=generator)
            gradient = part.grad.double()
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            mean, spread = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
            moved = mean / (spread.sqrt() + 1e-8) + 0.1 * stock[name]
            stock[name] = stock[name] - 1e-3 * multiples[name] * moved
        optimiser.step(1e-3)
    for name, part in subject.trainable().items():
        torch.testing.assert_close(part.detach().double(), stock[name], rtol=1e-4, atol=1e-6)


# --- masters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "lost"), [(5e-5, 0.69), (1e-5, 0.92)])
def test_bf16_masters_lose_most_unit_steps_that_fp32_masters_take(rate: float, lost: float) -> None:
    share = {}
    for kept in ("fp32", "bf16"):
        subject = operate(pico("bloom"), WIDE)
        settings = short(masters=kept)
        generator = torch.Generator().manual_seed(0)
        # Xavier uniform on one head's fused block of BLOOM-1b7 [3·128, 2048]
        bound = (6 / (384 + 2048)) ** 0.5
        fused = [name for name, slice_ in subject.named_slices().items() if slice_.ndim == 2]
        fused = [name for name in fused if name not in subject.outputs()]
        with torch.no_grad():
            for name in fused:
                subject.named_slices()[name].uniform_(-bound, bound, generator=generator)
        with masters(subject, settings):
            before = values(subject)
            for slice_ in subject.slices():
                slice_.grad = torch.ones_like(slice_)
            Optimiser(subject, settings).step(rate)
            after = values(subject)
        still = torch.cat([(after[name] == before[name]).flatten() for name in fused])
        share[kept] = float(still.float().mean())
        # what starts at zero moves all the same
        assert all(bool((after[name] != 0).all()) for name in subject.outputs())
    assert share["bf16"] == pytest.approx(lost, abs=0.03)
    assert share["fp32"] == 0.0


def test_bf16_masters_hold_slices_and_both_moments_in_bf16(tmp_path: Path) -> None:
    subject = patient()
    run(subject, tmp_path / "run", masters="bf16")
    held = end_state(tmp_path / "run")
    assert {t.dtype for name, t in held.items() if not name.startswith("step/")} == {torch.bfloat16}
    assert any(name.startswith("exp_avg_sq/") for name in held)
    for slice_ in subject.slices():
        assert slice_.dtype == torch.float32
        assert torch.equal(slice_, slice_.bfloat16().float())
    # what training saw last is what stays, and what the model computes with
    for name, slice_ in subject.named_slices().items():
        weight = subject.model.state_dict()[name]
        assert torch.equal(subject.maps[name].read(weight), slice_)


def test_bf16_masters_take_half_the_memory() -> None:
    plans = {
        name: memory_plan(patient(), short(masters=name, **QUICK)) for name in ("fp32", "bf16")
    }
    slices = sum(slice_.nbytes for slice_ in patient().slices())
    saved = plans["fp32"].evaluation - plans["bf16"].evaluation
    assert saved == pytest.approx(1.5 * slices, rel=0.02)
    assert plans["fp32"].weights == plans["bf16"].weights


# --- runs ----------------------------------------------------------------------------------------


def subject_of(family: str) -> Patient:
    return patient(family) if family == "bloom" else operate(tiny(family), WIDE)


@pytest.mark.parametrize("arm", ARMS)
def test_a_stopped_run_of_any_arm_ends_bit_identical(arm: str, tmp_path: Path) -> None:
    def stop(event: StepEvent) -> None:
        if event.step in (1, 4):
            raise KeyboardInterrupt

    family, changes = ARMS[arm]
    changes = {**changes, **QUICK}
    run(subject_of(family), tmp_path / "whole", **changes)
    for _ in range(2):
        with pytest.raises(Interrupted):
            run(subject_of(family), tmp_path / "parts", stop, **changes)
    run(subject_of(family), tmp_path / "parts", **changes)
    assert same(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_beats_its_own_start_and_leaves_the_other_weights_as_they_were(
    arm: str, tmp_path: Path
) -> None:
    family, changes = ARMS[arm]
    subject = subject_of(family)
    model = subject.model
    stock = {name: tensor.clone() for name, tensor in tiny(family).state_dict().items()}
    few = {"max_tokens": 16 * 48, "evaluate_every": 8, "learning_rate": 2e-2, **QUICK}
    result = run(subject, tmp_path / "run", **few, **changes)
    # step 0 is what `untrained` scores
    assert result.best_dev_loss < dict(read_log(result))[0] - 0.05
    subject.merge()
    for name, tensor in model.state_dict().items():
        outside = tensor.clone()
        if name in subject.maps:
            subject.maps[name].write(outside, subject.maps[name].read(stock[name]))
        assert torch.equal(outside, stock[name])
    subject.revert()
    assert all(torch.equal(t, stock[name]) for name, t in model.state_dict().items())


def test_a_first_rate_of_zero_changes_nothing_in_the_first_step(tmp_path: Path) -> None:
    subject = patient()
    before = values(subject)
    settings = short(first_rate="zero")
    rates = [learning_rate(step, 8, settings) for step in range(8)]
    assert rates[:3] == [0.0, pytest.approx(2.5e-3), pytest.approx(5e-3)]
    assert rates[2:] == [learning_rate(step, 8, short()) for step in range(2, 8)]

    def stop(event: StepEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        run(subject, tmp_path / "run", stop, first_rate="zero", max_tokens=8 * 48)
    assert read_entries(tmp_path / "run" / "log.jsonl")[-1]["learning_rate"] == 0.0
    held = end_state(tmp_path / "run")
    assert all(torch.equal(held[f"slice/{name}"], value) for name, value in before.items())


def test_a_run_from_before_these_settings_existed_is_resumed(tmp_path: Path) -> None:
    def stop(event: StepEvent) -> None:
        if event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        run(patient(), tmp_path / "run", stop)
    path = tmp_path / "run" / "run.json"
    content = json.loads(path.read_text())
    for name in ("optimizer", "output_rate", "heads_rate", "first_rate", "momentum", "masters"):
        del content["identity"]["settings"][name]
    path.write_text(json.dumps(content))
    assert run(patient(), tmp_path / "run").steps == STEPS


def test_optimisers_and_rates_that_do_not_exist_are_refused_in_words() -> None:
    with pytest.raises(SettingsError, match=r"'adamw' or 'muon'.*'sgd'") as caught:
        short(optimizer="sgd", output_rate=0.0, first_rate="low", momentum=1.0, masters="fp8")
    for name in ("output_rate", "first_rate", "momentum", "masters"):
        assert name in str(caught.value)
