"""Where the cells of a study run: here, in several processes, under Slurm, or on Ray.

Cells share nothing but the study's folder, so an engine is one function that has every task done.
All of them compute the same numbers: a cell sums with a fixed number of threads (`Study.threads`).
"""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, connection, get_context, parent_process
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from headsurgeon.errors import Interrupted, OperationError, SettingsError
from headsurgeon.extras import require
from headsurgeon.study.results import Cell

EngineName = Literal["local", "slurm", "ray"]


class Task(NamedTuple):
    """Something to compute: a cell; the learning rate of its arm and text; its untrained heads."""

    cell: Cell
    what: Literal["cell", "rates", "untrained heads"] = "cell"

    def __str__(self) -> str:
        return str(self.cell) if self.what == "cell" else f"{self.what} of {self.cell}"


Done = Callable[[Task], None]


def perform(folder: str, task: Task, device: str) -> None:
    """Does one task; its result is a file. Importable, for engines that send it elsewhere."""
    import transformers

    from headsurgeon.study.cell import run_cell
    from headsurgeon.study.rates import run_rates
    from headsurgeon.study.untrained import run_untrained

    # one bar for each model that is loaded is no use in a process that nobody looks at
    transformers.utils.logging.disable_progress_bar()
    cell = Cell(*task.cell)
    if task.what == "rates":
        run_rates(Path(folder), cell.arm, cell.text, device)
    elif task.what == "untrained heads":
        run_untrained(Path(folder), cell, device)
    else:
        run_cell(Path(folder), cell, device)


def run_tasks(
    engine: str,
    folder: Path,
    tasks: Sequence[Task],
    done: Done,
    *,
    jobs: int = 1,
    device: str = "cpu",
    options: dict[str, Any] | None = None,
) -> None:
    """Has every task done, in any order, and says so of each.

    Args:
        engine: `local`, `slurm` or `ray`.
        jobs: processes at once; under `slurm` and `ray` at most so many.
        device: of the models.
        options: what the engine is told besides, such as Slurm's `partition` and `timeout_min`.

    Raises:
        SettingsError: no such engine, or the package that it needs is not installed.
        OperationError: a task that could not even write down why it failed.
    """
    if engine not in get_args(EngineName):
        raise SettingsError(f"no engine {engine!r}; there are {', '.join(get_args(EngineName))}")
    if jobs < 1:
        raise SettingsError(f"jobs: expected at least 1, got {jobs}")
    if not tasks:
        return
    place = str(folder.resolve())
    if engine == "slurm":
        _slurm(place, tasks, done, jobs, device, options or {})
    elif engine == "ray":
        _ray(place, tasks, done, jobs, device, options or {})
    elif jobs == 1:
        for task in tasks:
            perform(place, task, device)
            done(task)
    else:
        _processes(place, tasks, done, jobs, device)


def _processes(folder: str, tasks: Sequence[Task], done: Done, jobs: int, device: str) -> None:
    # a forked process would share the state of torch's threads
    context = get_context("spawn")
    workers = min(jobs, len(tasks))
    others = set(active_children())
    with ProcessPoolExecutor(workers, context, initializer=_begin_work) as pool:
        futures = {pool.submit(_work, folder, task, device): task for task in tasks}
        try:
            _collect(futures, done)
        except BrokenProcessPool as error:
            raise OperationError(
                "a process that computed cells was killed, perhaps for want of memory (then choose "
                "fewer --jobs); what is done is kept, and the same command resumes from there"
            ) from error
        except BaseException:
            # a scheduler's signal reaches this process alone, and a cell may take hours
            for worker in set(active_children()) - others:
                worker.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def _work(folder: str, task: Task, device: str) -> None:
    """As `perform`, in a worker, which ends when interrupted: the pool would give it more to do."""
    try:
        perform(folder, task, device)
    except (KeyboardInterrupt, Interrupted):
        os._exit(1)


def _begin_work() -> None:
    """Prepares a worker: it tidies up before it is ended, and ends when its parent is killed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parent = parent_process()
    assert parent is not None, "called in a worker"

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _collect(futures: dict[Future[None], Task], done: Done) -> None:
    left = set(futures)
    while left:
        finished, left = wait(left, return_when=FIRST_COMPLETED)
        for future in finished:
            future.result()
            done(futures[future])


def _slurm(
    folder: str,
    tasks: Sequence[Task],
    done: Done,
    jobs: int,
    device: str,
    options: dict[str, Any],
) -> None:
    require("submitit", "engine slurm")
    import submitit

    told = dict(options)
    # `cluster: local` runs the same code in processes of this machine
    executor = submitit.AutoExecutor(folder=f"{folder}/slurm", cluster=told.pop("cluster", None))
    told = {"timeout_min": 24 * 60, "slurm_array_parallelism": jobs, **told}
    executor.update_parameters(**told)
    with executor.batch():
        sent = [(executor.submit(perform, folder, task, device), task) for task in tasks]
    for job, task in sent:
        try:
            job.result()
        except Exception as error:
            raise OperationError(
                f"{task} failed under Slurm (job {job.job_id}); its log is in {folder}/slurm: "
                f"{str(error).splitlines()[-1]}"
            ) from error
        done(task)


def _ray(
    folder: str,
    tasks: Sequence[Task],
    done: Done,
    jobs: int,
    device: str,
    options: dict[str, Any],
) -> None:
    require("ray", "engine ray")
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=jobs, log_to_driver=False, **options)
    try:
        remote = ray.remote(num_cpus=1, max_retries=0)(perform)
        left = {remote.remote(folder, task, device): task for task in tasks}
        while left:
            finished, _ = ray.wait(list(left), num_returns=1)
            for reference in finished:
                ray.get(reference)
                done(left.pop(reference))
    finally:
        if started:
            ray.shutdown()
