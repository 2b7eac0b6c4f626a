"""`headsurgeon study`: runs a study, or resumes it, and says what it came to."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from headsurgeon.cli.command_presets import command_presets, commands_of
from headsurgeon.cli.console import command_line, err, out
from headsurgeon.cli.guard import guarded
from headsurgeon.cli.loading import quieten
from headsurgeon.cli.outputs import check_folder
from headsurgeon.cli.signature import grouped
from headsurgeon.cli.study_terminal import run_and_show
from headsurgeon.cli.tensorboard import Wanted, check_tensorboard
from headsurgeon.errors import OperationError, SettingsError
from headsurgeon.printable import printable


def study(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="A study.yaml, or a preset: see --list.")
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder; one that holds the same study is resumed.",
        ),
    ] = None,
    engine: Annotated[
        Literal["local", "slurm", "ray"],
        typer.Option(help="Where cells run: here, under Slurm (submitit), or on Ray."),
    ] = "local",
    jobs: Annotated[int, typer.Option(min=1, help="Cells at once.")] = 1,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where the models run.")
    ] = "cpu",
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Something the engine is told, such as partition=gpu."
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="The same arms on 1/8 of the training tokens and 1/4 of the scored windows, one "
            "seed, rates not searched: to see that all run.",
        ),
    ] = False,
    variant: Annotated[
        str | None,
        typer.Option(
            metavar="as_text|as_code|corrected",
            help="Of a preset that has variants: the paper as its text says, as its code does, or "
            "corrected.",
            show_default="corrected",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Another model than the study names.")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SPEC", help="The corpus of a text, in place of the study's."),
    ] = None,
    tensorboard: Wanted = False,
    presets: Annotated[bool, typer.Option("--list", help="Name the presets and end.")] = False,
) -> None:
    """Runs arms × texts × seeds: the paper's method, controls and rivals, with intervals.

    Cells that are done are not run again. Afterwards DIR holds report.html and study.json.
    """
    from headsurgeon.report.folder_page import PAGE
    from headsurgeon.study import PRESETS, Study
    from headsurgeon.study.conclusion import RESULT
    from headsurgeon.study.quick import quick as shortened
    from headsurgeon.study.results import CELLS, STUDY

    if presets:
        for name in sorted({*PRESETS, *command_presets()}):
            _show_preset(name)
        return
    if not study or output is None:
        raise SettingsError("expected a STUDY and --output DIR; --list names the presets")
    check_tensorboard(tensorboard)
    if study in command_presets():
        _run_commands(study, variant, output, model)
        return
    loaded = Study.load(study, variant, model=model, texts=_pairs(text or [], "--text", "SPEC"))
    loaded = shortened(loaded) if quick else loaded
    if loaded.needs and model is None:
        err().print(Text(printable(f"{loaded.name} needs: {loaded.needs}"), style="dim"))
    check_folder(output, STUDY)
    quieten()
    result, _ = run_and_show(
        loaded,
        output,
        engine=engine,
        jobs=jobs,
        device=device,
        options=_options(option or []),
        tensorboard=tensorboard,
    )
    console = out()
    console.print()
    console.print(
        Text(f"written to {output}: {PAGE}, {RESULT}, {CELLS}/", style="bold"),
        soft_wrap=True,
    )
    console.print(Text(f"page: {output / PAGE}"), soft_wrap=True)
    if result.results.failed:
        names = ", ".join(str(cell.cell) for cell in result.results.failed)
        raise OperationError(
            f"{len(result.results.failed)} cells failed ({names}); their cell.json says why, and "
            "the same command tries them again"
        )


def _show_preset(name: str) -> None:
    from headsurgeon.study.variants import preset_text, variants_of
    from headsurgeon.yaml_lines import plain_yaml

    if name in command_presets():
        content, variants = command_presets()[name], tuple(command_presets()[name]["variants"])
    else:
        content, variants = plain_yaml(preset_text(name)), variants_of(name)
    line = Text(f"{name:<26}").append(printable(content["about"]), style="dim")
    if needs := content.get("needs"):
        line.append(printable(f" Needs: {needs.strip()}"), style="dim")
    if variants:
        line.append(f" Variants: {', '.join(variants)}.", style="dim")
    out().print(line)


def _run_commands(name: str, variant: str | None, output: Path, model: str | None) -> None:
    """Types the commands of a preset, says which they are, and stops at one that fails."""
    from typer.main import get_command

    from headsurgeon.cli.diagnose import diagnose
    from headsurgeon.cli.generate import generate

    typed = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    for command in (diagnose, generate):
        typed.command(command.__name__)(guarded(grouped(command)))
    if model is None:
        needs = command_presets()[name]["needs"]
        err().print(Text(printable(f"{name} needs: {needs}"), style="dim"))
    for words in commands_of(name, variant, output, model):
        out().print(command_line("headsurgeon", *words), soft_wrap=True)
        code = get_command(typed).main(words, "headsurgeon", standalone_mode=False)
        if code:
            raise typer.Exit(code)


def _options(given: list[str]) -> dict[str, str | int]:
    return {
        name: int(value) if value.isdecimal() else value
        for name, value in _pairs(given, "--option", "VALUE").items()
    }


def _pairs(given: list[str], option: str, what: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for each in given:
        name, sign, value = each.partition("=")
        if not sign or not name or not value:
            raise SettingsError(f"{option}: expected NAME={what}, got {each!r}")
        pairs[name] = value
    return pairs
