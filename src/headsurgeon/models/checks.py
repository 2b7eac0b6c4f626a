"""Whether what was loaded is a whole model with its own tokenizer."""

from collections.abc import Collection

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from headsurgeon.errors import ModelError


def check_complete(spec: str, missing: Collection[str]) -> None:
    """Refuses a checkpoint that lacks weights: `transformers` fills them with random numbers.

    Args:
        spec: what was loaded, for the message.
        missing: names of the parameters that the checkpoint did not have; tied ones do not count.

    Raises:
        ModelError: there are such parameters; names the first few.
    """
    if not missing:
        return
    names = sorted(missing)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    raise ModelError(
        f"{spec}: the checkpoint has no weights for {', '.join(names[:3])}{more}; "
        "expected all weights of a causal language model"
    )


def check_tokenizer(spec: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a tokenizer with more tokens than the model has embeddings.

    Added tokens do not count: some checkpoints list a few that their text model never sees. Fewer
    tokens than embeddings are common, because embeddings are padded to a round number.

    Raises:
        ModelError: the tokenizer belongs to another model.
    """
    rows = len(model.get_input_embeddings().get_parameter("weight"))
    if tokenizer.vocab_size > rows:
        raise ModelError(
            f"{spec}: the tokenizer has {tokenizer.vocab_size} tokens and the model only {rows} "
            "embeddings, so it belongs to another model; put the right tokenizer beside the model"
        )
