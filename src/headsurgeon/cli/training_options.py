"""An option for every setting of a training run, made of the settings themselves."""

from collections.abc import Mapping
from dataclasses import make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from headsurgeon.cli import options
from headsurgeon.cli.console import show_next
from headsurgeon.errors import SettingsError
from headsurgeon.training import PRESETS, TrainSettings, train_settings

if TYPE_CHECKING:
    from headsurgeon.head_stats import Provenance

TRAINING = "Training (by default as --preset says)"
DEFAULT_TOKENS = 200_000

# how the plan of a preset begins, where the preset is more than settings
STARTS = {
    "recommended": ("canonical", "zero_output"),
    "recommended_whole": ("canonical", "zero_output"),
}
OF_WHOLE_MODELS = frozenset({"recommended_whole"})


def _option(name: str, kind: Any, description: str | None, default: Any) -> Any:
    text = (description or name).replace("[", r"\[")
    shown = "" if default is None else f" Default {_in_words(default)}."
    flags = f"--{name.replace('_', '-')}"
    both = f"{flags}/--no-{name.replace('_', '-')}" if kind is bool else flags
    info = typer.Option(
        both,
        help=f"{text[0].upper()}{text[1:]}.{shown}",
        rich_help_panel=TRAINING,
        show_default=False,
    )
    return Annotated[kind | None, info]


def _in_words(default: Any) -> Any:
    if isinstance(default, bool):
        return "on" if default else "off"
    return "none" if default == () else default


def _plain(annotation: Any) -> Any:
    """The type of a field as the command line reads it: `int | None` is an int, names are text."""
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    if get_origin(annotation) in (Literal, tuple) or len(kinds) > 1:
        return str
    return kinds[0] if kinds else annotation


# an option for every field; None leaves what the preset says
Training: type[Any] = make_dataclass(
    "Training",
    [
        (name, _option(name, _plain(field.annotation), field.description, field.default), None)
        for name, field in TrainSettings.model_fields.items()
    ],
    frozen=True,
)


def settings_of(preset: str, changes: Mapping[str, Any]) -> TrainSettings:
    """The settings of a preset with what the command line says of them; raises as they do."""
    given = {name: value for name, value in changes.items() if value is not None}
    if not {"max_tokens", "epochs"} & (set(given) | set(PRESETS.get(preset, ()))):
        given["max_tokens"] = DEFAULT_TOKENS
    return train_settings(preset, **given)


def check_recipe(
    preset: str,
    settings: TrainSettings,
    start: tuple[str, str] | None,
    anchor_corpus: str | None,
    whole_model: bool = False,
) -> None:
    """Raises `SettingsError` where the plan or the texts are not what the settings ask for.

    Args:
        preset: its name.
        settings: what it became.
        start: `init` and `output_start` of the plan, if there is one.
        anchor_corpus: the text of the anchor.
        whole_model: whether everything is trained from the start of the heads.
    """
    if not whole_model and (preset in OF_WHOLE_MODELS or settings.heads_rate != 1.0):
        what = f"--preset {preset}" if preset in OF_WHOLE_MODELS else "--heads-rate"
        raise SettingsError(f"{what} is for training the whole model: give --whole-model as well")
    if whole_model and preset == "recommended":
        raise SettingsError(
            "--preset recommended is for heads alone; with --whole-model it is --preset "
            "recommended_whole"
        )
    if whole_model and (settings.anchor > 0 or anchor_corpus is not None):
        raise SettingsError(
            "--anchor compares two models that share their language-model head, and --whole-model "
            "trains it: leave out one of them"
        )
    if whole_model and settings.optimizer == "muon":
        raise SettingsError(
            "--optimizer muon moves the matrices of single heads; with --whole-model choose adamw"
        )
    own = STARTS.get(preset)
    if own is not None and start is not None and start != own:
        raise SettingsError(
            f"--preset {preset} belongs to the start {' with '.join(own)}, and the plan has "
            f"{' with '.join(start)}: write one with `headsurgeon plan … --init {own[0]}`, or "
            "leave out --preset and give the settings one by one"
        )
    if settings.anchor > 0 and anchor_corpus is None:
        by = f" (of --preset {preset})" if "anchor" in PRESETS[preset] else ""
        raise SettingsError(
            f"--anchor {settings.anchor:g}{by} holds the model to what it was on other text: "
            "give --anchor-corpus SPEC, text of the kinds it should keep, or --anchor 0"
        )
    if settings.anchor == 0 and anchor_corpus is not None:
        raise SettingsError(
            "--anchor-corpus is read for --anchor alone, which is 0: give --anchor above 0, or "
            "leave out --anchor-corpus"
        )


def reading_as(
    read: "TrainSettings | Provenance", first_token: str = options.Reading().first_token
) -> tuple[object, ...]:
    """The options with which another command reads text as was done here.

    Args:
        read: how it was read.
        first_token: what it calls the first token that needs no option.
    """
    reading: tuple[object, ...] = ()
    if read.length != options.Reading().length:
        reading += ("--length", read.length)
    if read.first_token != first_token:
        reading += ("--first-token", read.first_token)
    if read.packing != options.Reading().packing:
        reading += ("--packing", read.packing)
    return reading


def show_further(
    model: str, loading: options.Loading, trained: Path, corpus: str, settings: TrainSettings
) -> None:
    """Prints what is to be done next with the file that a run has written."""
    reading = ("--corpus", corpus, *reading_as(settings))
    show_next("evaluate", model, *loading.again, "--patch", trained, *reading)
    show_next("merge", model, *loading.again, "--patch", trained, "--output", "repaired")
