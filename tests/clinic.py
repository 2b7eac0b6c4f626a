"""A place to run commands in: a tiny checkpoint with a tokenizer, and a folder of text."""

import random
import string
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from typer.testing import CliRunner, Result

from headsurgeon.cli.examining import Examined
from headsurgeon.cli.main import app
from headsurgeon.diagnosis import Diagnosis
from tests.pico import pico

END = "</s>"
PLANTED = ("L1H2", "L1H3")
CORPUS = "text:docs/*.txt"
READING = ("--corpus", CORPUS, "--length", "32", "--count", "24")


def run(*arguments: str | Path) -> Result:
    """Runs the command line in this process."""
    return CliRunner(env={"COLUMNS": "100"}).invoke(app, [str(item) for item in arguments])


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per character; every text starts with `</s>`; 97 tokens, as many as pico models."""
    characters = [END, *string.digits, *string.ascii_letters, *string.punctuation, " ", "\n"]
    vocabulary = {character: index for index, character in enumerate(characters)}
    fast = Tokenizer(models.WordLevel(vocabulary, unk_token=END))
    fast.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    fast.post_processor = processors.TemplateProcessing(f"{END} $A", special_tokens=[(END, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=fast, eos_token=END, unk_token=END)


@torch.no_grad()
def sick_bloom(seed: int = 0) -> PreTrainedModel:
    """A pico BLOOM of which two heads look at `</s>` and at nothing else."""
    model = pico("bloom", seed=seed)
    seen: list[torch.Tensor] = []
    fused = model.transformer.h[1].self_attention.query_key_value
    handle = fused.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0, 0]))
    model(torch.tensor([[0]]))
    handle.remove()
    width = model.config.hidden_size // model.config.n_head
    for head in (2, 3):
        start = head * 3 * width
        fused.weight[start : start + 2 * width] = 0.0
        fused.bias[start : start + 2 * width] = 0.0
        # the query asks for what the key of </s> alone has
        fused.bias[start] = 8.0
        fused.weight[start + width] = seen[0] / seen[0].norm()
    return model


def examined(diagnosis: Diagnosis) -> Examined:
    """A diagnosis as `diagnose` holds it, of a model with as many parameters as the paper's."""
    layers, _ = diagnosis.stats.shape
    return Examined(diagnosis, np.zeros(layers), None, 1_700_000_000, "")


def checkpoint(folder: Path, model: PreTrainedModel) -> Path:
    """Saves a model with the tokenizer beside it."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def write_text(folder: Path, documents: int = 60, characters: int = 400) -> None:
    """Writes documents of random words below `folder`, the same at every call: 42 are in train."""
    draw = random.Random(0)
    words = ["".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 7))) for _ in range(50)]
    folder.mkdir(parents=True)
    for index in range(documents):
        text = ""
        while len(text) < characters:
            text += draw.choice(words) + " "
        (folder / f"poem{index:02}.txt").write_text(text, encoding="utf-8")
