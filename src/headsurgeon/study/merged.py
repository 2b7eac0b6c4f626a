"""The repaired model of a cell as a plain checkpoint, and the proof that it loads as one."""

from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoModelForCausalLM, PreTrainedModel

from headsurgeon.errors import OperationError, StateError
from headsurgeon.evaluation import evaluate
from headsurgeon.operation import apply_trained
from headsurgeon.operation.merged_checkpoint import write_checkpoint
from headsurgeon.operation.model_card import Told
from headsurgeon.scores import difference
from headsurgeon.study.material import load_model, scored_windows, threads
from headsurgeon.study.parts import UNTOUCHED
from headsurgeon.study.results import (
    Cell,
    CellResult,
    cell_file,
    load_results,
    untouched,
)
from headsurgeon.training.run_file import runs_beside

# fp32 on the same machine gives the same sums; half precision on disk would not
TOLERANCE = 1e-6


class MergedModel(NamedTuple):
    """A checkpoint that was written and read back.

    Attributes:
        folder: where it is.
        nll: loss of the cell on the test windows of the text it was trained on, nats per token.
        reloaded_nll: the same of what `from_pretrained` made of the folder.
    """

    folder: Path
    nll: float
    reloaded_nll: float


def merge_cell(study_folder: Path, cell: Cell, output: Path, device: str = "cpu") -> MergedModel:
    """Writes the model of a finished cell to `output`, all or nothing, and checks its loss.

    Args:
        study_folder: of the study.
        cell: one whose slices, or whose whole model, was trained.
        output: folder of the checkpoint; an earlier one of ours there is replaced.
        device: where the models run.

    Raises:
        StateError: the cell left nothing to merge: it failed, or trains nothing but adapters.
        OutputError: the output folder holds something else.
        WriteError: it cannot be written; an earlier checkpoint in it stays.
        OperationError: the checkpoint that was read back has another loss.
    """
    results = load_results(study_folder)
    study, path = results.study, cell_file(study_folder, cell)
    result = CellResult.load(path)
    if result.patch is None or study.arm(cell.arm).method == "lora":
        raise StateError(f"{path} names neither a patch nor weights, so there is nothing to merge")
    model, tokenizer = load_model(study, study.arm(cell.arm).model, device)
    patch = path.parent / result.patch
    told = Told(runs_beside([patch]), _figures(untouched(results), result))
    write_checkpoint(apply_trained(model, [patch]), tokenizer, output, [patch], told=told)
    scored = result.scored[cell.text]
    nll = sum(scored.nll) / sum(scored.tokens)
    with threads(study.threads):
        reloaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            output, dtype=model.dtype, device_map=model.device
        )
        reloaded_nll = evaluate(reloaded, scored_windows(study, tokenizer)[cell.text]).nll
    if not abs(reloaded_nll - nll) <= TOLERANCE:
        raise OperationError(
            f"{output} loads with a loss of {reloaded_nll:.6f} where the merged model had {nll:.6f}"
            "; the checkpoint is not what was evaluated"
        )
    return MergedModel(output, nll, reloaded_nll)


def _figures(stock: CellResult, result: CellResult) -> list[dict[str, Any]]:
    """The cell's losses on each text beside those of the untouched model, as a card shows them."""
    found = []
    for text, scored in result.scored.items():
        before = stock.scored[text].evaluation(UNTOUCHED)
        after = scored.evaluation(result.arm)
        found.append(
            {
                "evaluations": {each.model: each.model_dump() for each in (before, after)},
                "differences": {
                    f"{result.arm} − {UNTOUCHED}": difference(after, before).model_dump()
                },
            }
        )
    if result.recovery is not None:
        found[-1]["recovery"] = result.recovery.model_dump()
    return found
