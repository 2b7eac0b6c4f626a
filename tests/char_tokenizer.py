"""A tokenizer of 97 characters, as many as the pico models have embeddings."""

import string

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.pico import VOCABULARY

END = "</s>"


def char_tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable ASCII character; everything else is unknown."""
    printable = string.digits + string.ascii_letters + string.punctuation + " "
    characters = [END, "<unk>", *printable]
    assert len(characters) == VOCABULARY
    vocabulary = {character: index for index, character in enumerate(characters)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, unk_token="<unk>")
