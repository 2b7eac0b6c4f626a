"""`headsurgeon generate`: what models make of the same prompts, side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headsurgeon.cli import options
from headsurgeon.cli.console import heading, out, table
from headsurgeon.cli.models_in_turn import in_turn
from headsurgeon.cli.outputs import check_folder
from headsurgeon.cli.progress import busy
from headsurgeon.extras import command
from headsurgeon.own_files import check_own_files, writing

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headsurgeon.evaluation import Generation

GENERATION = "generation.json"
PAGE = "completions.html"
MEASURED = "measures.csv"
FILES = (GENERATION, PAGE, MEASURED)
DRAWING = "How tokens are drawn"


def generate(
    model: options.Model,
    prompts: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="own/prompts-50, own/prompts-12, own/prompts-10, paper/prompts-40, a YAML or "
            "JSON file (kind: prompts), or a .txt file with one prompt a line.",
            rich_help_panel=options.TEXT,
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder for generation.json, measures.csv and completions.html.",
            show_default=False,
        ),
    ],
    loading: options.Loading,
    patch: options.AlsoPatched = None,
    baseline: options.AlsoModel = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, max=2**20, help="At most.", rich_help_panel=DRAWING)
    ] = 100,
    greedy: Annotated[
        bool,
        typer.Option(
            "--greedy", help="Take the likeliest token each time.", rich_help_panel=DRAWING
        ),
    ] = False,
    temperature: Annotated[
        float, typer.Option(help="Divides the logits.", rich_help_panel=DRAWING)
    ] = 0.7,
    top_k: Annotated[
        int,
        typer.Option(
            min=0, help="Draw from so many of the likeliest; 0: all.", rich_help_panel=DRAWING
        ),
    ] = 50,
    top_p: Annotated[
        float,
        typer.Option(
            help="Draw from the likeliest that have this probability.", rich_help_panel=DRAWING
        ),
    ] = 0.92,
    repetition_penalty: Annotated[
        float, typer.Option(help="1 is none.", rich_help_panel=DRAWING)
    ] = 1.0,
    stop_at_end: Annotated[
        bool,
        typer.Option(help="End at the end-of-sequence token.", rich_help_panel=DRAWING),
    ] = True,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**63 - 1,
            help="Of the run; every prompt has a seed of its own, from this, its id and its text.",
            rich_help_panel=DRAWING,
        ),
    ] = 42,
    first_token: options.FirstToken = "tokenizer",
) -> None:
    """Lets models continue the same prompts from the same seeds, and counts what can be counted.

    Repetition, other languages, markup and length, with intervals over prompts; completions stand
    side by side on a page. Nothing is taken from a checkpoint's own generation settings.
    """
    from headsurgeon.evaluation import Sampling, read_prompts, side_by_side
    from headsurgeon.evaluation import generate as completions
    from headsurgeon.folders import locked

    to_complete = read_prompts(prompts)
    sampling = Sampling(
        max_new_tokens=max_new_tokens,
        do_sample=not greedy,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        stop_at_end=stop_at_end,
        seed=seed,
    )

    def complete(
        label: str,
        subject: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        patches: Sequence[Path],
    ) -> "Generation":
        tokens = len(to_complete) * max_new_tokens
        with busy(f"completing {len(to_complete)} prompts, {label}", tokens) as on_tokens:
            return completions(
                subject,
                tokenizer,
                to_complete,
                sampling,
                name=label,
                patches=[str(path) for path in patches],
                first_token=first_token,
                on_tokens=on_tokens,
            )

    check_folder(output, GENERATION)
    with locked(output, GENERATION):
        check_own_files(output, FILES)
        models = in_turn(model, patch or (), baseline, loading, complete)
        generation = side_by_side(list(models.values()))
        names = _write(output, generation)
    _show(output, generation, names)


def _write(output: Path, generation: "Generation") -> list[str]:
    """Writes the three files, all of them or nothing, and returns their names."""
    from headsurgeon.files import write_text
    from headsurgeon.report import write_page
    from headsurgeon.report.generation_page import measures_csv, page

    with writing(output, GENERATION) as staged:
        generation.save(staged / GENERATION)
        write_text(staged / MEASURED, measures_csv(generation))
        write_page(page(generation), staged / PAGE)
        return sorted(path.name for path in staged.iterdir())


def _show(output: Path, generation: "Generation", names: Sequence[str]) -> None:
    from headsurgeon.report.generation_page import NOTICE, differences, drawing, measured

    console = out()
    console.print(drawing(generation))
    changes = differences(generation)
    for each in (measured(generation), *(() if changes is None else (changes,))):
        console.print()
        console.print(heading(each.title))
        console.print(table(each.columns, each.rows))
    console.print()
    console.print(NOTICE)
    if not generation.languages_by:
        console.print(f"languages were not told apart: {command('py3langid')}", soft_wrap=True)
    for each in generation.models:
        if each.unused:
            unused = ", ".join(f"{name} {value}" for name, value in each.unused.items())
            console.print(f"{each.name}: its own generation settings were not used ({unused})")
    console.print(f"\nwritten to {output}: {', '.join(names)}", soft_wrap=True)
