"""The command line: ``python -m helpers.experiments list | run [NAME ...] | table``."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from helpers.experiments import records, tables
from helpers.experiments.cluster import perform_all
from helpers.experiments.declared import EXPERIMENTS, PROFILES, REPETITIONS, Run, declared
from helpers.experiments.running import perform, require_device
from helpers.inputs import require_positive
from helpers.printing import spell_out


def main(arguments: list[str] | None = None) -> None:
    spell_out()
    parser = argparse.ArgumentParser(
        prog="python -m helpers.experiments", description="Run the paper's tables and figures, and what it leaves open."
    )
    parser.add_argument("command", choices=["list", "run", "table"])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"to list or run; default: all of {', '.join(EXPERIMENTS)}"
    )
    parser.add_argument("--profile", choices=PROFILES, default="full", help="short: a tenth of the epochs")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--batch-size", type=int, help="instead of the declared one; with a --folder of its own")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler whose workers share the runs")
    parser.add_argument("--folder", type=Path, default=records.DATA, help="for records, weights and checkpoints")
    asked = parser.parse_args(arguments)
    asked.folder = asked.folder.absolute()  # a worker of the scheduler has another working directory
    try:
        runs = declared(asked.names, asked.profile, asked.repetitions)
        require_positive("--repetitions", asked.repetitions)
        if asked.batch_size is not None:
            require_place_of_its_own(asked)
            runs = [replace(run, row=replace(run.row, batch_size=asked.batch_size)) for run in runs]
        match asked.command:
            case "list":
                for run in runs:
                    print(f"{records.state(run, asked.folder):12} {run.name}")
            case "table":
                for title, table in tables.BY_PROFILE.items():
                    print(title, table(asked.profile, asked.folder).to_string(), sep="\n", end="\n\n")
                for title, table in tables.OTHERS.items():
                    print(title, table(folder=asked.folder).to_string(), sep="\n", end="\n\n")
            case "run" if asked.scheduler:
                report(perform_all(runs, asked.scheduler, asked.device, asked.folder), asked.folder)
            case "run":
                report(perform_here(runs, asked.device, asked.folder), asked.folder)
    except (ValueError, OSError, MemoryError, ImportError) as error:
        sys.exit(f"{parser.prog}: {error}")
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; run it again to go on", file=sys.stderr)
        sys.exit(130)  # as after any program that Ctrl-C has ended


def require_place_of_its_own(asked: argparse.Namespace) -> None:
    """Raise ValueError unless batches of another size have a folder in which none of the declared size are."""
    require_positive("--batch-size", asked.batch_size)
    if asked.folder.resolve() == records.DATA.resolve():
        raise ValueError(
            "the records here are of the declared batch size; give those of another one a --folder of their own"
        )


def perform_here(runs: Iterable[Run], device: str, folder: Path) -> Iterator[Run]:
    """Carry `runs` out one by one, and yield each. One whose data set cannot be had, or whose files cannot be used, does
    not keep the others from theirs: the first such error is raised when all else is done."""
    require_device(device)
    errors = []
    for run in runs:
        try:
            perform(run, device, progress=sys.stderr.isatty(), folder=folder)
        except BlockingIOError:
            pass  # another process is at it, as its state will say
        except (ConnectionError, ValueError) as error:
            errors.append(error)
        yield run
    if errors:
        raise errors[0]


def report(runs: Iterable[Run], folder: Path) -> None:
    for run in runs:
        print(f"{records.state(run, folder):12} {run.name}", flush=True)


if __name__ == "__main__":
    main()
