"""All that students have handed in, graded, and the table of their points."""

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from itertools import product
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from helpers.course import autograding, exercises
from helpers.course.autograding import Limits
from helpers.course.submissions import choose, folders, readable
from helpers.files import put, write
from helpers.pages import BUILD

LIMITS = Limits()


def place(submissions: Path, folder: Path = BUILD / "grades") -> Path:
    """Where in `folder` the grades of `submissions` are: apart from those of other folders, even of the same name."""
    submissions = submissions.resolve()
    return folder / f"{submissions.name}-{sha256(os.fsencode(submissions)).hexdigest()[:6]}"


def grade(
    submissions: Path, folder: Path = BUILD / "grades", limits: Limits = LIMITS, jobs: int | None = None
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
    ValueError : if nobody has handed in a notebook of the suite, `submissions` and `folder` are one in the other, or
        `folder` has a sign in its path that nbgrader takes for a pattern.
    """
    here, there = submissions.resolve(), folder.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise ValueError(f"{submissions} and {folder}, where grades go, are one in the other: move the submissions")
    if odd := [sign for sign in "[]%" if sign in str(there)]:
        raise ValueError(f"nbgrader cannot work in {there}, which has {' and '.join(odd)} in it: move the suite")
    known = {path.stem: path for path in exercises.every_notebook()}
    chosen = {readable(one.name): choose(one, known) for one in folders(submissions)}
    names = sorted(set().union(*(choice.notebooks for choice in chosen.values())))
    if not names:
        raise ValueError(f"no notebook of the suite is in a folder of {submissions}: expected STUDENT/00_tour.ipynb")

    folder.mkdir(parents=True, exist_ok=True)
    # In `folder`, above which the set-up cells look for the suite before they fetch it.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".running-", ignore_cleanup_errors=True) as running:
        course, new = Path(running, "course"), Path(running, "new")
        released = exercises.release([known[name] for name in names], course)

        def one_notebook(number: int, student: str, name: str) -> pd.DataFrame:
            job = Path(running, str(number))  # nbgrader takes the brackets in a student's name for a pattern
            as_released = released / name / f"{name}.ipynb"
            try:
                job.mkdir()
                shutil.copy(course / "gradebook.db", job)
                if path := chosen[student].notebooks.get(name):
                    table = autograding.points(path, as_released, job, limits)
                else:
                    table = autograding.no_points(as_released, chosen[student].missing(name))
            except Exception as error:  # whatever is odd about this notebook, the others' points are kept
                table = autograding.no_points(as_released, f"could not be graded: {type(error).__name__}")
            for leftover in ("submitted", "autograded"):
                shutil.rmtree(job / leftover, ignore_errors=True)
            with suppress(OSError):  # the points count, even if the notebook as it was run cannot be kept
                (new / student).mkdir(parents=True, exist_ok=True)
                job.replace(new / student / name)
            return table.assign(student=student, notebook=name)

        work = [(number, *pair) for number, pair in enumerate(product(chosen, names))]
        with ThreadPoolExecutor(jobs or max(1, (os.cpu_count() or 1) // 2)) as pool:
            tables = list(tqdm(pool.map(one_notebook, *zip(*work, strict=True)), total=len(work), leave=False))
        table = pd.concat(tables)[["student", "notebook", "exercise", "points", "of", "remark"]]
        write(new / "grades.csv", "\ufeff" + table.to_csv(index=False))  # the mark by which Excel knows UTF-8
        put(new, place(submissions, folder))
    return table


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each student: points for each exercise, and their sum."""
    wide = table.pivot(index="student", columns=["notebook", "exercise"], values="points")
    sums = table.groupby("student")[["points", "of"]].sum()
    wide[("all", "points")], wide[("all", "of")] = sums["points"], sums["of"]
    return wide
