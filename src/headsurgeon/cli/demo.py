"""`headsurgeon demo`: the whole way on one model, in a few minutes. A study and its page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from headsurgeon.cli.console import out, python_text
from headsurgeon.cli.loading import quieten
from headsurgeon.cli.outputs import check_folder
from headsurgeon.cli.progress import busy
from headsurgeon.cli.study_terminal import page_content, run_and_show
from headsurgeon.errors import OperationError

if TYPE_CHECKING:
    from headsurgeon.study import Study

RECORD = "demo.json"
MERGED = "merged"
TWINS, OTHERS = "twins-quick", "smollm2"


def demo(
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="Another model than the shipped one: a Hub id, a checkpoint folder, or zoo:NAME. "
            "Without a healthy twin there is no ceiling, and only idle heads are operated on.",
        ),
    ] = "zoo:bloom-mini-collapsed",
    output: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder for demo.json, report.html and the merged checkpoint; one that "
            "holds the same demo is resumed.",
        ),
    ] = Path("headsurgeon-demo"),
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Models trained at once; by default as many as use two cores."),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where the models run.")
    ] = "cpu",
) -> None:
    """Finds collapsed heads, repairs them, and compares the repair with a control and a ceiling.

    The shipped model's collapse was planted, so it is known how much a repair could bring back. It
    is repaired by the best recipe that is known, which trains the whole model from where its heads
    are woken, beside the paper's. Another model's idle heads are operated on as in the paper. The
    control trains the same weights on the same tokens and wakes no head. It is the study of preset
    twins-quick, or smollm2 for another model; see headsurgeon study.
    """
    from headsurgeon.files import header, write_json
    from headsurgeon.report.study_before import diagnoses_of
    from headsurgeon.study.merged import merge_cell
    from headsurgeon.study.results import STUDY

    study = study_for(model)
    check_folder(output, STUDY)
    quieten()
    # a study of larger models gives each of them two
    jobs = jobs or (2 if study.threads == 1 else 1)
    result, page = run_and_show(study, output, jobs=jobs, device=device)
    if result.results.failed:
        raise OperationError(
            f"{', '.join(str(cell.cell) for cell in result.results.failed)} failed; the same "
            "command tries again"
        )
    # a preset names the arm that is shown first before its rivals
    shown = next(arm.name for arm in study.arms if arm.trains)
    (repaired, *_) = result.results.of(shown, study.train_on[0])
    with busy("writing the repaired model"):
        merged = merge_cell(result.folder, repaired.cell, output / MERGED, device)
    write_json(
        output / RECORD,
        {
            **header("demo"),
            "model": study.model,
            "study": study.name,
            "first_token_mass": {
                text: diagnosis.stats.first_token_mass.tolist()
                for text, diagnosis in diagnoses_of(result.results).items()
            },
            **page_content(page),
            "merged": {
                "folder": MERGED,
                "cell": str(repaired.cell),
                "nll": merged.nll,
                "reloaded_nll": merged.reloaded_nll,
            },
        },
    )
    _show_files(output)


def study_for(model: str) -> "Study":
    """The study that the demo runs on a model.

    The collapse of the shipped model is known to be an illness, so all sick heads are operated on.
    In any other model a sink may be work, so only idle heads are; the learning rates are those that
    suited SmolLM2-135M.
    """
    from headsurgeon.study import Study

    for preset in (TWINS, OTHERS):
        study = Study.load(preset)
        if study.model == model:
            return study
    about = "Its learning rates are those that were best on SmolLM2-135M, not on this model."
    return Study.model_validate({**dict(study), "name": "demo", "about": about, "model": model})


def _show_files(output: Path) -> None:
    from headsurgeon.report.folder_page import PAGE

    console = out()
    console.print()
    console.print(Text(f"written to {output}:", style="bold"), soft_wrap=True)
    loading = f"AutoModelForCausalLM.from_pretrained({python_text(output / MERGED)})"
    for name, what in (
        (PAGE, "everything on one page, for a browser"),
        (f"{MERGED}/", loading),
        (RECORD, "every figure above"),
        ("cells/", "logs, patches and losses of the arms"),
    ):
        console.print(Text(f"  {name:<14}").append(what, style="dim"), soft_wrap=True)
    console.print()
    console.print(Text(f"page: {output / PAGE}"), soft_wrap=True)
