"""What runs leave behind, put on a model: patches of heads, or the weights of a whole model."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from headsurgeon.errors import PatchError
from headsurgeon.operation.chain import apply_patches
from headsurgeon.operation.full import FullLearner, apply_weights
from headsurgeon.operation.patch import read_patch
from headsurgeon.operation.patient import Patient
from headsurgeon.operation.weights_file import holds_whole_model, read_weights


def check_trained(paths: Sequence[Path]) -> None:
    """Refuses files that `apply_trained` cannot read, before any model is loaded.

    Raises:
        PatchError: one is damaged or of another kind; weights of a whole model among several.
    """
    for path in paths:
        if not holds_whole_model(path):
            read_patch(path)
            continue
        if len(paths) > 1:
            raise PatchError(
                f"{path} holds every weight of a model, so that nothing of another file would be "
                "left: give it alone"
            )
        read_weights(path)


def apply_trained(model: PreTrainedModel, paths: Sequence[Path]) -> Patient | FullLearner:
    """Puts one or several patches on a model, or the weights of a whole one; merged.

    Raises:
        PatchError, UnsupportedModel, HeadError, ModelError, StateError: as `apply_patches` and
            `apply_weights`.
    """
    if len(paths) == 1 and holds_whole_model(paths[0]):
        return apply_weights(model, paths[0])
    return apply_patches(model, paths)
