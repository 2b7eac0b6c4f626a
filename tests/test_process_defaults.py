"""What else the process does to torch changes no figure."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import headsurgeon as hs
from headsurgeon.measurement.one_head_map import attention_map
from tests.pico import pico, tokens
from tests.pico_families import pico_family

FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "bloom": lambda: pico("bloom"),
    "mpt": lambda: pico("mpt"),
    "falcon-rw": lambda: pico("falcon-rw"),
    "llama": lambda: pico_family("llama"),
    # a sliding window, with and without soft-capping: taken in blocks, under masks
    "mistral": lambda: pico_family("mistral"),
    "gemma2": lambda: pico_family("gemma2"),
}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


STATES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float16": lambda: default_dtype(torch.float16),
    "another device": lambda: torch.device("meta"),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "deterministic": deterministic,
}


def figures(model: PreTrainedModel, ids: torch.Tensor) -> list[np.ndarray]:
    stats = hs.measure(model, ids)
    ablation = hs.ablate(model, ["L0H0"], ids, mode="mean")
    return [
        *stats.values.values(),
        stats.row_quantiles,
        stats.slopes,
        stats.null_mass,
        hs.evaluate(model, ids).document_nll,
        ablation.ablated.document_nll,
        np.array(hs.ablation_cost(model, ids)(ablation_heads := list(ablation.singles))),
        attention_map(model, ids[0], ablation_heads[0]),
    ]


@cache
def usual(family: str, dtype: torch.dtype) -> list[np.ndarray]:
    """The figures under the defaults with which a process begins."""
    return figures(FAMILIES[family]().to(dtype), tokens(2, 40))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_default_of_the_process_changes_a_figure(
    family: str, dtype: torch.dtype, state: str
) -> None:
    expected = usual(family, dtype)
    model, ids = FAMILIES[family]().to(dtype), tokens(2, 40)
    with STATES[state]():
        before = torch.get_default_dtype(), torch.get_default_device()
        found = figures(model, ids)
        assert (torch.get_default_dtype(), torch.get_default_device()) == before
    for ours, as_usual in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, as_usual)


def test_defaults_come_back_after_an_error() -> None:
    with default_dtype(torch.float64):
        with pytest.raises(hs.HeadsurgeonError):
            hs.evaluate(pico("bloom"), tokens(1, 1))
        assert torch.get_default_dtype() == torch.float64
