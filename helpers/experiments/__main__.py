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
    parser = argument_parser()
    asked = parser.parse_args(arguments)
    asked.folder = asked.folder.absolute()  # a worker of the scheduler has another working directory
    try:
        match asked.command:
            case "list":
                for run in named(asked):
                    print(f"{records.state(run, asked.folder):12} {run.name}")
            case "table":
                for title, table in tables.BY_PROFILE.items():
                    print(title, table(asked.profile, asked.folder).to_string(), sep="\n", end="\n\n")
                for title, table in tables.OTHERS.items():
                    print(title, table(folder=asked.folder).to_string(), sep="\n", end="\n\n")
            case "run":
                runs = named(asked)
                if asked.batch_size is not None:
                    require_place_of_its_own(asked)
                    runs = [replace(run, row=replace(run.row, batch_size=asked.batch_size)) for run in runs]
                if asked.scheduler:
                    carried_out = perform_all(runs, asked.scheduler, asked.device, asked.folder)
                else:
                    carried_out = perform_here(runs, asked.device, asked.folder)
                report(carried_out, asked.folder)
    except (ValueError, OSError, MemoryError, ImportError) as error:
        sys.exit(f"{parser.prog}: {error}")
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; run it again to go on", file=sys.stderr)
        sys.exit(130)  # as after any program that Ctrl-C has ended


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.experiments", description="Run the paper's tables and figures, and what it leaves open."
    )
    of_all = argparse.ArgumentParser(add_help=False)
    of_all.add_argument("--profile", choices=PROFILES, default="full", help="short: a tenth of the epochs")
    of_all.add_argument("--folder", type=Path, default=records.DATA, help="for records, weights and checkpoints")
    of_some = argparse.ArgumentParser(add_help=False)
    what = "an experiment, a run that `list` prints, or the beginning of its name up to a dot"
    of_some.add_argument("names", nargs="*", metavar="NAME", help=f"{what}; default: all of {', '.join(EXPERIMENTS)}")
    of_some.add_argument(
        "--repetitions", type=int, help=f"of each; default: {REPETITIONS}, or the splits of a data set"
    )

    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "list", parents=[of_some, of_all], help="say which runs are done, running, interrupted or missing"
    )
    run = commands.add_parser("run", parents=[of_some, of_all], help="carry out those that are not done")
    run.add_argument("--batch-size", type=int, help="instead of the declared one; with a --folder of its own")
    run.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    run.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler whose workers share the runs")
    commands.add_parser("table", parents=[of_all], help="set the results beside the paper's")
    return parser


def named(asked: argparse.Namespace) -> list[Run]:
    """The runs whose names, or whose experiments' names, were given."""
    if asked.repetitions is not None:
        require_positive("--repetitions", asked.repetitions)
    return declared(asked.names, asked.profile, asked.repetitions)


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
        except (ConnectionError, PermissionError, ValueError, ImportError) as error:
            errors.append(error)
        yield run
    if errors:
        raise errors[0]


def report(runs: Iterable[Run], folder: Path) -> None:
    for run in runs:
        print(f"{records.state(run, folder):12} {run.name}", flush=True)


if __name__ == "__main__":
    main()
