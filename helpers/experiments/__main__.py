"""The command line: ``python -m helpers.experiments list | run [NAME ...] | table``."""

import argparse
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from helpers.experiments import records, sparsity
from helpers.experiments.cluster import perform_all
from helpers.experiments.declared import EXPERIMENTS, PROFILES, REPETITIONS, Run, declared
from helpers.experiments.running import perform


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.experiments", description="Run the paper's tables and figures, and what it leaves open."
    )
    parser.add_argument("command", choices=["list", "run", "table"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(EXPERIMENTS)}")
    parser.add_argument("--profile", choices=PROFILES, default="full", help="short: a tenth of the epochs")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--batch-size", type=int, help="instead of the declared one; with a --folder of its own")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler whose workers share the runs")
    parser.add_argument("--folder", type=Path, default=records.DATA, help="for records, weights and checkpoints")
    asked = parser.parse_args(arguments)
    try:
        runs = declared(asked.names, asked.profile, asked.repetitions)
        if asked.batch_size:
            runs = [replace(run, row=replace(run.row, batch_size=asked.batch_size)) for run in runs]
        match asked.command:
            case "list":
                for run in runs:
                    print(f"{records.state(run, asked.folder):12} {run.name}")
            case "table":
                for table in (records.left, records.right, records.placements):
                    print(table(asked.profile, asked.folder).to_string(), end="\n\n")
                for table in (sparsity.table_2, sparsity.shares, sparsity.errors):
                    print(table(folder=asked.folder).to_string(), end="\n\n")
            case "run":
                require_device(asked.device)
                run_all(runs, asked)
    except (ValueError, OSError, MemoryError, ImportError) as error:
        sys.exit(f"{parser.prog}: {error}")


def require_device(name: str) -> None:
    """Raise ValueError unless there is a device called `name`."""
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without CUDA
        raise ValueError(f"there is no device {name!r} here; leave --device out to run on the processor") from error


def run_all(runs: list[Run], asked: argparse.Namespace) -> None:
    if asked.scheduler:
        for run in perform_all(runs, asked.scheduler, asked.device, asked.folder):
            print(f"{records.state(run, asked.folder):12} {run.name}", flush=True)
        return
    for run in runs:
        with suppress(BlockingIOError):  # another process is at it, as its state will say
            perform(run, asked.device, progress=sys.stderr.isatty(), folder=asked.folder)
        print(f"{records.state(run, asked.folder):12} {run.name}", flush=True)


if __name__ == "__main__":
    main()
