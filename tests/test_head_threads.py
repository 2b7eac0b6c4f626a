"""Heads shared out over threads: every head once, the same numbers, and nothing left behind."""

import threading
from collections.abc import Iterator

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from headsurgeon.attention import head_threads
from headsurgeon.attention.head_threads import WORTH, share_out, threads_for
from headsurgeon.attention.tiled_attention import tiled_attention
from headsurgeon.attention.tiled_statistics import tiled_statistics
from tests.test_attention import FIELDS, drawn, geometric

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(head_threads, "WORTH", 1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("heads", [1, 2, 3, 5, 16, 17])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_head_has_its_turn_once(heads: int, threads: int) -> None:
    turns = torch.zeros(heads, dtype=torch.long)

    def run(thread: int, some: slice) -> None:
        assert thread in range(threads)
        turns[some] += 1

    share_out(heads, threads, run)
    assert (turns == 1).all()


def test_statistics_outputs_and_gradients_are_those_of_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query, key, value = (part.requires_grad_() for part in drawn((2, 5, 300, 16)))
    bias = geometric(5)[:, None] * torch.arange(300)

    def all_three() -> list[torch.Tensor]:
        with torch.no_grad():
            rows, output = tiled_statistics(query, key, bias, 0.25, value)
        assert output is not None
        attended = tiled_attention(query, key, value, bias, 0.25)
        gradients = torch.autograd.grad(attended.square().sum(), (query, key, value))
        return [*(getattr(rows, name) for name in FIELDS), output, attended, *gradients]

    shared = all_three()
    monkeypatch.setattr(head_threads, "WORTH", 2**60)
    for ours, alone in zip(shared, all_three(), strict=True):
        torch.testing.assert_close(ours, alone, atol=1e-6, rtol=1e-6)


def test_each_thread_runs_its_operations_by_itself_and_the_caller_keeps_its_number() -> None:
    numbers: set[int] = set()
    names: set[str] = set()

    def run(thread: int, some: slice) -> None:
        numbers.add(torch.get_num_threads())
        names.add(threading.current_thread().name)

    share_out(12, 3, run)
    assert numbers == {1}
    assert threading.current_thread().name not in names
    assert torch.get_num_threads() == 3
    later: list[int] = []
    one = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    one.start()
    one.join()
    assert later == [3]


def test_a_failure_in_a_thread_is_the_callers() -> None:
    def run(thread: int, some: slice) -> None:
        raise MemoryError("no room for a tile")

    with pytest.raises(MemoryError, match="no room"):
        share_out(4, 2, run)
    assert torch.get_num_threads() == 3


def test_it_runs_in_inference_mode() -> None:
    with torch.inference_mode():
        query, key, value = drawn((1, 4, 200, 8))
        rows, output = tiled_statistics(query, key, torch.zeros(4, 200), 0.3, value)
    assert output is not None
    assert output.isfinite().all()
    assert rows.entropy.isfinite().all()


def test_heads_stay_in_the_callers_thread_where_that_is_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert threads_for(CPU, heads=16, scores=WORTH) == 3
    assert threads_for(CPU, heads=2, scores=WORTH) == 2
    assert threads_for(torch.device("meta"), heads=16, scores=WORTH) == 1
    # who watches operations would miss those of other threads
    with TorchDispatchMode():
        assert threads_for(CPU, heads=16, scores=WORTH) == 1
    monkeypatch.setattr(head_threads, "WORTH", WORTH)
    assert threads_for(CPU, heads=16, scores=WORTH - 1) == 1
    torch.set_num_threads(1)
    assert threads_for(CPU, heads=16, scores=WORTH) == 1
