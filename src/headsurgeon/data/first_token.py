"""The tokens put before every window."""

from transformers import PreTrainedTokenizerBase

from headsurgeon.data.window import NO_TOKEN
from headsurgeon.errors import CorpusError


def first_tokens(tokenizer: PreTrainedTokenizerBase, first_token: str) -> tuple[list[int], str]:
    """The ids put before each window, and their name.

    Args:
        first_token: `tokenizer` for what the tokenizer itself puts first, `none`, a token of the
            vocabulary, or a name that was returned here.

    Raises:
        CorpusError: no such token.
    """
    if first_token == NO_TOKEN:
        return [], NO_TOKEN
    if first_token in tokenizer.get_vocab() and first_token != "tokenizer":
        return [tokenizer.get_vocab()[first_token]], first_token
    own, name = _own_prefix(tokenizer)
    # several tokens are recorded under their joined name, which is no token of the vocabulary
    if first_token not in ("tokenizer", name):
        raise CorpusError(
            f"first token {first_token!r} is not in the tokenizer's vocabulary; expected "
            "`tokenizer`, `none` or one of its tokens"
        )
    return own, name


def _own_prefix(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], str]:
    """What the tokenizer itself puts first, and its name."""
    plain = tokenizer.encode("a", add_special_tokens=False)
    with_special = tokenizer.encode("a", add_special_tokens=True)
    for start in range(len(with_special) - len(plain) + 1):
        if with_special[start : start + len(plain)] == plain:
            ids = with_special[:start]
            return ids, "".join(tokenizer.convert_ids_to_tokens(ids)) or NO_TOKEN
    return [], NO_TOKEN
