"""The application: its commands in the order in which they are used."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from headsurgeon.cli.guard import guarded
from headsurgeon.cli.signature import grouped
from headsurgeon.cli.versions import versions
from headsurgeon.printable import PLAIN, printable

EXAMPLES: dict[str, str] = {
    "diagnose": "headsurgeon diagnose zoo:bloom-mini-collapsed --corpus package:sympy "
    "--output runs/sick",
    "inspect": 'headsurgeon inspect zoo:bloom-mini-collapsed L3H6 --text "The cat sat on the mat." '
    "--output head.png",
    "plan": "headsurgeon plan runs/sick/diagnosis.json --rule sick -o plan.yaml",
    "operate": "headsurgeon operate zoo:bloom-mini-collapsed --plan plan.yaml "
    "--corpus package:sympy --output runs/first",
    "evaluate": "headsurgeon evaluate zoo:bloom-mini-collapsed "
    "--patch runs/first/patch.safetensors --corpus package:sympy",
    "layers": "headsurgeon layers zoo:bloom-mini-collapsed --baseline zoo:bloom-mini "
    "--corpus package:sympy --output runs/layers.json",
    "generate": "headsurgeon generate zoo:bloom-mini-collapsed --baseline zoo:bloom-mini "
    "--prompts own/prompts-50 --output runs/said",
    "dynamics": "headsurgeon dynamics runs/first",
    "figures": "headsurgeon figures runs/first --format svg,pdf",
    "merge": "headsurgeon merge zoo:bloom-mini-collapsed "
    "--patch runs/first/patch.safetensors --output repaired",
    "push": "headsurgeon push repaired OWNER/NAME",
    "export-heads": "headsurgeon export-heads runs/sick --format json --output runs/heads",
    "study": "headsurgeon study twins-quick --output study --jobs 2",
    "report": "headsurgeon report study",
    "watch": "headsurgeon watch runs/first",
    "zoo": "headsurgeon zoo",
    "demo": "headsurgeon demo --output demo",
}


@contextmanager
def _literal() -> Iterator[None]:
    """Spells out what cannot be seen in complaints about the command line, which quote it."""
    try:
        yield
    except Exception as error:
        # typer carries a click of its own, so the class has no public name
        complaint: Any = error
        if hasattr(complaint, "format_message"):
            complaint.message = printable(complaint.message)
        raise


class Commands(TyperGroup):
    """Commands in the order of work; what they complain about is spelled out."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _literal():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _literal():
            return super().invoke(ctx)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)


def _version(asked: bool) -> bool:
    if asked:
        typer.echo(versions())
        raise typer.Exit
    return asked


app = typer.Typer(
    name="headsurgeon",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with [bold]headsurgeon demo[/bold], or look at a model of your own: "
    f"[bold]{EXAMPLES['diagnose']}[/bold]",
)


@app.callback()
def headsurgeon(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the versions that a bug report needs, and exit.",
            callback=_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Finds attention heads that collapsed onto the first token, repairs them, and proves whether
    it helped.

    The way through: diagnose a model (inspect single heads), plan which heads to operate on,
    operate (train these alone), evaluate what it brought, merge into a plain checkpoint."""


for _name in EXAMPLES:
    _function = _name.replace("-", "_")
    _command = getattr(import_module(f"headsurgeon.cli.{_function}"), _function)
    app.command(_name, epilog=f"Example: [bold]{EXAMPLES[_name]}[/bold]")(
        guarded(grouped(_command))
    )


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # help, too, may hold signs that the terminal's encoding lacks
            stream.reconfigure(errors=PLAIN)
    app()
