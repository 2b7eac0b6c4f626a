"""`headsurgeon generate`: what models make of the same prompts, side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headsurgeon.cli import options
from headsurgeon.cli.console import busy, heading, out, table
from headsurgeon.cli.loading import open_model
from headsurgeon.cli.outputs import check_folder
from headsurgeon.own_files import check_own_files, writing

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headsurgeon.evaluation import Generation, Prompt, Sampling

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
    from headsurgeon.folders import locked
    from headsurgeon.operation import apply_patches, read_patch

    given = read_prompts(prompts)
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
    patches = patch or []
    for each in patches:
        read_patch(each)
    check_folder(output, GENERATION)
    with locked(output, GENERATION):
        check_own_files(output, FILES)
        loaded, tokenizer = open_model(model, loading)
        # put on first, so that one that does not fit is refused before anything is drawn
        patient = apply_patches(loaded, patches) if patches else None
        if patient is not None:
            patient.revert()
        found = [_said(loaded, tokenizer, given, sampling, model, (), first_token)]
        if patient is not None:
            patient.merge()
            label = f"with {' + '.join(each.name for each in patches)}"
            found.append(_said(loaded, tokenizer, given, sampling, label, patches, first_token))
        if baseline is not None:
            label = f"{baseline} (baseline)" if baseline == model else baseline
            # one model is held at a time
            del loaded, patient
            other, own = open_model(baseline, loading)
            found.append(_said(other, own, given, sampling, label, (), first_token))
        generation = side_by_side(found)
        names = _write(output, generation)
    _show(output, generation, names)


def _said(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: "Sequence[Prompt]",
    sampling: "Sampling",
    label: str,
    patches: Sequence[Path],
    first_token: str,
) -> "Generation":
    from headsurgeon.evaluation import generate as complete

    with busy(f"completing {len(prompts)} prompts, {label}"):
        return complete(
            model,
            tokenizer,
            prompts,
            sampling,
            name=label,
            patches=[str(each) for each in patches],
            first_token=first_token,
        )


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
        console.print(
            'languages were not told apart: pip install "headsurgeon[generation]"', soft_wrap=True
        )
    for each in generation.models:
        if each.unused:
            unused = ", ".join(f"{name} {value}" for name, value in each.unused.items())
            console.print(f"{each.name}: its own generation settings were not used ({unused})")
    console.print(f"\nwritten to {output}: {', '.join(names)}", soft_wrap=True)
