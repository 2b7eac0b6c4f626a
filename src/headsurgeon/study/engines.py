"""Where the cells of a study run: here, in several processes, under Slurm, or on Ray.

Cells share nothing but the study's folder, so an engine is one function that has every task done.
All of them compute the same numbers: a cell sums with a fixed number of threads (`Study.threads`).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args

from headsurgeon.errors import OperationError, SettingsError
from headsurgeon.extras import require
from headsurgeon.study.worker import Task, begin_work, perform, work

EngineName = Literal["local", "slurm", "ray"]


Done = Callable[[Task], None]


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
    asked, ask = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        min(jobs, len(tasks)), context, initializer=begin_work, initargs=(asked,)
    )
    with ask, asked, pool:
        try:
            futures = {pool.submit(work, folder, task, device): task for task in tasks}
            _collect(futures, done)
        except BrokenProcessPool as error:
            raise OperationError(
                "a process that computed cells was killed, perhaps for want of memory (then choose "
                "fewer --jobs); what is done is kept, and the same command resumes from there"
            ) from error
        except BaseException:
            # a scheduler's signal reaches this process alone, and a cell may take hours
            ask.close()
            pool.shutdown(cancel_futures=True)
            raise


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
