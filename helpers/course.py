"""The suite as coursework: ``python -m helpers.course student | grade FOLDER``.

nbgrader makes the student edition and grades what comes back. What is added to it: the marks of an exercise, so that the
notebooks need not carry them (the cell with a solution in it is the gap, the next one its check); and for each notebook
that is handed in a process of its own, so that one that hangs or crashes costs its author points, and nobody else.
Needs the extras ``notebooks`` and ``course``.
"""

import argparse
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise, product
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import nbformat
import pandas as pd
import psutil
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.converters import Autograde, GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import Execute
from tqdm.auto import tqdm
from traitlets.config import Config

from helpers.pages import BUILD, NOTEBOOKS, ROOT, QuietOutput, write

HANDED_OUT = ["LICENSE", "environment.yml", "pyproject.toml", "requirements.lock", "helpers", "data"]
START = """# Dropout distillation: exercises

The notebooks are in `notebooks/`, and `notebooks/README.md` says in which order to read them. Each has exercises: write
your answer where a cell says so, run the next cell, and it tells you what is still wrong. A page runs to its end
whatever you have answered. Hand in the notebooks, by the names that they have.

With conda or mamba:

    conda env create -f environment.yml
    conda activate dropout-distillation
    jupyter lab

With Python 3.11 or newer (on Windows write `py` for `python3`, and `.venv\\Scripts\\` for `.venv/bin/`; on a Mac with an
Intel processor, for which there is no recent PyTorch, use Colab):

    python3 -m venv .venv
    .venv/bin/python -m pip install -r requirements.lock
    .venv/bin/python -m jupyter lab

In Google Colab: upload a notebook; its first cell fetches what is missing.
"""

# The graded check is run on modules as they are on disk, whatever the notebook has put in their place. Students do not
# see these lines, which nbgrader takes out of their edition and puts back when it grades.
GENUINE = """### BEGIN HIDDEN TESTS
import importlib
import helpers.checks
from helpers.checks import {topic} as checks
for module in (helpers.checks, checks):
    importlib.reload(module)
### END HIDDEN TESTS
"""

# Where the system can, graded notebooks are run by copies of a process that has imported what is slow to import.
PROCESSES = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
PROCESSES.set_forkserver_preload(["nbgrader.converters", "helpers.pages", "pandas"])


# ---- Exercises ----------------------------------------------------------------------------------------------------


def marked(notebook: NotebookNode) -> NotebookNode:
    """A copy of `notebook` with nbgrader's marks on its exercises, whose outputs are cleared.

    Raises
    ------
    ValueError : if a solution is no function, or is not followed by its check.
    """
    notebook = nbformat.from_dict(notebook)
    notebook.metadata.pop("jupytext", None)  # the student edition is not paired with a .py
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    topic = re.search(r"(?m)^from helpers\.checks import (\w+) as checks$", "\n".join(cell.source for cell in code))
    for gap, check in pairwise(code):
        if "### BEGIN SOLUTION" not in gap.source:
            continue
        name = re.match(r"def (\w+)", gap.source)
        if not name or not topic or not re.fullmatch(rf"checks\.\w+\({name[1]}\)", check.source):
            raise ValueError(f"a solution must be a function, and the next cell its check; here it is:\n{gap.source}")
        check.source = GENUINE.format(topic=topic[1]) + check.source
        common = {"schema_version": 3, "task": False}
        gap.metadata["nbgrader"] = {**common, "grade_id": name[1], "solution": True, "grade": False, "locked": False}
        check.metadata["nbgrader"] = {
            **common,
            "grade_id": f"check-{name[1]}",
            "solution": False,
            "grade": True,
            "locked": True,
            "points": 1,
        }
        for cell in (gap, check):
            cell.outputs, cell.execution_count = [], None
    for cell in notebook.cells:  # the badge opens the edition with solutions
        cell.source = re.sub(r"\[!\[Open in Colab\][^\n]*\n*", "", cell.source)
    return notebook


def checks(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """{name of the exercise: its check} in a notebook that has nbgrader's marks."""
    marks = [(cell.metadata.get("nbgrader", {}), cell) for cell in notebook.cells]
    return {mark["grade_id"].removeprefix("check-"): cell for mark, cell in marks if mark.get("grade")}


def grade_id(cell: NotebookNode) -> str | None:
    """The name in nbgrader's mark on `cell`, if it has one."""
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def release(notebooks: Iterable[Path], course: Path) -> Path:
    """Write each of `notebooks` without its solutions, as ``NAME/NAME.ipynb`` in the folder that is returned.

    The folder `course` then holds nbgrader's gradebook, which knows the cells as they must be.
    """
    # nbgrader looks for Alembic, which is beside this Python, on the path.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    config = Config()
    config.CourseDirectory.root = str(course)
    config.ClearSolutions.code_stub = {"python": "# Write your answer here, in place of the dots.\n..."}
    # All but ClearOutput: the story keeps its pictures.
    config.GenerateAssignment.preprocessors = [
        f"nbgrader.preprocessors.{name}"
        for name in [
            *("LockCells", "ClearSolutions", "CheckCellMetadata", "ComputeChecksums", "SaveCells"),
            *("ClearHiddenTests", "ComputeChecksums", "CheckCellMetadata"),
        ]
    ]
    for path in notebooks:
        write(course / "source" / path.stem / path.name, nbformat.writes(marked(read(path))))
        folder = CourseDirectory(config=config, assignment_id=path.stem)
        GenerateAssignment(coursedir=folder, config=config, log=quiet()).start()
    return course / "release"


def quiet() -> logging.Logger:
    """A log for nbgrader that tells of errors only."""
    log = logging.getLogger("nbgrader")
    log.setLevel(logging.ERROR)
    return log


def every_notebook() -> list[Path]:
    return sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))


# ---- Student edition ----------------------------------------------------------------------------------------------


def student(folder: Path = BUILD / "student") -> None:
    """Write the edition for students, which works by itself: notebooks with gaps for answers, helpers and data."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in HANDED_OUT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("cache", "__pycache__", "*.tmp"))
        else:
            write(folder / name, (ROOT / name).read_bytes())
    unpaired = re.sub(r"(?m)^formats = .*\n", "", (ROOT / "pyproject.toml").read_text("utf-8"))
    write(folder / "pyproject.toml", unpaired)
    write(folder / "README.md", START)
    syllabus = (NOTEBOOKS / "README.md").read_text("utf-8")  # teachers are told in it where the solutions are
    write(folder / "notebooks" / "README.md", re.sub(r"(?ms)^## For teachers$.*?(?=^## )", "", syllabus))
    with tempfile.TemporaryDirectory() as course:
        for path in release(every_notebook(), Path(course)).glob("*/*.ipynb"):
            write(folder / "notebooks" / path.name, path.read_bytes())


# ---- Grading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """What one notebook may use: seconds for a cell, seconds for all of it, and bytes of memory."""

    cell: int = 300
    notebook: int = 1800
    memory: int = 6 * 2**30


class QuietExecute(Execute):
    """nbgrader's execution of a notebook, which the widgets in it cannot hang."""

    def __init__(self, **arguments: object) -> None:
        super().__init__(**arguments)
        self.widget_registry["@jupyter-widgets/output"]["OutputModel"] = QuietOutput


def autograde(job: Path, name: str, limits: Limits) -> None:
    """Run and grade the submission in the folder `job`, in this process and a kernel below it."""
    if sys.platform == "linux":  # elsewhere it is `watch` alone that keeps to the limit
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
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
        Autograde(coursedir=folder, config=config, log=quiet()).start()


def watch(process: BaseProcess, limits: Limits) -> str:
    """Wait until `process` ends, or end it and all below it when it takes too much: what it did wrong, if anything."""
    deadline = time.monotonic() + limits.notebook
    wrong = ""
    while process.is_alive() and not wrong:
        process.join(0.2)
        if time.monotonic() > deadline:
            wrong = f"stopped after {limits.notebook} s"
        elif memory(process) > limits.memory:
            wrong = f"stopped at {limits.memory / 2**30:.0f} GB of memory"
    for kernel in family(process):
        with suppress(psutil.NoSuchProcess):
            kernel.kill()
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


def memory(process: BaseProcess) -> int:
    """Bytes that `process` and all that it started occupy."""
    total = 0
    for one in family(process):
        with suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total


def with_checks(handed_in: NotebookNode, released: NotebookNode) -> NotebookNode:
    """`handed_in` with every mark of `released` at most once, and at its end the checks that were deleted from it.

    Who splits or copies a cell copies its mark, and nbgrader fails on two cells with one mark. The last of them keeps
    it, since a check must come after its function. The others run as they are, like cells that never had a mark.
    """
    missing = {grade_id(cell): cell for cell in released.cells if grade_id(cell)}
    for cell in reversed(handed_in.cells):
        if missing.pop(grade_id(cell), None) is None:
            cell.metadata.pop("nbgrader", None)
    handed_in.cells += [cell for cell in missing.values() if cell.metadata.nbgrader.grade]
    return handed_in


def no_points(released: Path, remark: str) -> pd.DataFrame:
    """No points for any exercise of the notebook `released`, and why."""
    return pd.DataFrame({"exercise": list(checks(read(released))), "points": 0.0, "of": 1.0, "remark": remark})


def points(path: Path | None, released: Path, job: Path, limits: Limits) -> pd.DataFrame:
    """Points and remark for each exercise of one notebook, as a student handed it in.

    Parameters
    ----------
    path : the notebook, or None if it was not handed in.
    released : the same in the student edition.
    job : a folder for this notebook alone, with a copy of the gradebook in it; the notebook as it was run stays there,
        in ``graded.ipynb``, and what nbgrader says about it in ``log.txt``.
    """
    name, table = released.stem, no_points(released, "not handed in")
    if path is None:
        return table
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
    outcome = {exercise: remark(check) for exercise, check in checks(read(graded)).items()}
    with Gradebook(f"sqlite:///{job / 'gradebook.db'}") as book:
        grades = book.find_submission_notebook(name, name, "student").grades
        score = {grade.name.removeprefix("check-"): grade.auto_score or 0.0 for grade in grades}
    return table.assign(points=table.exercise.map(score), remark=table.exercise.map(outcome).fillna("no check"))


def remark(check: NotebookNode) -> str:
    """What the check of an exercise said, in one line."""
    errors = [output for output in check.outputs if output.output_type == "error"]
    if errors:  # the last is nbgrader's own, after the interruption of a cell that took too long
        name, words = errors[-1].ename, errors[-1].evalue
        return words if name == "Unsolved" else f"{name}: {words}".rstrip(": ")
    return "".join(output.get("text", "") for output in check.outputs).strip()


def has_solutions(path: Path) -> bool:
    with suppress(OSError):  # `points` says what is wrong with a notebook that cannot be read
        return b"### BEGIN SOLUTION" in path.read_bytes()
    return False


def folders(submissions: Path) -> list[Path]:
    """The students' folders in `submissions`; what lies beside them is printed.

    Names with a dot or two underscores in front are not a student's: .git, .DS_Store, __MACOSX.
    """
    paths = [path for path in sorted(submissions.iterdir()) if not path.name.startswith((".", "__"))]
    for path in paths:
        if not path.is_dir():
            print(f"{path.name} is in no student's folder, and is not graded")
    return [path for path in paths if path.is_dir()]


def choose(one: Path, known: Iterable[str]) -> dict[str, Path]:
    """{name: notebook} of those to grade in the folder `one` of a student; what is left out is printed.

    Of several notebooks of one name it is the one in the fewest folders.
    """
    # In Colab the set-up cell fetches the suite, with its solutions, to beside the notebook. The student edition may
    # have been unpacked under the same name, but it has no .py halves.
    clones = [path for path in sorted(one.rglob("dropout-distillation")) if any(path.glob("notebooks/[0-9]*.py"))]
    for clone in clones:
        print(f"{one.name}: {clone.relative_to(one)} is a copy of the suite with its solutions, and is not graded")
    files = [path for path in one.rglob("[!.]*") if path.is_file()]
    files = [path for path in files if not any(path.is_relative_to(clone) for clone in clones)]
    paths = [path for path in files if path.suffix == ".ipynb"]
    if files and not paths:
        print(f"{one.name}: no notebook is in it, only {', '.join(sorted(path.name for path in one.iterdir()))}")
    chosen: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):
        name, where = path.stem, f"{one.name}: {path.relative_to(one)}"
        if name not in known:
            print(f"{where} has the name of no notebook of the suite, and is not graded")
        elif has_solutions(path):
            print(f"{where} has the solutions in it (### BEGIN SOLUTION), and is not graded")
        elif name in chosen:
            print(f"{where} is not graded: there is {chosen[name].relative_to(one)} too, and that is")
        else:
            chosen[name] = path
    return chosen


def place(submissions: Path, folder: Path = BUILD / "grades") -> Path:
    """Where in `folder` the grades of `submissions` are: apart from those of other folders, even of the same name."""
    submissions = submissions.resolve()
    return folder / f"{submissions.name}-{sha256(os.fsencode(submissions)).hexdigest()[:6]}"


def put(new: Path, target: Path) -> None:
    """Move the folder `new` to `target`, and only then remove what was there."""
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.replace(old)
    new.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def grade(
    submissions: Path, folder: Path = BUILD / "grades", limits: Limits = Limits(), jobs: int | None = None
) -> pd.DataFrame:
    """Grade ``submissions/STUDENT/NN_name.ipynb``; a student's notebooks may be in folders below.

    Parameters
    ----------
    folder : where ``place(submissions, folder)`` is made, or made anew when all is graded: each notebook as it was run,
        and ``grades.csv``. The grades of other submissions stay.
    limits : what one notebook may use.
    jobs : how many notebooks run at once (default: one for every two processors).

    Returns
    -------
    A row for each student and exercise: student, notebook, exercise, points, of, remark. Of the notebooks of the suite
    it has those that at least one student has handed in.

    Raises
    ------
    ValueError : if nobody has handed in a notebook of the suite, or `submissions` and `folder` are one in the other.
    """
    here, there = submissions.resolve(), folder.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise ValueError(f"{submissions} and {folder}, where grades go, are one in the other: move the submissions")
    known = {path.stem: path for path in every_notebook()}
    chosen = {one.name: choose(one, known) for one in folders(submissions)}
    names = sorted(set().union(*chosen.values()))
    if not names:
        raise ValueError(f"no notebook of the suite is in a folder of {submissions}: expected STUDENT/00_tour.ipynb")

    folder.mkdir(parents=True, exist_ok=True)
    # In `folder`, above which the set-up cells look for the suite before they fetch it.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".running-", ignore_cleanup_errors=True) as running:
        course, new = Path(running, "course"), Path(running, "new")
        released = release([known[name] for name in names], course)

        def one_notebook(number: int, student: str, name: str) -> pd.DataFrame:
            job = Path(running, str(number))  # nbgrader takes the brackets in a student's name for a pattern
            job.mkdir()
            shutil.copy(course / "gradebook.db", job)
            as_released = released / name / f"{name}.ipynb"
            try:
                table = points(chosen[student].get(name), as_released, job, limits)
            except Exception as error:  # whatever is odd about this notebook, the others' points are kept
                table = no_points(as_released, f"could not be graded: {type(error).__name__}")
            for leftover in ("submitted", "autograded"):
                shutil.rmtree(job / leftover, ignore_errors=True)
            (new / student).mkdir(parents=True, exist_ok=True)
            job.replace(new / student / name)
            return table.assign(student=student, notebook=name)

        work = [(number, *pair) for number, pair in enumerate(product(chosen, names))]
        with ThreadPoolExecutor(jobs or max(1, (os.cpu_count() or 1) // 2)) as pool:
            tables = list(tqdm(pool.map(one_notebook, *zip(*work, strict=True)), total=len(work), leave=False))
        table = pd.concat(tables)[["student", "notebook", "exercise", "points", "of", "remark"]]
        write(new / "grades.csv", table.to_csv(index=False))
        put(new, place(submissions, folder))
    return table


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each student: points for each exercise, and their sum."""
    wide = table.pivot(index="student", columns=["notebook", "exercise"], values="points")
    sums = table.groupby("student")[["points", "of"]].sum()
    wide[("all", "points")], wide[("all", "of")] = sums["points"], sums["of"]
    return wide


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m helpers.course", description="The suite as coursework.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("student", help=student.__doc__)
    grading = commands.add_parser("grade", help="Grade the notebooks that students have handed in.")
    grading.add_argument("submissions", type=Path, metavar="FOLDER", help="with FOLDER/STUDENT/NN_name.ipynb in it")
    match (arguments := parser.parse_args()).command:
        case "student":
            student()
            print(f"The student edition: {BUILD / 'student'}")
        case "grade":
            if not arguments.submissions.is_dir():
                parser.error(f"{arguments.submissions} is no folder")
            try:
                table = grade(arguments.submissions)
            except ValueError as error:
                parser.error(str(error))
            print(summary(table).to_string())
            print(f"\nWhy, and each notebook as it was run: {place(arguments.submissions)} (grades.csv)")


if __name__ == "__main__":
    main()
