"""What identifies the base of an operation: SHA-256 over the tensors that heads live in."""

import hashlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn

from headsurgeon.arch import Layout
from headsurgeon.arch.layout import PARTS
from headsurgeon.errors import ModelError
from headsurgeon.files import sha256_text
from headsurgeon.heads import HeadId
from headsurgeon.models.origin import as_stored, stored_for
from headsurgeon.models.stored import StoredTensor
from headsurgeon.models.weights import ordinary

_BLOCK = 1 << 22


def fingerprint(model: nn.Module, layout: Layout) -> str:
    """One SHA-256 over the weights and biases of every attention projection of the model.

    It does not depend on any choice of heads, so a plan may be edited and still fits. Weights count
    as their checkpoint stores them, so that loading in another precision is no other identity. A
    model that is being operated on is not stock: its tensors hold the slices; a patient keeps the
    fingerprint from before (`Patient.base_fingerprint`).

    Raises:
        ModelError: a weight is quantised, or nowhere.
    """
    return combined(fingerprints(model, attention(model, layout)))


def fingerprints(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of each named parameter: its name, shape and values upcast to fp32.

    Where the model was read from a checkpoint and a parameter has not been changed since, the
    values are those that the checkpoint stores, whatever precision it was loaded in.

    Raises:
        ModelError: one is quantised, so it stands for other values than it holds.
    """
    digests = {}
    stored = stored_for(model)
    for name in sorted(set(names)):
        # one that Accelerate keeps on the disk is read for as long as it takes
        with align_module_device(model.get_submodule(name.rpartition(".")[0])):
            digests[name] = _of_tensor(name, model.get_parameter(name), stored)
    return digests


def others(model: nn.Module, names: Iterable[str]) -> str:
    """One SHA-256 over every parameter but the named ones, as `fingerprints` has them."""
    return combined(fingerprints(model, _own(model) - set(names)))


def everything(model: nn.Module, known: Mapping[str, str] = MappingProxyType({})) -> str:
    """One SHA-256 over every parameter; `known` are those `fingerprints` that are there already."""
    return combined({**known, **fingerprints(model, _own(model) - known.keys())})


def _own(model: nn.Module) -> set[str]:
    """Names of the parameters; what an operation in progress trains is none of the model's own."""
    named = {name for name, _ in model.named_parameters()}
    return {name for name in named if not name.rpartition(".")[2].startswith("slice_")}


def combined(digests: Mapping[str, str]) -> str:
    """One fingerprint out of those of several tensors, in the order of their names."""
    return sha256_text([part for name in sorted(digests) for part in (name, digests[name])])


def attention(model: nn.Module, layout: Layout) -> list[str]:
    """Names of the weights and biases of all attention projections, sorted, each once.

    Raises:
        ModelError: one has an adapter, so that its weights are not what it computes with.
    """
    paths = {
        layout.projection(part).path(layer) for layer in layout.attention_layers for part in PARTS
    }
    for path in sorted(paths):
        if hasattr(model.get_submodule(path), "base_layer"):
            raise ModelError(
                f"{path} carries an adapter (PEFT), which can be measured and is no part of a "
                "checkpoint; merge it or revert it first"
            )
    named = {f"{path}.{leaf}" for path in paths for leaf in ("weight", "bias")}
    return sorted(named.intersection(name for name, _ in model.named_parameters()))


def touched(layout: Layout, heads: Iterable[HeadId]) -> list[str]:
    """Names of the parameters that hold a part of one of `heads`, sorted.

    Keys and values that stay frozen because their group is not complete count too: the slices
    were trained against them.
    """
    names = {
        block.parameter
        for head in heads
        for blocks in layout.head_blocks(head.layer, head.head).values()
        for block in blocks
    }
    return sorted(names)


def _of_tensor(name: str, tensor: Tensor, stored: Mapping[str, StoredTensor]) -> str:
    if tensor.is_meta:
        raise ModelError(f"{name} is not in memory, nor does Accelerate know where it is")
    if not ordinary(tensor):
        raise ModelError(
            f"{name} is quantised ({type(tensor).__name__}); load the model in bf16, fp16 or fp32"
        )
    return fingerprint_of(name, as_stored(stored, name, tensor))


def fingerprints_of(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of each of some tensors, as it is; see `fingerprint_of`."""
    return {name: fingerprint_of(name, tensor) for name, tensor in tensors.items()}


def fingerprint_of(name: str, tensor: Tensor) -> str:
    """SHA-256 of one parameter of that name: name, shape and values upcast to fp32."""
    digest = hashlib.sha256(f"{name} {list(tensor.shape)}".encode())
    flat = tensor.detach().reshape(-1)
    # in pieces, so that an embedding-sized tensor is never held twice in fp32
    for start in range(0, flat.numel(), _BLOCK):
        piece = flat[start : start + _BLOCK].to("cpu", torch.float32).contiguous()
        digest.update(piece.numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()
