"""The one place that writes to the terminal; nothing that others wrote is read as formatting."""

import os
import shlex
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Span, Text

from headsurgeon.errors import WriteError
from headsurgeon.printable import encodable, printable


class Screen(Console):
    """A rich console that takes text literally: no markup, no emoji names, no control characters.

    What is printed as `str` or `Text` is one line; only line breaks at its start are kept. Whatever
    else is rendered, tables, bars and spinners, can hold no control character but a line break.
    Characters that the stream's encoding lacks are written with those that it has.

    Where the reader of a pipe has gone, what is still printed goes nowhere and work continues.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """As `Console.print`.

        Raises:
            WriteError: the stream takes nothing more, as on a full disk.
        """
        try:
            super().print(*(literal(each) for each in objects), **options)
        except OSError as error:
            self.on_broken_pipe()
            name = "standard error" if self.stderr else "standard output"
            raise WriteError(f"cannot write to {name}: {error.strerror or error}") from error

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As `Console.render`, every segment legible."""
        encoding = self.encoding
        for segment in super().render(renderable, options):
            text = encodable(printable(segment.text, keep="\n"), encoding)
            shown_as_is = bool(segment.control) or text == segment.text
            yield segment if shown_as_is else Segment(text, segment.style)

    def on_broken_pipe(self) -> None:
        """Sends the rest of this stream nowhere."""
        self.quiet = True
        try:
            descriptor = self.file.fileno()
        except (AttributeError, OSError, ValueError):
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def literal(shown: Any) -> Any:
    """A `str` or a `Text` as one line of `Text` that shows every character; others as they are."""
    if isinstance(shown, str):
        line = shown.lstrip("\n")
        return Text("\n" * (len(shown) - len(line)) + printable(line))
    if isinstance(shown, Text) and not shown.plain.isprintable():
        pieces = [printable(char) for char in shown.plain]
        places = [0, *accumulate(map(len, pieces))]
        result = shown.blank_copy("".join(pieces))
        result.spans = [
            Span(places[span.start], places[min(span.end, len(pieces))], span.style)
            for span in shown.spans
        ]
        return result
    return shown


def command_line(*words: object, encoding: str = "utf-8") -> str:
    """A command as it is to be typed, quoted where the shell needs it.

    Words with characters that cannot be seen, or that `encoding` lacks, are quoted as `$'…'`, which
    bash, zsh and ksh read.
    """
    return " ".join(_word(str(word), encoding) for word in words)


def next_step(command: str, subject: object, *options: object, encoding: str = "utf-8") -> str:
    """A command to be typed next; a subject that looks like an option stands behind `--`."""
    first = str(subject)
    words = (*options, "--", first) if first.startswith("-") else (first, *options)
    return command_line("headsurgeon", command, *words, encoding=encoding)


def python_text(value: object, encoding: str = "utf-8") -> str:
    """A text as a Python literal that `encoding` can write."""
    return repr(str(value)) if encodable(str(value), encoding) == str(value) else ascii(str(value))


def _word(word: str, encoding: str) -> str:
    if word.isprintable() and encodable(word, encoding) == word:
        return shlex.quote(word)
    # the bytes that the file system knows it by
    raw = word.encode("utf-8", "surrogateescape" if _escaped_bytes(word) else "surrogatepass")
    return "$'" + "".join(_byte(byte) for byte in raw) + "'"


def _escaped_bytes(word: str) -> bool:
    """Whether all lone surrogates stand for bytes that are not UTF-8."""
    return all(0xDC80 <= ord(char) <= 0xDCFF for char in word if "\ud800" <= char <= "\udfff")


def _byte(byte: int) -> str:
    char = chr(byte)
    if char in "\\'":
        return f"\\{char}"
    return char if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"
