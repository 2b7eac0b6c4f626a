"""A training run in a process of its own: the highest resident size it reached, and the estimate.

python -m tests.memory_of_a_run NAME FOLDER
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from headsurgeon.heads import HeadId
from headsurgeon.operation import operate
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.training import train, train_settings
from headsurgeon.training.memory import memory_plan
from tests.stand_ins import windows_of

VOCABULARY = 16_000
HIDDEN = 512
HEADS = 8


def bloom(layers: int = 3) -> PreTrainedModel:
    return BloomForCausalLM(
        BloomConfig(vocab_size=VOCABULARY, hidden_size=HIDDEN, n_layer=layers, n_head=HEADS)
    )


def llama() -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        intermediate_size=1408,
    )
    return LlamaForCausalLM._from_config(config, attn_implementation="sdpa")


# name: the model, and settings that differ from those below
RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bloom-fast": (bloom, {}),
    "bloom-stock": (bloom, {"attention": "stock"}),
    # statistics of many windows at once, through whole attention maps: the evaluation is the peak
    "bloom-stock-evaluation": (
        bloom,
        {"attention": "stock", "dev_windows": 8, "statistics_windows": 8, "batch_size": 1},
    ),
    "bloom-checkpointed": (lambda: bloom(8), {"gradient_checkpointing": True}),
    "bloom-accumulated": (bloom, {"accumulation": 2}),
    "bloom-bf16": (bloom, {"compute": "bf16"}),
    "llama-sdpa": (llama, {}),
}


def main(name: str, folder: str) -> None:
    torch.set_num_threads(1)
    build, changes = RUNS[name]
    model = build().eval()
    settings = train_settings(
        **{
            "length": 512,
            "batch_size": 2,
            "dev_windows": 2,
            "statistics_windows": 2,
            "max_tokens": 1,
            **changes,
        }
    )
    # AdamW's moments exist from the end of the first step on
    settings = settings.model_copy(update={"max_tokens": 2 * settings.tokens_per_step})
    layers = model.config.num_hidden_layers
    heads = [HeadId(layer, head) for layer in range(1, layers) for head in range(3)]
    if name.startswith("llama"):
        # all four heads that read the first keys and values
        heads += [HeadId(layer, 3) for layer in range(1, layers)]
    plan = Plan(model="any", rule="heads", heads=tuple(PlannedHead(id=head) for head in heads))
    text = windows_of(torch.randint(5, VOCABULARY, (8, settings.length)), corpus="train")
    dev = windows_of(torch.randint(5, VOCABULARY, (settings.dev_windows, settings.length)))
    # libraries load code and set workspaces up at their first use, which is not the run's doing
    rehearsal = settings.model_copy(update={"length": 16, "max_tokens": 64})
    few = windows_of(text.tokens[:4, :16], corpus="train"), windows_of(dev.tokens[:, :16])
    train(operate(build(), plan), *few, output=Path(folder) / "rehearsal", settings=rehearsal)
    # an operated model and its parts refer to each other
    gc.collect()
    # what was taken before is free again, so the highest size so far is not what is there
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    loaded = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    patient = operate(model, plan)
    train(patient, text, dev, output=Path(folder) / "run", settings=settings)
    # getrusage's highest would be that of the process which started this one, if that is larger
    status = Path("/proc/self/status").read_text(encoding="ascii")
    highest = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    estimate = memory_plan(patient, settings)
    figures = {"measured": highest - loaded, **vars(estimate), "peak": estimate.peak}
    sys.stdout.write(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
