"""The twins' tokenizer and training windows, from the train split alone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from recipe import CORPORA, Recipe
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from headsurgeon.data import documents, split_of, windows
from headsurgeon.files import replacing, sha256_text

# A generated table of a megabyte would otherwise decide which pairs of bytes are frequent.
_CHARACTERS_PER_DOCUMENT = 100_000


def train_tokenizer(recipe: Recipe, folder: Path) -> PreTrainedTokenizerFast:
    """Trains the byte-level BPE on the train split and writes it to `folder`."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_train_texts(), trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single="</s> $A",
        pair="</s> $A </s> $B",
        special_tokens=[("</s>", bpe.token_to_id("</s>"))],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def _train_texts() -> Iterator[str]:
    for document in documents(",".join(CORPORA)):
        if split_of(document.id) == "train":
            yield document.text[:_CHARACTERS_PER_DOCUMENT]


def training_windows(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, path: Path
) -> tuple[Int[Tensor, "window length"], str]:
    """All training windows and a hash of them; kept in `path` between runs."""
    if not path.exists():
        corpora = [
            windows(corpus, tokenizer, split="train", length=recipe.length, seed=0)
            for corpus in CORPORA
        ]
        tokens = torch.cat(
            [found.tokens[_capped(found.documents, recipe)] for found in corpora]
        ).to(torch.int16)
        hashes = sha256_text([found.corpus_hash for found in corpora])
        with replacing(path) as temporary:
            save_file({"tokens": tokens}, temporary, metadata={"hash": hashes})
    with safe_open(path, "pt") as kept:
        return kept.get_tensor("tokens").long(), kept.metadata()["hash"]


def _capped(names: tuple[str, ...], recipe: Recipe) -> list[int]:
    seen: dict[str, int] = {}
    chosen = []
    for index, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= recipe.windows_per_document:
            chosen.append(index)
    return chosen


def batch_indices(recipe: Recipe, count: int, step: int) -> Int[np.ndarray, " batch"]:
    """Which windows a step sees: a function of the recipe alone, so a resumed run sees the same."""
    first = step * recipe.batch
    epochs = range(first // count, (first + recipe.batch - 1) // count + 1)
    order = np.concatenate(
        [np.random.default_rng([recipe.data_seed, epoch]).permutation(count) for epoch in epochs]
    )
    start = first - epochs[0] * count
    return order[start : start + recipe.batch]
