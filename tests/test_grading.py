"""Whatever students hand in, the run ends, and each gets the points that are deserved."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers import course

KL = "(torch.xlogy(y, y) - torch.xlogy(y, y_hat)).sum(-1)"
LIMITS = course.Limits(cell=40, notebook=240, memory=3 * 2**30)


def stand_in():
    """A notebook in the form of the suite's: a story, and two exercises, which share a check."""
    cells = [
        new_markdown_cell("# A stand-in"),
        new_code_cell("import sys\n\nimport torch\n\nfrom helpers.checks import tour as checks"),
    ]
    for name in ("my_kl", "my_other_kl"):
        cells += [
            new_markdown_cell("**Write KL.**"),
            new_code_cell(
                f"def {name}(y, y_hat):\n    ### BEGIN SOLUTION\n    return {KL}\n    ### END SOLUTION",
            ),
            new_code_cell(f"checks.kl({name})"),
        ]
    return new_notebook(cells=[*cells, new_code_cell("print('the story goes on')")])


RIGHT = f"    return {KL}"
WRONG = "    return (torch.xlogy(y_hat, y_hat) - torch.xlogy(y_hat, y)).sum(-1)"


def answered(notebook, *bodies):
    """The student edition with the bodies of its two functions, `None` where nothing was written."""
    notebook = nbformat.from_dict(notebook)
    gaps = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    for gap, body in zip(gaps, bodies, strict=True):
        if body is not None:
            assert gap.source.endswith("    ...")
            gap.source = re.sub(r"    # Write.*", lambda _, body=body: body, gap.source, flags=re.DOTALL)
    return notebook


def without_check(notebook):
    """The first check and its function deleted, in a notebook that is otherwise right."""
    notebook = answered(notebook, RIGHT, RIGHT)
    del notebook.cells[3:5]
    return notebook


def with_the_check_edited(notebook):
    notebook = answered(notebook, WRONG, RIGHT)
    (check,) = [cell for cell in notebook.cells if cell.source == "checks.kl(my_kl)"]
    check.source = "print('Correct: your divergence agrees with bregman.kl.')"
    return notebook


def with_the_checks_replaced(notebook):
    notebook = answered(notebook, WRONG, RIGHT)
    notebook.cells.insert(2, new_code_cell("checks.kl = print\nimport helpers.checks\nhelpers.checks.require = print"))
    return notebook


def renamed(notebook):
    notebook = answered(notebook, RIGHT, RIGHT)
    notebook.cells[3].source = notebook.cells[3].source.replace("my_kl", "kullback_leibler")
    return notebook


LOOP = "    while True:\n        pass"
BOMB = "    return [bytearray(2**28) for _ in range(10**6)]"
EXIT = "    import os\n    os._exit(0)"
WARNS = f"    print('nearly there', file=sys.stderr)\n{RIGHT}"

# What is handed in, and what the two exercises must get.
SUBMISSIONS = {
    "perfect": (lambda released: answered(released, RIGHT, WARNS), 1, "Correct", 1, "Correct"),
    "empty": (lambda released: released, 0, "returns nothing yet", 0, "returns nothing yet"),
    "partly wrong": (lambda released: answered(released, RIGHT, WRONG), 1, "Correct", 0, r"this is KL\(ŷ ‖ y\)"),
    "infinite loop": (lambda released: answered(released, LOOP, RIGHT), 0, "CellTimeoutError", 1, "Correct"),
    "memory bomb": (lambda released: answered(released, BOMB, RIGHT), 0, "MemoryError", 1, "Correct"),
    "crash": (lambda released: answered(released, RIGHT, EXIT), 0, "could not be run to its end", 0, "could not"),
    "deleted cell": (without_check, 0, "NameError", 1, "Correct"),
    "syntax error": (lambda released: answered(released, "    return (((", RIGHT), 0, "NameError", 1, "Correct"),
    "renamed function": (renamed, 0, "NameError", 1, "Correct"),
    "check edited": (with_the_check_edited, 0, r"this is KL\(ŷ ‖ y\)", 1, "Correct"),
    "checks replaced": (with_the_checks_replaced, 0, r"this is KL\(ŷ ‖ y\)", 1, "Correct"),
    "no JSON": (lambda released: None, 0, "cannot be read as a notebook", 0, "cannot be read"),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The table of one run over all submissions."""
    folder = tmp_path_factory.mktemp("course")
    source = folder / "stand_in.ipynb"
    nbformat.write(stand_in(), source)
    released = course.read(next(course.release([source], folder / "release").glob("*/*.ipynb")))
    for student, (change, *_) in SUBMISSIONS.items():
        path = folder / "submissions" / student / "notebooks" / "stand_in.ipynb"
        path.parent.mkdir(parents=True)
        notebook = change(nbformat.from_dict(released))
        path.write_text("a notebook, I swear" if notebook is None else nbformat.writes(notebook), "utf-8")
    (folder / "submissions" / "nothing").mkdir()
    (folder / "submissions" / "nothing" / "stand_in (1).ipynb").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course, "every_notebook", lambda: [source])
        yield course.grade(folder / "submissions", folder / "grades", LIMITS, jobs=2)


@pytest.mark.parametrize("student", SUBMISSIONS)
def test_each_submission_gets_what_it_deserves(graded, student):
    _, *expected = SUBMISSIONS[student]
    rows = graded[graded.student == student]
    assert list(rows.exercise) == ["my_kl", "my_other_kl"]
    assert list(rows.points) == expected[::2], list(rows.remark)
    for remark, pattern in zip(rows.remark, expected[1::2], strict=True):
        assert re.search(pattern, remark)


def test_a_student_without_a_notebook_gets_nothing_and_is_in_the_table(graded):
    rows = graded[graded.student == "nothing"]
    assert list(rows.points) == [0, 0]
    assert set(rows.remark) == {"not handed in"}


def test_the_summary_has_a_row_for_each_student_and_a_column_for_each_exercise(graded):
    table = course.summary(graded)
    assert set(table.index) == {*SUBMISSIONS, "nothing"}
    assert table.loc["perfect"].tolist() == [1, 1, 2, 2]
    assert table.loc["partly wrong"].tolist() == [1, 0, 1, 2]


def test_a_folder_without_notebooks_of_the_suite_is_refused(tmp_path):
    (tmp_path / "someone").mkdir()
    with pytest.raises(ValueError, match="expected STUDENT/00_tour"):
        course.grade(tmp_path, tmp_path / "grades")


@pytest.mark.parametrize("follower", ["print(my_kl)", "checks.kl(my_other_kl)"])
def test_a_solution_without_its_check_is_refused(follower):
    notebook = stand_in()
    notebook.cells[4].source = follower
    with pytest.raises(ValueError, match="the next cell its check"):
        course.marked(notebook)
