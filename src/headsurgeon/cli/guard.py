"""What happens when a command fails: one clear line, the right exit code, no traceback."""

import traceback
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from headsurgeon.cli.options import Debug
from headsurgeon.cli.signature import extend
from headsurgeon.errors import HeadsurgeonError, Interrupted

INTERRUPTED = 130


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option `--debug`, and with its failures told in one line on stderr.

    Exit codes: 2 for bad input, 1 for a failure (as the exception says), 130 for Ctrl-C where
    there is nothing to resume.
    """

    @wraps(command)
    def run(*, debug: bool, **arguments: Any) -> None:
        try:
            with warnings.catch_warnings():
                if not debug:
                    warnings.simplefilter("ignore")
                command(**arguments)
        except typer.Exit:
            raise
        except Interrupted as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(error.exit_code) from error
        except HeadsurgeonError as error:
            raise _told(str(error), error.exit_code, debug) from error
        except KeyboardInterrupt as error:
            raise _told("interrupted", INTERRUPTED, debug) from error
        except Exception as error:
            message = " ".join(f"{type(error).__name__}: {error}".split())
            hint = "" if debug else "; run again with --debug for the traceback"
            raise _told(f"unexpected failure: {message}{hint}", 1, debug) from error

    extend(run, command, {"debug": (Debug, False)})
    return run


def _told(message: str, exit_code: int, debug: bool) -> typer.Exit:
    if debug:
        typer.echo(traceback.format_exc(), err=True, nl=False)
    typer.echo(f"{typer.style('error:', fg='red', bold=True)} {message}", err=True)
    return typer.Exit(exit_code)
