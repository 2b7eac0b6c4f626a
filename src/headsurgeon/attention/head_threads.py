"""Heads shared out over threads, each of which runs its operations by itself.

Tiles are many small operations. One that is split over all threads ends with the slowest of them,
so wherever another process takes a core for a moment, every core waits, operation after operation.
Heads do not depend on each other: here a thread takes the next few when it is done with its last,
and all meet once, at the end. PyTorch lets go of the interpreter's lock while it computes.

Which way is taken follows from sizes and the number of threads alone, so that equal runs give equal
numbers. Threads are started at every call: a pool was slower, and would have to outlive forks.
"""

from collections.abc import Callable
from threading import Thread

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

# Fewer scores than this are not worth the start of a thread (16 heads of 512 tokens are).
WORTH = 2**22
# Pieces for each thread: one that is held up leaves its last to another.
PIECES = 2


def threads_for(device: torch.device, heads: int, scores: int) -> int:
    """How many threads to share `heads` out over; 1 is the caller itself.

    Whoever watches operations sees those of his own thread alone, so then they stay in it.

    Args:
        scores: how many numbers the heads' scores are, all together.
    """
    if device.type != "cpu" or scores < WORTH or is_in_torch_dispatch_mode():
        return 1
    return min(torch.get_num_threads(), heads)


def share_out(heads: int, threads: int, run: Callable[[int, slice], None]) -> None:
    """Calls `run(thread, some heads)` until every head has had its turn, once.

    The first exception of any thread is raised here, when all have ended. Nothing is recorded for
    gradients.
    """
    if threads == 1:
        run(0, slice(0, heads))
        return
    size = -(-heads // (threads * PIECES))
    # the iterator of a list hands out each element once, whoever asks
    pieces = iter([slice(first, min(first + size, heads)) for first in range(0, heads, size)])
    all_threads = torch.get_num_threads()
    inference = torch.is_inference_mode_enabled()
    failed: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            torch.set_num_threads(all_threads // threads)
            with torch.inference_mode(inference), torch.no_grad():
                for piece in pieces:
                    if failed:
                        return
                    run(thread, piece)
        except BaseException as error:
            failed.append(error)

    workers = [Thread(target=work, args=(thread,)) for thread in range(threads)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    except BaseException as error:
        failed.append(error)
        for worker in workers:
            if worker.ident is not None:
                worker.join()
    finally:
        # a thread's number becomes that of threads which begin later: the caller's again
        torch.set_num_threads(all_threads)
    if failed:
        raise failed[0]
