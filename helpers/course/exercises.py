"""Exercises as nbgrader knows them: the gap, its check, and a notebook without its solutions."""

import logging
import os
import re
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.converters import GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config

from helpers.files import write
from helpers.pages import NOTEBOOKS

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
    here, path = str(Path(sys.executable).parent), os.environ.get("PATH", "")
    if here not in path.split(os.pathsep):
        os.environ["PATH"] = f"{here}{os.pathsep}{path}"
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
