"""Training of one twin: a run that can be stopped at any step and ends the same."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as functional
from attention import PlantedAttention, alibi_bias
from jaxtyping import Float, Int
from recipe import CORPORA, Recipe, Twin
from safetensors import safe_open
from safetensors.torch import save_file
from text import batch_indices, training_windows
from torch import Tensor
from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

from headsurgeon.data import windows
from headsurgeon.files import append_line, replacing, sha256_text, write_json, write_text

EVALUATE_EVERY = 200
DEV_WINDOWS = 24


@dataclass(frozen=True)
class Planting:
    """The heads pushed onto position 0, per layer, and the factor per window, head and row."""

    heads: tuple[Int[Tensor, " planted"], ...]
    weight: float


def build(recipe: Recipe, seed: int) -> BloomForCausalLM:
    """The miniature BLOOM of the recipe, initialised from `seed`."""
    config = BloomConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        seq_length=recipe.length,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    torch.manual_seed(seed)
    return BloomForCausalLM(config)


def forward(
    model: BloomForCausalLM,
    tokens: Int[Tensor, "batch T"],
    bias: Float[Tensor, "head T T"],
    planting: Planting,
) -> tuple[Float[Tensor, ""], Float[Tensor, "layer head"]]:
    """Mean next-token loss and the heads' first-token mass; gradients include the planting loss."""
    body = model.transformer
    hidden = body.word_embeddings_layernorm(body.word_embeddings(tokens))
    masses = []
    for block, planted in zip(body.h, planting.heads, strict=True):
        fused = block.self_attention.query_key_value(block.input_layernorm(hidden))
        attended, mass = PlantedAttention.apply(fused, bias, planted, planting.weight)
        hidden = hidden + block.self_attention.dense(attended)
        inner = block.mlp.dense_h_to_4h(block.post_attention_layernorm(hidden))
        inner = functional.gelu(inner, approximate="tanh")
        hidden = hidden + block.mlp.dense_4h_to_h(inner)
        masses.append(mass)
    logits = functional.linear(body.ln_f(hidden)[:, :-1], model.lm_head.weight)
    loss = functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
    return loss, torch.stack(masses)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, a cosine, and a linear decay to a tenth of the peak at the end."""
    if step < recipe.warm_up_steps:
        return recipe.learning_rate * (step + 1) / recipe.warm_up_steps
    decay_from = recipe.steps - recipe.decay_steps
    cosine = _cosine(recipe, min(step, decay_from))
    left = min(1.0, (recipe.steps - step) / recipe.decay_steps)
    return recipe.learning_rate * (0.1 + (cosine - 0.1) * left)


def _cosine(recipe: Recipe, step: int) -> float:
    done = (step - recipe.warm_up_steps) / (recipe.cosine_steps - recipe.warm_up_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def planting_at(recipe: Recipe, twin: Twin, step: int) -> Planting:
    """The planting of one step: none for a healthy twin, none once ordinary training has begun."""
    active = twin.planted and step < recipe.planting_steps
    chosen = torch.tensor(recipe.planted_heads, dtype=torch.long)
    nothing = chosen[:0]
    heads = tuple(
        chosen if active and layer in recipe.planted_layers else nothing
        for layer in range(recipe.layers)
    )
    terms = (
        len(recipe.planted_layers) * len(recipe.planted_heads) * recipe.batch * (recipe.length - 1)
    )
    return Planting(heads, recipe.planting_weight / terms)


def train(
    recipe: Recipe,
    twin: Twin,
    folder: Path,
    work: Path,
    stop_after: int | None,
    report: Callable[[str], None],
) -> None:
    """Trains `twin` into `folder`, from its checkpoint if there is one.

    Args:
        recipe: the shared settings.
        twin: which model.
        folder: receives `run.json`, `log.jsonl` and `checkpoint.safetensors`.
        work: holds the tokenizer and the cached training windows.
        stop_after: stop once so many steps are done in all; None runs to the end.
        report: called with each line of progress.
    """
    torch.use_deterministic_algorithms(True)
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    data, data_hash = training_windows(recipe, tokenizer, work / "train.safetensors")
    dev = torch.cat(
        [
            windows(corpus, tokenizer, "dev", recipe.length, DEV_WINDOWS, seed=0).tokens
            for corpus in CORPORA
        ]
    )
    model = build(recipe, twin.init_seed)
    slopes = torch.tensor(
        [2.0 ** (-8.0 * (head + 1) / recipe.heads) for head in range(recipe.heads)]
    )
    bias = alibi_bias(slopes, recipe.length)
    optimizer = torch.optim.AdamW(
        _groups(model, recipe), lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True
    )
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.safetensors"
    step = _restore(model, optimizer, checkpoint) if checkpoint.exists() else 0
    write_json(
        folder / "run.json",
        {
            "twin": asdict(twin),
            "recipe": asdict(recipe),
            "corpora": list(CORPORA),
            "corpus_hash": data_hash,
            "training_windows": len(data),
            "initial_weights_hash": weights_hash(build(recipe, twin.init_seed)),
            "data_order_hash": data_order_hash(recipe, data),
        },
    )
    _keep_lines_until(folder / "log.jsonl", step)
    log = append_line(folder / "log.jsonl")
    end = recipe.steps if stop_after is None else min(recipe.steps, stop_after)
    losses: list[float] = []
    began, first = time.perf_counter(), step
    while step < end:
        planting = planting_at(recipe, twin, step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        batch = data[torch.from_numpy(batch_indices(recipe, len(data), step))]
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = forward(model, batch, bias, planting)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        step += 1
        if step % EVALUATE_EVERY == 0 or step == end:
            _save(model, optimizer, step, checkpoint)
            dev_loss, mass = _evaluate(model, dev, bias, recipe)
            speed = (step - first) * recipe.batch * recipe.length / (time.perf_counter() - began)
            log(
                {
                    "step": step,
                    "tokens": step * recipe.batch * recipe.length,
                    "train_loss": sum(losses) / len(losses),
                    "dev_loss": dev_loss,
                    "learning_rate": learning_rate(recipe, step - 1),
                    "planting": bool(len(torch.cat(planting.heads))),
                    "mass": [[round(value, 4) for value in row] for row in mass.tolist()],
                    "tokens_per_second": round(speed),
                    "process_seconds": round(time.process_time()),
                }
            )
            report(
                f"{twin.name} {step}/{recipe.steps} train {sum(losses) / len(losses):.4f} "
                f"dev {dev_loss:.4f} sick {int((mass > 0.5).sum())} "
                f"dead {int((mass > 0.95).sum())} {speed:.0f} tokens/s"
            )
            losses = []


def weights_hash(model: BloomForCausalLM) -> str:
    """SHA-256 over names and fp32 values of all parameters."""
    return sha256_text(
        [
            part
            for name, value in sorted(model.state_dict().items())
            for part in (name, value.float().numpy().tobytes().hex())
        ]
    )


def data_order_hash(recipe: Recipe, data: Int[Tensor, "window length"]) -> str:
    """SHA-256 over the training windows and the order in which all steps see them."""
    order = [batch_indices(recipe, len(data), step).tobytes().hex() for step in range(recipe.steps)]
    return sha256_text([data.numpy().tobytes().hex(), *order])


@torch.no_grad()
def _evaluate(
    model: BloomForCausalLM, dev: Int[Tensor, "window T"], bias: Tensor, recipe: Recipe
) -> tuple[float, Float[Tensor, "layer head"]]:
    none = Planting(tuple(torch.empty(0, dtype=torch.long) for _ in range(recipe.layers)), 0.0)
    found = [forward(model, part, bias, none) for part in dev.split(recipe.batch)]
    loss = torch.stack([loss for loss, _ in found]).mean().item()
    return loss, torch.stack([mass for _, mass in found]).mean(dim=0)


def _groups(model: BloomForCausalLM, recipe: Recipe) -> list[dict[str, object]]:
    parameters = list(model.parameters())
    return [
        {
            "params": [value for value in parameters if value.dim() > 1],
            "weight_decay": recipe.weight_decay,
        },
        {"params": [value for value in parameters if value.dim() == 1], "weight_decay": 0.0},
    ]


def _save(model: BloomForCausalLM, optimizer: torch.optim.Optimizer, step: int, path: Path) -> None:
    tensors = {}
    for name, value in model.named_parameters():
        state = optimizer.state[value]
        tensors[f"weight/{name}"] = value.detach()
        tensors[f"mean/{name}"] = state["exp_avg"]
        tensors[f"square/{name}"] = state["exp_avg_sq"]
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"step": str(step)})


@torch.no_grad()
def _restore(model: BloomForCausalLM, optimizer: torch.optim.Optimizer, path: Path) -> int:
    with safe_open(path, "pt") as kept:
        step = int(kept.metadata()["step"])
        for name, value in model.named_parameters():
            value.copy_(kept.get_tensor(f"weight/{name}"))
            optimizer.state[value] = {
                "step": torch.tensor(float(step)),
                "exp_avg": kept.get_tensor(f"mean/{name}"),
                "exp_avg_sq": kept.get_tensor(f"square/{name}"),
            }
    return step


def _keep_lines_until(log: Path, step: int) -> None:
    if log.exists():
        lines = log.read_text(encoding="utf-8").splitlines()
        write_text(log, "".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= step))
