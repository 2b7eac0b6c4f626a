"""A pico pair for the demo: a random BLOOM, and the same with heads set onto the first token."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from headsurgeon.arch import layout_of
from headsurgeon.heads import HeadId
from tests.pico import VOCABULARY, pico

FIRST = "</s>"
PLANTED = (HeadId(0, 2), HeadId(0, 3), HeadId(1, 2), HeadId(1, 3))


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per character, `</s>` first, as the twins' tokenizer does."""
    letters = [chr(code) for code in range(32, 32 + VOCABULARY - 2)]
    vocabulary = {token: index for index, token in enumerate([FIRST, "<unk>", *letters])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.post_processor = processors.TemplateProcessing(
        single=f"{FIRST} $A", special_tokens=[(FIRST, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=FIRST, unk_token="<unk>")


def collapse(model: PreTrainedModel, heads: Sequence[HeadId], strength: float = 60.0) -> None:
    """Sets heads onto position 0, in place.

    What an attention layer reads at position 0 is the same in every window, as each starts with
    the same token; keys are made to look for exactly that and queries to ask for it always.
    """
    layout = layout_of(model)
    for layer in sorted({head.layer for head in heads}):
        seen = _read_by(model, layout.query.path(layer))
        first, others = seen[0], seen[1:].mean(dim=0)
        direction = (first - others) / (first - others).norm()
        for head in heads:
            if head.layer == layer:
                _aim(model, head, direction, strength)


def _read_by(model: PreTrainedModel, path: str) -> torch.Tensor:
    """What a module reads of one window that starts as every window does."""
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(path).register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0][0])
    )
    with torch.no_grad():
        model(torch.arange(64).unsqueeze(0))
    handle.remove()
    return seen[0]


def _aim(model: PreTrainedModel, head: HeadId, direction: torch.Tensor, strength: float) -> None:
    layout = layout_of(model)
    with torch.no_grad():
        for part, weight_row, bias in (("query", None, strength), ("key", direction, 0.0)):
            for block in layout.blocks(part, head.layer, head.head):
                values = model.get_parameter(block.parameter).narrow(
                    block.axis, block.start, block.length
                )
                values.zero_()
                if values.ndim == 1:
                    values[0] = bias
                elif weight_row is not None:
                    values[0] = weight_row


def save_pair(folder: Path) -> tuple[Path, Path]:
    """Writes the healthy and the collapsed model with their tokenizer; returns their folders."""
    folders = folder / "healthy", folder / "collapsed"
    for target in folders:
        model = pico("bloom", layers=2)
        if target.name == "collapsed":
            collapse(model, PLANTED)
        model.save_pretrained(target)
        tokenizer().save_pretrained(target)
    return folders


def save_texts(folder: Path, documents: int = 60, seed: int = 0) -> str:
    """Writes short texts of repeated words to a new folder; returns the corpus SPEC."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    words = ["head", "attends", "to", "the", "first", "token", "and", "sleeps", "wakes", "again"]
    for index in range(documents):
        drawn = torch.randint(0, len(words), (60,), generator=generator).tolist()
        (folder / f"{index}.txt").write_text(" ".join(words[word] for word in drawn))
    return f"text:{folder}/*.txt"
