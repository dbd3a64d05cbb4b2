"""One notebook as it was handed in: run in a process of its own, within limits, and given its points."""

import asyncio
import logging
import os
import sys
import time
import traceback
from collections import Counter
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import nbformat
import pandas as pd
import psutil
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.converters import Autograde
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import Execute
from traitlets.config import Config

from helpers.course.exercises import checks, grade_id, quiet, read
from helpers.files import write
from helpers.pages import ROOT, QuietOutput

# Where the system can, graded notebooks are run by copies of a process that has imported what is slow to import.
PROCESSES = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
PROCESSES.set_forkserver_preload(["nbgrader.converters", "helpers.pages", "pandas"])


LONGEST = 500  # characters of a remark


@dataclass(frozen=True)
class Limits:
    """What one notebook may use: seconds for a cell, seconds for all of it, and bytes of memory."""

    cell: int = 300
    notebook: int = 1800
    memory: int = 6 * 2**30


class QuietExecute(Execute):
    """nbgrader's execution of a notebook, which the widgets in it cannot hang, nor its printing flood.

    Of much output the last is kept, which is where a check speaks. A cell that prints without end is interrupted.
    """

    outputs_kept, characters_kept = 200, 20_000  # of a cell, and of each output
    flood = 10_000_000  # characters that no cell prints but by mistake

    def __init__(self, **arguments: object) -> None:
        super().__init__(**arguments)
        self.widget_registry["@jupyter-widgets/output"]["OutputModel"] = QuietOutput
        self.printed = Counter()

    def output(self, outs: list[NotebookNode], msg: dict, display_id: str | None, cell: int) -> NotebookNode | None:
        out = super().output(outs, msg, display_id, cell)
        if out is not None and "text" in out:
            self.printed[cell] += len(out.text)
            out.text = out.text[-self.characters_kept :]
        if self.printed[cell] > self.flood:
            self.printed[cell] = 0
            self.interruption = asyncio.ensure_future(self.km.interrupt_kernel())
        if len(outs) > self.outputs_kept:
            del outs[: self.outputs_kept // 2]
        return out


def autograde(job: Path, name: str, limits: Limits) -> None:
    """Run and grade the submission in the folder `job`, in this process and a kernel below it."""
    if sys.platform == "linux":  # elsewhere it is `watch` alone that keeps to the limit
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_DATA)  # which may be lower, and cannot be raised
        memory = limits.memory if most == resource.RLIM_INFINITY else min(limits.memory, most)
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    os.environ.setdefault("OMP_NUM_THREADS", "2")  # one notebook for every two processors
    os.environ["PYTHONPATH"] = str(ROOT)  # so that a notebook whose set-up was deleted finds `helpers` too
    config = Config()
    config.CourseDirectory.root = str(job)
    config.Execute.timeout = limits.cell
    config.Execute.extra_arguments = ["--log-level=ERROR"]  # no warnings about a kernel that only this process talks to
    # nbgrader takes any word on stderr for a failure: a warning, a progress bar, or no more than the end of a line.
    config.IgnorePattern.enabled, config.IgnorePattern.pattern = True, "(?s)."
    config.Autograde.autograde_preprocessors = [
        QuietExecute,
        *(f"nbgrader.preprocessors.{step}" for step in ("IgnorePattern", "LimitOutput", "SaveAutoGrades")),
    ]
    with (job / "log.txt").open("w") as log, redirect_stderr(log):
        logging.basicConfig(stream=log, force=True)
        folder = CourseDirectory(config=config, assignment_id=name, student_id="student")
        try:
            Autograde(coursedir=folder, config=config, log=quiet()).start()
        except Exception:  # which would be printed across the teacher's progress bar
            traceback.print_exc()
            sys.exit(1)


def watch(process: BaseProcess, limits: Limits) -> str:
    """Wait until `process` ends, or end it and all below it when it takes too much: what it did wrong, if anything."""
    deadline = time.monotonic() + limits.notebook
    wrong, seen = "", set()
    while process.is_alive() and not wrong:
        process.join(0.2)
        seen.update(running := family(process))  # what a kernel has started may outlive it, and is nobody's child then
        if time.monotonic() > deadline:
            wrong = f"stopped after {limits.notebook} s"
        elif memory(running) > limits.memory:
            wrong = f"stopped at {limits.memory / 2**30:.3g} GB of memory"
    for one in seen:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(seen, timeout=10)  # only then can their folder be moved everywhere
    process.join()
    return wrong or ("the notebook could not be run to its end" if process.exitcode else "")


def never_started(job: Path) -> bool:
    """Whether the kernel died before the first cell, which is nobody's fault: two that start at once may pick one port."""
    log = job / "log.txt"
    return log.exists() and "Kernel died before replying" in log.read_text("utf-8", errors="replace")


def family(process: BaseProcess) -> list[psutil.Process]:
    """`process` and all that it started, as far as they still run."""
    try:
        head = psutil.Process(process.pid)
        return [*head.children(recursive=True), head]
    except psutil.NoSuchProcess:
        return []


def memory(processes: list[psutil.Process]) -> int:
    """Bytes that `processes` occupy."""
    total = 0
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total


def with_checks(handed_in: NotebookNode, released: NotebookNode) -> NotebookNode:
    """`handed_in` with every mark of `released` at most once, as it was handed out, and at its end the checks that were
    deleted from it.

    Who splits or copies a cell copies its mark, and nbgrader fails on two cells with one mark. The last of them keeps
    it, since a check must come after its function. The others run as they are, like cells that never had a mark.
    """
    missing = {grade_id(cell): cell for cell in released.cells if grade_id(cell)}
    for cell in reversed(handed_in.cells):
        if (as_released := missing.pop(grade_id(cell), None)) is None:
            cell.metadata.pop("nbgrader", None)
        else:
            cell.metadata = as_released.metadata  # a tag that was added could keep a check from being run
    handed_in.cells += [cell for cell in missing.values() if cell.metadata.nbgrader.grade]
    return handed_in


def no_points(released: Path, remark: str) -> pd.DataFrame:
    """No points for any exercise of the notebook `released`, and why."""
    return pd.DataFrame({"exercise": list(checks(read(released))), "points": 0.0, "of": 1.0, "remark": remark})


def points(path: Path, released: Path, job: Path, limits: Limits) -> pd.DataFrame:
    """Points and remark for each exercise of one notebook, as a student handed it in.

    Parameters
    ----------
    path : the notebook.
    released : the same in the student edition.
    job : a folder for this notebook alone, with a copy of the gradebook in it; the notebook as it was run stays there,
        in ``graded.ipynb``, and what nbgrader says about it in ``log.txt``.
    """
    name, table = released.stem, no_points(released, "no check")
    try:
        text = nbformat.writes(with_checks(read(path), read(released)))
    except Exception as error:  # whatever a student may have saved under this name
        return table.assign(remark=f"cannot be read as a notebook: {type(error).__name__}")
    write(job / "submitted" / "student" / name / f"{name}.ipynb", text)
    for _ in range(2):
        process = PROCESSES.Process(target=autograde, args=(job, name, limits))
        process.start()
        if not (wrong := watch(process, limits)) or not never_started(job):
            break
    if wrong:
        return table.assign(remark=wrong)

    graded = job / "graded.ipynb"
    (job / "autograded" / "student" / name / f"{name}.ipynb").replace(graded)
    outcome = remarks(read(graded), limits)
    with Gradebook(f"sqlite:///{job / 'gradebook.db'}") as book:
        grades = book.find_submission_notebook(name, name, "student").grades
        score = {grade.name.removeprefix("check-"): grade.auto_score or 0.0 for grade in grades}
    for exercise, words in outcome.items():
        if not words.startswith("Correct"):  # nbgrader gives a point to a check that was silenced
            score[exercise] = 0.0
    return table.assign(points=table.exercise.map(score), remark=table.exercise.map(outcome).fillna(table.remark))


def remarks(graded: NotebookNode, limits: Limits) -> dict[str, str]:
    """{exercise: what its check said}, or, if that was no more than that there is no such function, why there is none."""
    found = {exercise: remark(check, limits) for exercise, check in checks(graded).items()}
    gaps = {grade_id(cell): cell for cell in graded.cells}
    for exercise, said in found.items():
        if said.startswith("NameError") and exercise in gaps and errors_of(gaps[exercise]):
            found[exercise] = remark(gaps[exercise], limits)
    return found


def errors_of(cell: NotebookNode) -> list[NotebookNode]:
    return [output for output in cell.outputs if output.output_type == "error"]


def remark(cell: NotebookNode, limits: Limits) -> str:
    """What a cell, such as the check of an exercise, said last, in one line; a function may have printed, too."""
    if errors := errors_of(cell):  # the last is nbgrader's own, after the interruption of a cell that took too long
        name, words = errors[-1].ename, errors[-1].evalue
        if name == "KeyboardInterrupt":
            return "stopped, since it printed without end"
        if name == "CellTimeoutError":
            return f"stopped after {limits.cell} s in one cell"
        said = words if name == "Unsolved" else f"{name}: {words}".rstrip(": ")
        return next(iter(said.splitlines()), "")[:LONGEST]
    said = "".join(output.get("text", "") for output in cell.outputs)
    line = next(reversed(said.strip().splitlines()), "no word from the check")
    _, correct, why = line.rpartition("Correct: ")  # before which a function may have printed without ending its line
    return (correct + why)[:LONGEST]
