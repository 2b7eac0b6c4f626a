"""What identifies the base of an operation: SHA-256 over the tensors its heads live in."""

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from headsurgeon.arch import Layout
from headsurgeon.arch.layout import PARTS
from headsurgeon.files import sha256_text
from headsurgeon.heads import HeadId

_BLOCK = 1 << 22


def fingerprint(model: nn.Module, layout: Layout, heads: Iterable[HeadId]) -> str:
    """One SHA-256 over every tensor that holds Q, K, V or output projection of `heads`.

    Weights count as fp32, so the same checkpoint loaded in bf16 and widened has the same
    fingerprint. A model that is being operated on is not stock: its tensors hold the slices; a
    patient keeps the stock fingerprints from before (`Patient.fingerprints`).
    """
    return combined(fingerprints(model, touched(layout, heads)))


def fingerprints(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of each named parameter: its name, shape and values upcast to fp32."""
    return {name: _of_tensor(name, model.get_parameter(name)) for name in sorted(set(names))}


def combined(digests: Mapping[str, str]) -> str:
    """One fingerprint out of those of several tensors, in the order of their names."""
    return sha256_text([part for name in sorted(digests) for part in (name, digests[name])])


def touched(layout: Layout, heads: Iterable[HeadId]) -> list[str]:
    """Names of the parameters that hold a part of one of `heads`, sorted.

    Keys and values that stay frozen because their group is not complete count too: the slices
    were trained against them.
    """
    names = {
        block.parameter
        for head in heads
        for part in PARTS
        for block in layout.blocks(part, head.layer, head.head)
    }
    return sorted(names)


def _of_tensor(name: str, tensor: Tensor) -> str:
    digest = hashlib.sha256(f"{name} {list(tensor.shape)}".encode())
    flat = tensor.detach().reshape(-1)
    # in pieces, so that an embedding-sized tensor is never held twice in fp32
    for start in range(0, flat.numel(), _BLOCK):
        piece = flat[start : start + _BLOCK].to("cpu", torch.float32).contiguous()
        digest.update(piece.numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()
