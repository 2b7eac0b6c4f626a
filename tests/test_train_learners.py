"""What operations are compared with: every parameter trained, and LoRA of the same size."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.errors import (
    Interrupted,
    MissingPackage,
    ModelError,
    OutputError,
    PlanError,
    SettingsError,
    StateError,
    UnsupportedModel,
)
from headsurgeon.heads import HeadId
from headsurgeon.measurement import measure
from headsurgeon.operation import (
    FullLearner,
    Learner,
    LoraLearner,
    apply_patch,
    open_full,
    open_lora,
    operate,
)
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.training import StepEvent, read_log
from tests.pico import PICO, pico, tokens
from tests.pico_families import pico_family
from tests.test_train_loop import PLAN, end_state, run
from tests.test_train_optimiser import QUICK

LEARNERS: dict[str, Callable[[PreTrainedModel, Plan], Learner]] = {
    "full": open_full,
    "lora": open_lora,
}
# layers 0 and 1 exist in every pico model
WIDE = Plan(
    model="pico", rule="heads", heads=tuple(PlannedHead(id=HeadId(1, head)) for head in (0, 1, 3))
)
FAMILIES = ["bloom", "gpt2", "llama", "phi3"]


def tiny(family: str) -> PreTrainedModel:
    return pico(family) if family in PICO else pico_family(family)


def state(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    return model(tokens(), use_cache=False).logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", LEARNERS)
def test_it_beats_untrained_and_merges_and_reverts_bit_for_bit(
    kind: str, family: str, tmp_path: Path
) -> None:
    model = tiny(family)
    stock, flags = state(model), {n: p.requires_grad for n, p in model.named_parameters()}
    learner = LEARNERS[kind](model, WIDE)
    few = {"max_tokens": 16 * 48, "evaluate_every": 8, **QUICK}
    result = run(learner, tmp_path / "run", **few)
    assert result.best_dev_loss < dict(read_log(result))[0] - 0.05
    trained = logits(model)
    merged = learner.merge()
    assert (merged.state, merged.largest > 0) == ("merged", True)
    torch.testing.assert_close(logits(model), trained, rtol=1e-4, atol=1e-4)
    kept = state(model)
    learner.revert()
    assert equal(state(model), stock)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    learner.merge()
    assert equal(state(model), kept)
    learner.reopen()
    assert torch.equal(logits(model), trained)
    assert all(tensor.requires_grad for tensor in learner.trainable().values())
    learner.revert()
    assert equal(state(model), stock)
    assert not any(hasattr(model, name) for name in ("peft_config", "active_adapter"))


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_stopped_run_ends_bit_identical(kind: str, tmp_path: Path) -> None:
    def stop(event: StepEvent) -> None:
        if event.step in (1, 4):
            raise KeyboardInterrupt

    def again() -> Learner:
        return LEARNERS[kind](pico("bloom", hidden_dropout=0.1), PLAN)

    run(again(), tmp_path / "whole", weight_decay=0.1, **QUICK)
    subject = again()
    for _ in range(2):
        with pytest.raises(Interrupted):
            run(subject, tmp_path / "parts", stop, weight_decay=0.1, **QUICK)
    # another process would start from the stock model
    run(again(), tmp_path / "parts", weight_decay=0.1, **QUICK)
    left, right = end_state(tmp_path / "parts"), end_state(tmp_path / "whole")
    assert equal(left, right)


@pytest.mark.parametrize("kind", LEARNERS)
def test_snapshots_keep_what_is_trained_in_bf16(kind: str, tmp_path: Path) -> None:
    learner = LEARNERS[kind](pico("bloom"), PLAN)
    result = run(learner, tmp_path / "run", snapshots=[2, 7], snapshot_dtype="bf16", **QUICK)
    assert [path.name for path in result.snapshots] == [f"step-{n:06d}.safetensors" for n in (2, 7)]
    for path in result.snapshots:
        tensors = load_file(path)
        assert len(tensors) == len(learner.trainable())
        assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", LEARNERS)
def test_the_folder_of_one_learner_is_not_resumed_by_another(kind: str, tmp_path: Path) -> None:
    run(LEARNERS[kind](pico("bloom"), PLAN), tmp_path / "run", **QUICK)
    with pytest.raises(OutputError, match=f"trains: the run there has '{kind}', this one None"):
        run(operate(pico("bloom"), PLAN), tmp_path / "run", **QUICK)


def test_every_parameter_moves_when_all_are_trained(tmp_path: Path) -> None:
    model = tiny("llama")
    stock = state(model)
    learner = open_full(model, WIDE)
    run(learner, tmp_path / "run", **QUICK)
    learner.merge()
    assert learner.trainable().keys() == dict(model.named_parameters()).keys()
    assert all(not torch.equal(value, stock[name]) for name, value in state(model).items())
    written = load_file(tmp_path / "run" / "weights.safetensors")
    again = tiny("llama")
    again.load_state_dict(written, strict=False)
    assert equal(state(again), state(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_is_trained_from_where_an_operation_left_the_heads(
    family: str, tmp_path: Path
) -> None:
    model = tiny(family)
    stock, flags = state(model), {n: p.requires_grad for n, p in model.named_parameters()}
    patient = operate(model, WIDE, seed=3)
    begun = logits(model)
    learner = open_full(model, WIDE, start=patient)
    assert (patient.state, learner.state) == ("reverted", "open")
    assert torch.equal(logits(model), begun)
    assert not torch.equal(begun, logits(tiny(family)))
    assert all(tensor.requires_grad for tensor in model.parameters())
    # what counts as untouched, as for an anchor, is the model before the operation
    assert all(torch.equal(value, stock[n]) for n, value in learner.untouched_values().items())
    run(learner, tmp_path / "run", **QUICK)
    learner.merge()
    assert all(not torch.equal(value, stock[name]) for name, value in state(model).items())
    for step in (patient.merge, patient.reopen):
        with pytest.raises(StateError, match="has changed since this patient"):
            step()
    learner.revert()
    assert equal(state(model), stock)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    # the start is as good as ever
    open_full(model, WIDE, start=patient)
    assert torch.equal(logits(model), begun)


@pytest.mark.parametrize("taken", ["revert", "merge", "reopen"])
def test_a_start_is_not_taken_out_from_under_what_is_trained(taken: str) -> None:
    patient = operate(pico("bloom"), PLAN)
    learner = open_full(patient.model, PLAN, start=patient)
    begun = logits(patient.model)
    with pytest.raises(StateError, match="has changed since this patient"):
        getattr(patient, taken)()
    learner.merge()
    assert torch.equal(logits(patient.model), begun)


def test_a_run_from_a_start_is_resumed_from_the_same_start_alone(tmp_path: Path) -> None:
    faster = {**QUICK, "heads_rate": 4.0}

    def begun(seed: int, folder: Path, on_step: Callable[[StepEvent], None] | None = None) -> Path:
        model = pico("bloom")
        learner = open_full(model, PLAN, start=operate(model, PLAN, seed=seed))
        return run(learner, folder, on_step, **faster).folder

    def stop(event: StepEvent) -> None:
        if event.step == 4:
            raise KeyboardInterrupt

    begun(0, tmp_path / "whole")
    with pytest.raises(Interrupted):
        begun(0, tmp_path / "parts", stop)
    begun(0, tmp_path / "parts")
    assert equal(end_state(tmp_path / "parts"), end_state(tmp_path / "whole"))
    with pytest.raises(OutputError, match="init_seed: the run there has 0, this one 1"):
        begun(1, tmp_path / "whole")
    with pytest.raises(OutputError, match="init: the run there has 'xavier_uniform_head'"):
        run(open_full(pico("bloom"), PLAN), tmp_path / "whole", **faster)


def test_a_start_that_was_trained_counts_with_its_values(tmp_path: Path) -> None:
    starts = [operate(pico("bloom"), PLAN) for _ in range(3)]
    for index, start in enumerate(starts[1:]):
        run(start, tmp_path / str(index), learning_rate=1e-2 * (index + 1), **QUICK)
    found = [open_full(start.model, PLAN, start=start).identity() for start in starts]
    assert "start_values" not in found[0]
    assert found[1]["start_values"] != found[2]["start_values"]
    again = apply_patch(pico("bloom"), tmp_path / "0" / "patch.safetensors")
    assert open_full(again.model, PLAN, start=again).identity() == found[1]


@pytest.mark.parametrize("was", ["open", "merged", "reverted"])
def test_a_start_that_does_not_fit_leaves_everything_as_it_was(
    was: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = operate(pico("bloom"), PLAN)
    {"open": patient.reopen, "merged": patient.merge, "reverted": patient.revert}[was]()
    begun = logits(patient.model)
    with pytest.raises(SettingsError, match="start: an operation on another model"):
        open_full(pico("bloom"), PLAN, start=patient)
    with pytest.raises(PlanError, match="its heads are not those that start operates on"):
        open_full(patient.model, WIDE, start=patient)

    def fails(*_: object, **__: object) -> None:
        raise ModelError("no")

    monkeypatch.setattr("headsurgeon.operation.full.checked_fingerprints", fails)
    with pytest.raises(ModelError, match="no"):
        open_full(patient.model, PLAN, start=patient)
    assert patient.state == was
    assert torch.equal(logits(patient.model), begun)


def test_tied_embeddings_are_one_parameter_with_the_gradient_of_both_uses(tmp_path: Path) -> None:
    model = tiny("llama-tied")
    learner = open_full(model, WIDE)
    assert "lm_head.weight" not in learner.trainable()
    run(learner, tmp_path / "run", **QUICK)
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    # the same learner, trained by now, is still the run that started from the stock weights
    run(learner, tmp_path / "run", **QUICK)


@pytest.mark.parametrize("family", [*FAMILIES, "falcon-new", "gemma"])
@pytest.mark.parametrize("heads", [(0,), (0, 1, 3), (0, 1, 2, 3)])
def test_adapters_have_as_many_values_as_the_slices(family: str, heads: tuple[int, ...]) -> None:
    plan = Plan(
        model="pico", rule="heads", heads=tuple(PlannedHead(id=HeadId(1, head)) for head in heads)
    )
    wanted = sum(slice_.numel() for slice_ in operate(tiny(family), plan).slices())
    learner = open_lora(tiny(family), plan)
    found = sum(tensor.numel() for tensor in learner.trainable().values())
    largest = max(sum(base.weight.shape) for base in learner._bases.values())
    assert abs(found - wanted) <= largest / 2
    assert max(learner.ranks.values()) - min(learner.ranks.values()) <= 1


def test_adapters_start_at_the_stock_model_and_leave_everything_else_alone(tmp_path: Path) -> None:
    model = tiny("bloom")
    stock, before = state(model), logits(model)
    learner = open_lora(model, WIDE)
    assert torch.equal(logits(model), before)
    assert all("h.1.self_attention" in name for name in learner.trainable())
    run(learner, tmp_path / "run", **QUICK)
    learner.merge()
    changed = {name for name, value in state(model).items() if not torch.equal(value, stock[name])}
    assert changed == {f"{path}.weight" for path in learner.ranks}


def test_the_seed_of_the_adapters_decides_where_they_start() -> None:
    starts = [open_lora(pico("bloom"), WIDE, seed).trainable() for seed in (0, 0, 1)]
    first = next(iter(starts[0]))
    assert torch.equal(starts[0][first], starts[1][first])
    assert not torch.equal(starts[0][first], starts[2][first])


@pytest.mark.parametrize("family", ["bloom", "gpt2"])
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_peft_reads_the_adapter_that_a_run_leaves(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    learner = open_lora(tiny(family), WIDE)
    result = run(learner, tmp_path / "run", learning_rate=0.05, **QUICK)
    again = PeftModel.from_pretrained(tiny(family), result.folder)
    torch.testing.assert_close(logits(again), logits(learner.model), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(tiny(family)), logits(again), atol=1e-3)


def test_heads_are_measured_with_their_adapters(tmp_path: Path) -> None:
    learner = open_lora(tiny("bloom"), WIDE)
    run(learner, tmp_path / "run", learning_rate=0.05, **QUICK)
    with_adapters = measure(learner.model, tokens(4, 16))
    learner.merge()
    merged = measure(learner.model, tokens(4, 16))
    for name in ("first_token_mass", "entropy", "output_norm"):
        left, right = getattr(with_adapters, name), getattr(merged, name)
        assert left == pytest.approx(right, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bf16_masters_leave_the_models_precision_as_it_was(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model = pico("bloom").to(dtype)
    learner = open_full(model, PLAN)
    run(learner, tmp_path / "run", masters="bf16", **QUICK)
    held = end_state(tmp_path / "run")
    assert {t.dtype for name, t in held.items() if not name.startswith("step/")} == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


# --- refusals ------------------------------------------------------------------------------------


def test_settings_that_what_is_trained_has_no_use_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="FullLearner trains none; choose adamw"):
        run(open_full(pico("bloom"), PLAN), tmp_path / "run", optimizer="muon")
    with pytest.raises(SettingsError, match="LoraLearner trains no output columns"):
        run(open_lora(pico("bloom"), PLAN), tmp_path / "run", output_rate=2.0)
    for begin, name in ((operate, "Patient"), (open_lora, "LoraLearner")):
        with pytest.raises(SettingsError, match=f"heads_rate is 2, but {name} does not train"):
            run(begin(pico("bloom"), PLAN), tmp_path / "run", heads_rate=2.0)
    with pytest.raises(SettingsError, match="heads_rate is 2 and masters is bf16"):
        run(open_full(pico("bloom"), PLAN), tmp_path / "run", heads_rate=2.0, masters="bf16")
    narrow = pico("bloom").to(torch.bfloat16)
    with pytest.raises(SettingsError, match=r"trained as torch\.bfloat16; load .*masters bf16"):
        run(open_full(narrow, PLAN), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_merged_learner_is_not_trained_and_never_writes_over_a_later_change(
    kind: str, tmp_path: Path
) -> None:
    learner = LEARNERS[kind](pico("bloom"), PLAN)
    learner.merge()
    with pytest.raises(StateError, match=r"call reopen\(\)"):
        run(learner, tmp_path / "run")
    later = operate(learner.model, PLAN)
    later.merge()
    with pytest.raises(StateError, match="revert that one first"):
        learner.revert()
    later.revert()
    learner.revert()
    assert equal(state(learner.model), state(pico("bloom")))


def test_a_model_with_adapters_is_not_operated_on_or_given_more() -> None:
    learner = open_lora(pico("bloom"), PLAN)
    for begin in (operate, open_full, open_lora):
        with pytest.raises(ModelError, match=r"carries an adapter \(PEFT\).*revert it first"):
            begin(learner.model, PLAN)
    learner.revert()
    operate(learner.model, PLAN)


def test_other_adapters_than_lora_are_refused_by_name() -> None:
    from peft import IA3Config, inject_adapter_in_model

    model = pico("bloom")
    inject_adapter_in_model(
        IA3Config(target_modules=["dense"], feedforward_modules=[]), model, "other"
    )
    with pytest.raises(UnsupportedModel, match=r"no layout describes: peft\.tuners\.ia3"):
        measure(model, tokens())


def test_without_peft_the_words_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingPackage, match=r'pip install "headsurgeon\[lora\]"'):
        open_lora(pico("bloom"), PLAN)


def test_what_opens_is_what_the_types_say() -> None:
    assert isinstance(open_full(pico("bloom"), PLAN), FullLearner)
    assert isinstance(open_lora(pico("bloom"), PLAN), LoraLearner)
