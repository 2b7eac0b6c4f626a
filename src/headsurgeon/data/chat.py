"""Conversations as text: a column of messages, rendered as the tokenizer's own template says."""

from collections.abc import Callable, Mapping

from transformers import PreTrainedTokenizerBase

from headsurgeon.data.window import NO_TOKEN
from headsurgeon.errors import CorpusError

Render = Callable[[list[dict[str, str]]], str]


def renderer(tokenizer: PreTrainedTokenizerBase, first_token: str) -> Render:
    """A function from the messages of a conversation to its text.

    A template that begins with the token which every window is given anyway loses it.

    Args:
        first_token: name of what is put before every window.
    """

    def render(messages: list[dict[str, str]]) -> str:
        if not getattr(tokenizer, "chat_template", None):
            raise CorpusError(
                "the tokenizer has no chat template, so nothing says how its model reads a "
                "conversation; use the tokenizer of a chat model, or a column that is text"
            )
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
        return text if first_token == NO_TOKEN else text.removeprefix(first_token)

    return render


def is_conversation(value: object) -> bool:
    """Whether it is a list of messages with a role and a content, as templates expect."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(message, Mapping) and {"role", "content"} <= set(message)
            for message in value
        )
    )


def said(messages: list[dict[str, str]]) -> str:
    """Who says what, in the same words under every template: it decides the split."""
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)
