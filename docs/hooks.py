"""Pages of the site that are made while it is built, so that they cannot go stale.

Commands come from the application itself, the Python reference from the lists of public names
(`__init__.pyi`) and their docstrings, tables of names from the tables that the code uses.
"""

import ast
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "headsurgeon"
COMMANDS, PYTHON, NAMES = "reference/commands/", "reference/python/", "reference/names.md"


def on_config(config: Any) -> Any:
    """Puts the generated pages into the navigation."""
    listed = {
        COMMANDS: [f"{COMMANDS}index.md"] + [{name: f"{COMMANDS}{name}.md"} for name in commands()],
        PYTHON: [{name: f"{PYTHON}{name}.md"} for name in public_names()],
    }
    for section in config.nav:
        for entry in next(iter(section.values())):
            if isinstance(entry, dict):
                [(title, target)] = entry.items()
                entry[title] = listed.get(target, target)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages to those of the folder."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Every generated page by its path in the site."""
    made = {f"{COMMANDS}index.md": overview(), NAMES: names_page()}
    made |= {
        f"{COMMANDS}{name}.md": command_page(name, found) for name, found in commands().items()
    }
    made |= {f"{PYTHON}{name}.md": python_page(name) for name in public_names()}
    made["contributing.md"] = (ROOT / "CONTRIBUTING.md").read_text("utf-8").replace("(docs/", "(")
    made["changes.md"] = (ROOT / "CHANGELOG.md").read_text("utf-8").replace("(docs/", "(")
    return made


# Commands


def commands() -> dict[str, Any]:
    """The commands in the order in which they are used."""
    from typer.main import get_command

    from headsurgeon.cli.main import app

    return dict(get_command(app).commands)  # type: ignore[attr-defined]


def overview() -> str:
    """All commands, a line for each."""
    rows = "\n".join(
        f"| [`{name}`]({name}.md) | {prose(found.help).partition(chr(10))[0]} |"
        for name, found in commands().items()
    )
    return (
        "# Commands\n\nIn the order in which they are used. `headsurgeon COMMAND --help` says the "
        f"same.\n\n| command | what it does |\n| --- | --- |\n{rows}\n"
    )


def command_page(name: str, command: Any) -> str:
    """A command: what it does, its example, and its options by group."""
    words = [word for word in map(argument, command.params) if word]
    parts = [
        f"# headsurgeon {name}",
        prose(command.help),
        f"```sh\nheadsurgeon {name} {' '.join([*words, '[OPTIONS]'])}\n```",
    ]
    if command.epilog:
        example = plain(command.epilog).removeprefix("Example: ")
        parts.append(f"For example\n\n```sh\n{example}\n```")
    groups: dict[str, list[str]] = {}
    for parameter in command.params:
        if not parameter.hidden:
            title = "Arguments" if not option(parameter) else parameter.rich_help_panel or "Options"
            groups.setdefault(title, []).append(row(parameter))
    for title, rows in groups.items():
        table = "\n".join(["| | value | |", "| --- | --- | --- |", *rows])
        parts.append(f"## {title}\n\n{table}")
    return "\n\n".join(parts) + "\n"


def plain(text: str | None) -> str:
    """Help without the marks that are for terminals."""
    text = re.sub(r"\[/?(?:bold|dim|italic)\]", "", inspect.cleandoc(text or ""))
    return text.replace("\\[", "[").replace("\b\n", "")


def prose(text: str | None) -> str:
    """Help as Markdown in which every sign stands for itself."""
    return re.sub(r"([\[\]*|])", r"\\\1", plain(text)).replace("<", "&lt;")


def option(parameter: Any) -> bool:
    """Whether it is an option, and no argument."""
    return bool(parameter.opts[0].startswith("-"))


def argument(parameter: Any) -> str:
    """An argument as it stands in a usage line; nothing for an option."""
    if option(parameter):
        return ""
    name = (parameter.metavar or parameter.name.upper()).removesuffix("...")
    name += "…" if parameter.nargs != 1 else ""
    return name if parameter.required else f"[{name}]"


def row(parameter: Any) -> str:
    """One option: how it is spelled, what it takes, what it is for."""
    spelled = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if not option(parameter):
        spelled = f"`{argument(parameter)}`"
    text = prose(parameter.help).replace("\n", " ")
    default = parameter.default
    if isinstance(parameter.show_default, str):
        text += f" By default {parameter.show_default}."
    elif parameter.show_default and not callable(default) and default not in ("", (), None):
        written = "on" if default is True else f"`{default}`"
        text += "" if default is False else f" By default {written}."
    return f"| {spelled} | {value(parameter)} | {text} |"


def value(parameter: Any) -> str:
    """What an option takes."""
    if getattr(parameter, "is_flag", False):
        return ""
    kind = parameter.type_descriptor.annotation
    choices = re.findall(r"'([^']*)'", str(kind)) if "Literal" in str(kind) else []
    words = parameter.metavar or {int: "whole number", float: "number"}.get(kind, "text")
    taken = words.split("|") if parameter.metavar or not choices else choices
    spelled = " or ".join(f"`{word.removesuffix('...')}`" for word in taken)
    return f"{spelled}, repeatable" if getattr(parameter, "multiple", False) else spelled


# Python


def public_names() -> dict[str, dict[str, str]]:
    """For the package and each of its parts: every public name and where it is defined."""
    found = {}
    for stub in sorted(PACKAGE.rglob("__init__.pyi"), key=lambda path: (len(path.parts), path)):
        within = stub.parent.relative_to(PACKAGE.parent).parts
        found[".".join(within)] = {
            name.asname or name.name: f"{'.'.join(within)}.{node.module}.{name.name}"
            for node in ast.parse(stub.read_text("utf-8")).body
            if isinstance(node, ast.ImportFrom)
            for name in node.names
        }
    return found


def python_page(module: str) -> str:
    """The public names of one part; those that `headsurgeon` has itself are described there."""
    listed = public_names()
    names = listed[module]
    at_the_top = set() if module == "headsurgeon" else set(listed["headsurgeon"].values())
    about = (
        ast.get_docstring(
            ast.parse((ROOT / "src" / Path(*module.split(".")) / "__init__.py").read_text("utf-8"))
        )
        or ""
    )
    parts = [f"# {module}", about]
    if module == "headsurgeon":
        parts.append("`import headsurgeon as hs` has all of these.")
    known = [name for name, path in names.items() if path in at_the_top]
    if known:
        links = ", ".join(f"[`{n}`](headsurgeon.md#{names[n]})" for n in known)
        parts.append(f"Also in `headsurgeon` itself, and described there: {links}.")
    parts += [f"::: {path}" for name, path in names.items() if name not in known]
    return "\n\n".join(parts) + "\n"


# Names


def names_page() -> str:
    """Tables of what can be named in files and on the command line."""
    from headsurgeon.arch import FAMILIES
    from headsurgeon.heads import STATISTICS
    from headsurgeon.starts import INITS, OUTPUT_STARTS
    from headsurgeon.study import PRESETS, READY
    from headsurgeon.training import PRESETS as TRAINING
    from headsurgeon.training import TrainSettings

    parts = [
        "# Arms, starts, statistics, settings, architectures",
        "Everything that a file or an option can name, from the tables that the code itself uses.",
        "## Ready arms",
        "`arms:` of a [study](../studies.md); how to [add one](../add_an_arm.md).",
        table(("arm", "what"), ((f"`{name}`", arm["about"]) for name, arm in READY.items())),
        "## Starts of queries, keys and values",
        "`--init`, or `init:` of an arm or a plan; how to [add one](../add_a_start.md).",
        table(("start", "parameters", "what"), map(start, INITS.items())),
        "## Starts of the output",
        "`--output-start`, or `output_start:`.",
        table(("start", "parameters", "what"), map(start, OUTPUT_STARTS.items())),
        "## Statistics of heads",
        "Of every window and head, in `diagnosis.json` and `HeadStats`; how to "
        "[add one](../add_a_statistic.md).",
        table(("statistic", "what"), ((f"`{name}`", text) for name, text in STATISTICS.items())),
        "## Settings of training",
        "`train:` of a study, fields of `TrainSettings`, and options of "
        "[`operate`](commands/operate.md).",
        table(
            ("setting", "default", "what"),
            (
                (f"`{name}`", f"`{field.default!r}`", str(field.description or ""))
                for name, field in TrainSettings.model_fields.items()
            ),
        ),
        "### Presets of training",
        "`--preset`, or `headsurgeon.training.train_settings(NAME, …)`; what they change of these "
        "defaults. `recommended_whole` goes with `--whole-model`, or `open_full`.",
        table(
            ("preset", "settings"),
            (
                (f"`{name}`", ", ".join(f"`{key}: {v}`" for key, v in held.items()) or "nothing")
                for name, held in TRAINING.items()
            ),
        ),
        "## Presets of studies",
        "`headsurgeon study NAME`; how to [add one](../add_a_preset.md).",
        table(
            ("preset", "what"),
            ((f"`{name}`", preset(path)) for name, path in sorted(PRESETS.items())),
        ),
    ]
    parts += [
        "## Architectures",
        "By the `model_type` of a model's configuration; how to "
        "[add one](../add_an_architecture.md).",
        ", ".join(f"`{name}`" for name in sorted(FAMILIES)) + ".",
    ]
    return "\n\n".join(parts) + "\n"


def start(entry: tuple[str, Any]) -> tuple[str, str, str]:
    """A row about a start of heads."""
    name, held = entry
    about = inspect.getdoc(held.function) or ""
    return (
        f"`{name}`",
        ", ".join(f"`{each}`" for each in held.parameters),
        about.partition("\n\n")[0],
    )


def preset(path: Path) -> str:
    """What a preset of studies says about itself."""
    return str(yaml.safe_load(path.read_text("utf-8")).get("about", ""))


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    cells = (
        " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in line) for line in lines
    )
    return "\n".join(f"| {line} |" for line in cells)
