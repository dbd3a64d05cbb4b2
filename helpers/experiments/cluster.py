"""Runs on many machines: a Dask scheduler hands them to its workers."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import torch

from helpers import datasets
from helpers.experiments import variational
from helpers.experiments.declared import Run
from helpers.experiments.records import DATA, record
from helpers.experiments.running import enough_memory, made_for, perform, require_device, taught, write

WORKER = "dask worker ADDRESS --nthreads 1"  # how to start one


def perform_all(
    runs: list[Run], scheduler: str, device: str = "cpu", folder: Path = DATA, timeout: float = 20
) -> Iterator[Run]:
    """Carry `runs` out on the workers of the Dask `scheduler`, teachers first, and yield each when its record is here, or
    when it turns out that another process is working on it.

    Workers have one thread each. They need the suite, and the data set or a network. Those that share a file system share
    teachers and checkpoints too; any other worker trains the teacher that it needs, to the same weights. Where `folder` is
    left out, each worker has its own suite's.

    Raises
    ------
    ConnectionError : if there is no scheduler at that address.
    ImportError : if Dask is not installed.
    ValueError : if a worker has several threads.
    Exception : the first that a run ended in, when all the others are done.
    """
    from dask.distributed import Client, as_completed

    try:
        client = Client(scheduler, timeout=timeout, set_as_default=False)
    except OSError as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {scheduler} ({error}). Start one with `dask scheduler`, and workers with "
            f"`{WORKER}`, or leave --scheduler out to run here."
        ) from error
    with client:
        workers = client.nthreads()
        require_one_thread(workers)
        errors = []
        present = [run for run in runs if record(run, folder).exists()]
        for run in present:
            try:
                made_for(run, record(run, folder))
            except ValueError as error:
                errors.append(error)
            yield run
        missing = [run for run in runs if run not in present]
        if missing and not workers:
            start = WORKER.replace("ADDRESS", scheduler)
            print(f"The scheduler has no workers yet, and the runs wait for them; start one: {start}", file=sys.stderr)
        first = {run.teacher: run for run in reversed(missing)}
        there = None if folder == DATA else folder
        teachers = {name: client.submit(teach, run, device, there, pure=False) for name, run in first.items()}
        futures = {client.submit(after, teachers[run.teacher], run, device, there, pure=False): run for run in missing}
        for future in as_completed(futures, loop=client.loop):
            run, path = futures[future], record(futures[future], folder)
            try:
                content = future.result()
                if not path.exists():  # the worker has another file system
                    write(path, content)
                made_for(run, path)
            except BlockingIOError:
                pass  # another process is at it, as its state will say
            except Exception as error:  # whatever ends one run, the others go on
                errors.append(error)
            yield run
        if errors:
            raise errors[0]


def require_one_thread(workers: Mapping[str, int]) -> None:
    """Raise ValueError if one of `workers`, {address: threads}, has several: random numbers belong to the process, and
    runs in its threads would draw from each other's.
    """
    if several := [address for address, threads in workers.items() if threads > 1]:
        raise ValueError(
            f"the Dask workers at {', '.join(several)} have more than one thread, and runs in one process disturb each "
            f"other's random numbers. Start workers with `{WORKER}`, and `--nworkers N` for N runs at a time"
        )


def require_one_thread_here() -> None:
    """The same for the worker that runs this, which may have come after the others were looked at."""
    from dask.distributed import get_worker

    worker = get_worker()
    require_one_thread({worker.address: worker.state.nthreads})


def teach(run: Run, device: str, folder: Path | None) -> None:
    """Have the teacher of `run` trained, if it has one."""
    require_one_thread_here()
    require_device(device)
    if isinstance(run, variational.Run):
        return
    with enough_memory(run), suppress(FloatingPointError):  # the run will meet it again, and record it
        taught(run, datasets.load(run.row.data), torch.device(device), False, folder or DATA)


def after(_: None, run: Run, device: str, folder: Path | None) -> dict:
    """The record of `run`, whose teacher has been trained."""
    require_one_thread_here()
    return perform(run, device, progress=False, folder=folder or DATA)
