"""A model, the same with patches, and another: one after the other, and one held at a time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from headsurgeon.cli.loading import open_model
from headsurgeon.cli.options import Loading

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Examine = Callable[[str, PreTrainedModel, PreTrainedTokenizerBase, Sequence[Path]], "Examined"]

Examined = TypeVar("Examined")


def in_turn(
    model: str,
    patches: Sequence[Path],
    baseline: str | None,
    loading: Loading,
    examine: "Examine[Examined]",
) -> dict[str, Examined]:
    """What is found of each model, by label.

    Args:
        model: what is loaded first, and is its own label.
        patches: files that are put on it one after the other; none where it is not to be patched.
        baseline: another model, or the same once more; None for none.
        loading: how models are loaded.
        examine: called with label, model, tokenizer and the patches it has. It must not keep the
            model, which is gone before the next is loaded.

    Raises:
        PatchError: a patch that cannot be read, or does not fit; before anything is examined.
    """
    from headsurgeon.operation import apply_trained, check_trained

    check_trained(patches)
    loaded, tokenizer = open_model(model, loading)
    patient = apply_trained(loaded, patches) if patches else None
    if patient is not None:
        patient.revert()
    examined = {model: examine(model, loaded, tokenizer, ())}
    if patient is not None:
        patient.merge()
        label = f"with {' + '.join(path.name for path in patches)}"
        examined[label] = examine(label, loaded, tokenizer, patches)
    if baseline is not None:
        label = f"{baseline} (baseline)" if baseline in examined else baseline
        del loaded, tokenizer, patient
        examined[label] = examine(label, *open_model(baseline, loading), ())
    return examined
