"""Runs on many machines: a Dask scheduler hands them to its workers."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from helpers import datasets
from helpers.experiments import variational
from helpers.experiments.declared import Run
from helpers.experiments.records import DATA, read, record
from helpers.experiments.running import perform, taught, write


def perform_all(
    runs: list[Run], scheduler: str, device: str = "cpu", folder: Path = DATA, timeout: float = 20
) -> Iterator[Run]:
    """Carry `runs` out on the workers of the Dask `scheduler`, teachers first, and yield each when its record is here.

    Workers need the suite, and the data set or a network. Those that share a file system share teachers and
    checkpoints too; any other worker trains the teacher that it needs, to the same weights.

    Raises
    ------
    ConnectionError : if there is no scheduler at that address.
    ImportError : if Dask is not installed.
    """
    from dask.distributed import Client, as_completed

    try:
        client = Client(scheduler, timeout=timeout, set_as_default=False)
    except OSError as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {scheduler} ({error}). Start one with `dask scheduler`, and workers with "
            f"`dask worker ADDRESS`, or leave --scheduler out to run here."
        ) from error
    missing = [run for run in runs if not record(run, folder).exists()]
    yield from (run for run in runs if run not in missing)
    with client:
        first = {run.teacher: run for run in reversed(missing)}
        teachers = {name: client.submit(teach, run, device, folder, pure=False) for name, run in first.items()}
        futures = {client.submit(after, teachers[run.teacher], run, device, folder, pure=False): run for run in missing}
        for future in as_completed(futures, loop=client.loop):
            run, path = futures[future], record(futures[future], folder)
            content = future.result()
            if not path.exists():  # the worker has another file system
                write(content, path)
            read(path)
            yield run


def teach(run: Run, device: str, folder: Path) -> None:
    """Have the teacher of `run` trained, if it has one."""
    if isinstance(run, variational.Run):
        return
    with suppress(FloatingPointError):  # the run will meet it again, and record it
        taught(run, datasets.load(run.row.data), torch.device(device), False, folder)


def after(_: None, run: Run, device: str, folder: Path) -> dict:
    """The record of `run`, whose teacher has been trained."""
    return perform(run, device, progress=False, folder=folder)
