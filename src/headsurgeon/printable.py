"""Text that others wrote, made fit to be shown: what cannot be seen is spelled out.

Names of models, files and corpora, tokens and messages may hold escape sequences, line breaks,
overrides of the reading direction and halves of surrogate pairs. None of these may reach a
terminal, a picture or a page.
"""

import codecs

# signs of our own that a terminal may lack, and what stands for them there
_PLAIN = {
    "…": "...",
    "×": "x",
    "−": "-",
    "–": "-",
    "—": "-",
    "→": "->",
    "·": ".",
    "✓": "*",
    "□": "?",
    "“": '"',
    "”": '"',
    "’": "'",
}
# name of the error handler of codecs that spells out what an encoding lacks
PLAIN = "headsurgeon-plain"


def printable(text: str, keep: str = "") -> str:
    """The text with every character that cannot be seen written as an escape such as `\\x1b`.

    These are control and format characters (line breaks, escape sequences, reading directions),
    white space other than the blank, lone surrogates, and what Unicode does not define.

    Args:
        text: anything.
        keep: characters to leave as they are, such as the line breaks of a text of our own.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


def encodable(text: str, encoding: str) -> str:
    """The text with what `encoding` lacks written with characters that it has."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, PLAIN).decode(encoding)
    except LookupError:
        return encodable(text, "ascii")
    return text


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(char) or _escaped(char) for char in lacking), error.end


codecs.register_error(PLAIN, _spell_out)
