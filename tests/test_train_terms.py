"""Terms of the loss besides the training text: exact, resumable, and good for what they are for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from headsurgeon.attention.sink_gate import sink_gate
from headsurgeon.data import Windows
from headsurgeon.errors import Interrupted, OutputError, SettingsError
from headsurgeon.heads import HeadId
from headsurgeon.measurement import measure
from headsurgeon.models.divergence import divergence
from headsurgeon.operation import Patient, operate
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.training import Run, StepEvent, TrainSettings, train
from headsurgeon.training.anchor import Anchor
from headsurgeon.training.balance import Balance, unevenness
from headsurgeon.training.log import read_entries
from tests.clinic import sick_bloom
from tests.pico import VOCABULARY, pico, tokens
from tests.pico_families import pico_family
from tests.test_train_loop import cut, end_state, entries, patient, short


def same_text_with_a_first_token(count: int = 8, length: int = 12) -> Windows:
    """Windows that start with `</s>`, which the sick heads of the clinic look at."""
    windows = cut("train", count, length)
    ids = windows.tokens.clone() + 4
    ids[:, 0] = 0
    return replace(windows, tokens=ids)


def control(model: PreTrainedModel, *heads: tuple[int, int], role: str = "operate") -> Patient:
    """A patient whose heads keep their weights: what is trained is what was there."""
    planned = tuple(PlannedHead(id=HeadId(*head)) for head in heads)
    return operate(
        model,
        Plan(model="pico", rule="heads", heads=planned, init="none", output_start="keep_output"),
    )


# --- the gate ------------------------------------------------------------------------------------


def eager_gates(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """1 − the probability on position 0 of rows from 1 on, [layer, batch, head, row]."""
    maps = model(ids, output_attentions=True).attentions
    return torch.stack([1.0 - layer[..., 1:, 0] for layer in maps])


@pytest.mark.parametrize("block", [3, 128])
def test_gate_and_its_gradient_are_those_of_a_whole_softmax(block: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (
        torch.randn(2, 3, 10, 4, generator=generator, requires_grad=True) for _ in range(2)
    )
    bias = torch.tensor([0.0, 0.1, 0.5])[:, None] * torch.arange(10)
    gate = sink_gate(query, key, bias, 0.5, block, softcap=3.0)
    scores = 3.0 * torch.tanh(query @ key.transpose(-1, -2) * 0.5 / 3.0) + bias[:, None]
    future = torch.ones(10, 10, dtype=torch.bool).triu(1)
    wanted = 1.0 - scores.masked_fill(future, -torch.inf).softmax(-1)[..., 1:, 0]
    torch.testing.assert_close(gate, wanted, atol=1e-6, rtol=1e-5)
    weights = torch.randn(gate.shape, generator=generator)
    found = torch.autograd.grad((gate * weights).sum(), (query, key))
    for mine, theirs in zip(
        found, torch.autograd.grad((wanted * weights).sum(), (query, key)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


def test_what_a_dead_head_leaves_is_not_lost_to_rounding() -> None:
    query, key = torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 3, 2)
    key[..., 0, 0], query[..., 0] = 30.0, 1.0
    gate = sink_gate(query, key, torch.zeros(1, 3), 1.0)
    # 1 − softmax would be 0
    assert gate.flatten().tolist() == pytest.approx(
        [torch.tensor(-30.0).exp().item(), 2 * torch.tensor(-30.0).exp().item()], rel=1e-5
    )


# --- balance -------------------------------------------------------------------------------------


def by_hand(gates: torch.Tensor, layers: list[int], shared: int) -> float:
    """Σ (heads − m)·(std / mean)² over layers, from eager attention."""
    total = 0.0
    for layer in layers:
        importance = gates[layer].mean((0, 2)).sort().values
        kept = importance[: len(importance) - shared]
        total += len(kept) * float(kept.std(correction=0) / kept.mean()) ** 2
    return total


def value_of(
    subject: Patient, ids: torch.Tensor, **changes: Any
) -> tuple[float, dict[str, torch.Tensor]]:
    """A balance term's value and the gradient of every slice."""
    term = Balance(subject, TrainSettings(epochs=1, balance=1.0, **changes))
    with term.watching():
        subject.model.base_model(input_ids=ids, use_cache=False)
        value = term.of_batch()
    named = subject.named_slices()
    found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    return value.item(), {
        name: torch.zeros_like(slice_) if gradient is None else gradient
        for (name, slice_), gradient in zip(named.items(), found, strict=True)
    }


@pytest.mark.parametrize(
    ("make", "seeing"),
    [
        (lambda: pico("bloom"), 11),
        (lambda: pico("mpt-clip"), 11),
        (lambda: pico_family("llama", attn_implementation="eager"), 11),
        # of a window of 5 tokens, rows 1 to 4 see position 0
        (lambda: pico_family("mistral", attn_implementation="eager"), 4),
    ],
    ids=["bloom", "mpt-clip", "llama", "mistral"],
)
@pytest.mark.parametrize("shared", [0, 1])
def test_balance_is_the_published_formula_over_eager_attention(
    make: Callable[[], PreTrainedModel], seeing: int, shared: int
) -> None:
    model, ids = make(), tokens(3, 12)
    with torch.no_grad():
        wanted = by_hand(eager_gates(model, ids)[..., :seeing], [0, 1], shared)
    subject = control(model, *[(layer, head) for layer in (0, 1) for head in range(4)])
    found, gradients = value_of(subject, ids, balance_shared=shared)
    assert wanted > 0.0
    assert found == pytest.approx(wanted, rel=1e-4)
    assert any(bool(gradient.abs().sum() > 0) for gradient in gradients.values())


def test_the_gradient_of_balance_is_that_of_its_finite_difference() -> None:
    ids = tokens(3, 12)
    subject = control(pico("bloom"), (1, 1), (1, 2))
    _, gradients = value_of(subject, ids)
    name = "transformer.h.1.self_attention.query_key_value.weight"
    slice_, gradient = subject.named_slices()[name], gradients[name]
    direction = gradient / gradient.norm()
    step, ends = 1e-2, []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            slice_.add_(direction, alpha=sign * step)
        ends.append(value_of(subject, ids)[0])
        with torch.no_grad():
            slice_.add_(direction, alpha=-sign * step)
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(gradient.norm()), rel=1e-2)


def test_balance_wakes_sink_heads_that_the_text_alone_leaves_asleep(tmp_path: Path) -> None:
    windows = same_text_with_a_first_token()
    masses = {}
    for name, coefficient in (("plain", 0.0), ("balance", 1.0)):
        subject = control(sick_bloom(), (1, 2), (1, 3))
        settings = short(
            max_tokens=8 * 48, balance=coefficient, learning_rate=0.05, keep="last", warmup=0
        )
        train(subject, windows, windows, output=tmp_path / name, settings=settings)
        stats = measure(subject.model, windows)
        masses[name] = stats.first_token_mass[1, 2:4]
    assert (masses["plain"] > 0.9).all()
    assert (masses["balance"] < 0.6).all()
    logged = [e for e in read_entries(tmp_path / "balance" / "log.jsonl") if e["kind"] == "step"]
    assert logged[-1]["terms"]["balance"] < 0.5 * logged[0]["terms"]["balance"]


def test_heads_that_sleep_alike_are_balanced_and_nothing_moves_them() -> None:
    assert unevenness(torch.full((4,), 0.01), 0).item() == pytest.approx(0.0, abs=1e-9)
    assert unevenness(torch.tensor([0.1, 0.3]), 0).item() == pytest.approx(2 * (0.1 / 0.2) ** 2)
    assert unevenness(torch.tensor([0.9, 0.1, 0.3]), 1).item() == pytest.approx(0.5)


def test_gradient_checkpointing_gives_balance_the_same_gradient(tmp_path: Path) -> None:
    ends = []
    for checkpointing in (False, True):
        folder = tmp_path / str(checkpointing)
        train(
            patient(),
            cut("train"),
            cut("dev"),
            output=folder,
            settings=short(balance=1.0, gradient_checkpointing=checkpointing),
        )
        ends.append(end_state(folder))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_balance_is_refused_where_sinks_are_learned_or_too_few_heads_are_left() -> None:
    settings = TrainSettings(epochs=1, balance=1.0)
    model = pico_family("gpt_oss")
    assert layout_of(model).learned_sinks
    plan = Plan(
        model="pico",
        rule="heads",
        heads=tuple(PlannedHead(id=HeadId(0, head)) for head in range(4)),
    )
    with pytest.raises(SettingsError, match="learned sink"):
        Balance(operate(model, plan), settings)
    with pytest.raises(SettingsError, match="balance_shared: 3 of 4 heads"):
        Balance(patient(), TrainSettings(epochs=1, balance=1.0, balance_shared=3))


# --- divergence and anchor -----------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bloom", "mpt"])
def test_divergence_and_its_gradient_are_those_of_plain_kl(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # blocks of 7 tokens of the vocabulary
    monkeypatch.setattr("headsurgeon.models.divergence.BLOCK_BYTES", 4 * 5 * 7)
    model = pico(family).requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(5, 32, generator=generator, requires_grad=True)
    reference = torch.randn(5, 32, generator=generator)
    found = divergence(model, hidden, reference)
    head = model.get_output_embeddings().weight
    now, before = ((state @ head.T).double().log_softmax(-1) for state in (hidden, reference))
    wanted = functional.kl_div(now, before, reduction="sum", log_target=True)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    mine = torch.autograd.grad(found, hidden)[0]
    torch.testing.assert_close(mine, torch.autograd.grad(wanted, hidden)[0], atol=1e-5, rtol=1e-4)
    assert divergence(model, reference, reference).item() == 0.0


def test_divergence_bends_logits_as_the_family_does() -> None:
    model = pico_family("gemma2").requires_grad_(False)
    assert layout_of(model).logit_softcap is not None
    width = model.config.hidden_size
    generator = torch.Generator().manual_seed(3)
    hidden = (3.0 * torch.randn(5, width, generator=generator)).requires_grad_()
    reference = 3.0 * torch.randn(5, width, generator=generator)
    cap = layout_of(model).logit_softcap
    head = model.get_output_embeddings().weight

    def predicted(state: torch.Tensor) -> torch.Tensor:
        return (cap * ((state @ head.T) / cap).tanh()).log_softmax(-1)

    wanted = functional.kl_div(
        predicted(hidden), predicted(reference), reduction="sum", log_target=True
    )
    found = divergence(model, hidden, reference)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4)
    mine = torch.autograd.grad(found, hidden)[0]
    torch.testing.assert_close(mine, torch.autograd.grad(wanted, hidden)[0], atol=1e-5, rtol=1e-3)


ELSEWHERE = replace(cut("anchor", 6), tokens=tokens(6, 12, seed=5))


def plain_kl(subject: Patient, ids: torch.Tensor) -> float:
    """Mean KL(untouched ‖ operated) per predicted token, from whole logits."""
    with torch.no_grad():
        now = subject.model(ids).logits[:, :-1].log_softmax(-1)
        before = pico("bloom")(ids).logits[:, :-1].log_softmax(-1)
    total = functional.kl_div(now, before, reduction="sum", log_target=True)
    return float(total) / (now.shape[0] * now.shape[1])


def test_anchor_is_the_mean_kl_of_the_steps_windows_from_the_untouched_model() -> None:
    subject = operate(
        pico("bloom"), Plan(model="pico", rule="heads", heads=(PlannedHead(id=HeadId(1, 1)),))
    )
    settings = short(anchor=1.0, anchor_batch=6)
    term = Anchor(subject, settings, ELSEWHERE)
    assert term.tokens_per_step == 6 * 12
    # six windows a step, of six: every step reads all of them, in parts of two
    parts = [summand.item() for summand in term.apart(3)]
    assert len(parts) == 3
    assert sum(parts) == pytest.approx(plain_kl(subject, ELSEWHERE.tokens), rel=1e-4)


def anchored(
    folder: Path, coefficient: float, on_step: Callable[[StepEvent], None] | None = None
) -> tuple[Run, Patient]:
    subject = operate(
        pico("bloom"),
        Plan(
            model="pico", rule="heads", heads=tuple(PlannedHead(id=HeadId(1, h)) for h in range(3))
        ),
    )
    run = train(
        subject,
        cut("train"),
        cut("dev"),
        output=folder,
        settings=short(
            anchor=coefficient, anchor_batch=2, learning_rate=0.02, max_tokens=15 * 48, keep="last"
        ),
        anchor=ELSEWHERE if coefficient else None,
        on_step=on_step,
    )
    return run, subject


def test_the_anchor_keeps_the_model_nearer_to_what_it_said_elsewhere(tmp_path: Path) -> None:
    held, free = (anchored(tmp_path / str(c), c) for c in (3.0, 0.0))
    apart = [plain_kl(subject, ELSEWHERE.tokens) for _, subject in (held, free)]
    assert apart[0] < 0.7 * apart[1]
    assert held[0].anchor_tokens == 15 * 2 * 12
    assert free[0].anchor_tokens == 0
    # what the budget counts is the same for both
    assert held[0].tokens == free[0].tokens
    steps = [e for e in read_entries(held[0].log) if e["kind"] == "step"]
    assert [e["anchor_tokens"] for e in steps] == [24 * e["step"] for e in steps]
    assert all(e["terms"]["anchor"] > 0 for e in steps)


def test_a_run_with_terms_that_is_stopped_and_resumed_ends_bit_identical(tmp_path: Path) -> None:
    settings = short(anchor=0.5, anchor_batch=3, balance=0.5)

    def go(folder: Path, on_step: Callable[[StepEvent], None] | None = None) -> None:
        train(
            patient(),
            cut("train"),
            cut("dev"),
            output=folder,
            settings=settings,
            anchor=ELSEWHERE,
            on_step=on_step,
        )

    def stop(event: StepEvent) -> None:
        if event.step == 4:
            raise KeyboardInterrupt

    go(tmp_path / "whole")
    with pytest.raises(Interrupted):
        go(tmp_path / "run", stop)
    go(tmp_path / "run")
    left, right = end_state(tmp_path / "run"), end_state(tmp_path / "whole")
    assert all(torch.equal(left[name], right[name]) for name in right)
    assert entries(tmp_path / "run") == entries(tmp_path / "whole")
    with pytest.raises(OutputError, match=r"anchor\.tokens"):
        train(
            patient(),
            cut("train"),
            cut("dev"),
            output=tmp_path / "run",
            settings=settings,
            anchor=replace(ELSEWHERE, tokens=tokens(6, 12, seed=6)),
        )


def test_bf16_masters_are_anchored_to_the_exact_untouched_model(tmp_path: Path) -> None:
    subject = control(pico("bloom"), (1, 1))
    settings = short(anchor=1.0, masters="bf16", stop=1, keep="last")
    seen = train(
        subject,
        cut("train"),
        cut("dev"),
        output=tmp_path / "run",
        settings=settings,
        anchor=ELSEWHERE,
    )
    step = next(e for e in read_entries(seen.log) if e["kind"] == "step")
    # rounding the slices to bf16 has already moved the model a little
    assert 0.0 < step["terms"]["anchor"] < 1e-2


@pytest.mark.parametrize(("coefficient", "windows"), [(1.0, None), (0.0, ELSEWHERE)])
def test_a_coefficient_without_windows_or_the_other_way_round_is_refused(
    coefficient: float, windows: Windows | None, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="belong together"):
        train(
            patient(),
            cut("train"),
            cut("dev"),
            output=tmp_path / "run",
            settings=short(anchor=coefficient),
            anchor=windows,
        )
    assert not (tmp_path / "run").exists()


def test_more_hidden_states_than_are_held_are_refused() -> None:
    many = replace(ELSEWHERE, tokens=torch.zeros(1, dtype=torch.long).expand(2**22, 12))
    with pytest.raises(SettingsError, match=r"take 6\.0 GiB, and 2 are kept at most"):
        Anchor(patient(), short(anchor=1.0), many)
    assert VOCABULARY > 20
