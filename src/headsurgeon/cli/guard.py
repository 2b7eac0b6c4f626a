"""What happens when a command fails: one clear line, the right exit code, no traceback."""

import errno
import os
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import typer
from rich.text import Text

from headsurgeon.cli import versions
from headsurgeon.cli.console import err
from headsurgeon.cli.options import Debug
from headsurgeon.cli.signals import Terminated, terminable
from headsurgeon.cli.signature import extend
from headsurgeon.errors import HeadsurgeonError, HeadsurgeonWarning, Interrupted
from headsurgeon.extras import explained
from headsurgeon.printable import printable

INTERRUPTED = 130
# what the system says of a path that nobody can use, whatever was to be done there
_PATHS = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM}
# a longer word is no name any more that a person would read to its end
_LONG_WORD = re.compile(r"(\S{300})\S{100,}")


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option `--debug`, and with its failures told in one line on stderr.

    Exit codes: 2 for bad input, 1 for a failure (as the exception says); where there is nothing to
    resume 130 for Ctrl-C, 143 for SIGTERM and 129 for SIGHUP, which leave as little behind.
    """

    @wraps(command)
    def run(*, debug: bool, **arguments: Any) -> None:
        try:
            with warnings.catch_warnings():
                if not debug:
                    warnings.simplefilter("ignore")
                    # each of them once
                    warnings.simplefilter("default", HeadsurgeonWarning)
                    warnings.showwarning = _noted
                with terminable():
                    command(**arguments)
        except typer.Exit:
            raise
        except Interrupted as error:
            _tell(Text(), str(error))
            raise typer.Exit(error.exit_code) from error
        except HeadsurgeonError as error:
            raise _told(str(error), error.exit_code, error if debug else None) from error
        except Terminated as error:
            raise _told(f"stopped by {error.name}", error.exit_code, None) from error
        except KeyboardInterrupt as error:
            raise _told("interrupted", INTERRUPTED, error if debug else None) from error
        except Exception as error:
            if isinstance(error, OSError) and error.filename and error.errno in _PATHS:
                message = f"{os.fspath(error.filename)}: {error.strerror}; give another path"
                raise _told(message, 2, error if debug else None) from error
            missing = explained(error) if isinstance(error, ModuleNotFoundError) else None
            if missing is not None:
                raise _told(str(missing), missing.exit_code, error if debug else None) from error
            hint = "" if debug else "; run again with --debug for the traceback"
            message = f"unexpected failure: {_named(error)}{_blamed(error)}{hint}"
            raise _told(message, 1, error if debug else None) from error

    extend(run, command, {"debug": (Debug, False)})
    return run


def _blamed(error: BaseException) -> str:
    """Whether the failure may come from a release that took a private name away, and of what."""
    if not isinstance(error, ImportError | AttributeError | TypeError):
        return ""
    return "".join(f"; {sentence}" for sentence in versions.broken())


def _noted(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    _tell(Text("note:", style="bold").append(" ", style="default"), str(message))


def _told(message: str, exit_code: int, error: BaseException | None) -> typer.Exit:
    if error is not None:
        for line in _traceback(error):
            err().print(line, soft_wrap=True)
    _tell(Text("error:", style="bold red").append(" ", style="default"), message)
    return typer.Exit(exit_code)


def _tell(start: Text, message: str) -> None:
    """Prints a message; of its line breaks only those of a list of faults, which is indented."""
    first, *faults = re.split(r"\n(?=  )", _LONG_WORD.sub(r"\1…", message))
    console = err()
    console.print(start.append(printable(first), style="default"), soft_wrap=True)
    for fault in faults:
        console.print(fault, soft_wrap=True)


def _named(error: BaseException) -> str:
    """Type and message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _traceback(error: BaseException) -> Iterator[str]:
    """The lines of a traceback, causes first; messages, which others may have written, on one."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _traceback(before)
        yield ""
        how = "was the direct cause of" if error.__cause__ else "was being handled before"
        yield f"The above exception {how} the following exception:"
        yield ""
    yield "Traceback (most recent call last):"
    for entry in traceback.format_tb(error.__traceback__):
        yield from entry.rstrip("\n").split("\n")
    yield printable(f"{type(error).__name__}: {error}")
