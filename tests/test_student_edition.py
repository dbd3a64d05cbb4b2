"""What students are given runs to its end as it is, and holds no answers; in the teacher's edition every check passes."""

import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from helpers import checks, pages
from helpers.course import exercises, student
from tests.conftest import NOTEBOOKS, brief_notebook

GAP = "### BEGIN SOLUTION"


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edition") / "student"
    student.edition(folder)
    return folder


def solutions(name):
    """The solutions of a notebook, and what they return where that is more than a name; but for what its story says
    itself and asks the reader to remember."""
    text = (pages.NOTEBOOKS / f"{name}.py").read_text("utf-8")
    bodies = re.findall(r"### BEGIN SOLUTION\n(.*?)\n *### END SOLUTION", text, flags=re.DOTALL)
    returned = re.findall(r"return (.*)", "\n".join(bodies))
    story = re.sub(r"### BEGIN SOLUTION\n.*?### END SOLUTION", "", text, flags=re.DOTALL)
    answers = {body.strip() for body in bodies} | {value for value in returned if len(value) > 20}
    return {answer for answer in answers if answer.removeprefix("return ") not in story}


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_student_edition_has_a_gap_for_each_solution(edition, name):
    source = jupytext.read(pages.NOTEBOOKS / f"{name}.py")
    given = nbformat.read(edition / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(given)
    assert len(given.cells) == len(source.cells)
    gaps = exercises.checks(given)
    assert 2 <= len(gaps) == sum(GAP in cell.source for cell in source.cells)
    for before, after in zip(source.cells, given.cells, strict=True):
        mark = after.metadata.get("nbgrader", {})
        if GAP in before.source:
            head = before.source.partition(GAP)[0]
            assert after.source == head + "# Write your answer here, in place of the dots.\n    ..."
            assert mark.solution and not after.outputs
        elif after.cell_type == "code":
            assert after.source == before.source
            assert not (mark and after.outputs)


def test_an_edition_that_is_interrupted_leaves_the_one_before(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    before = tmp_path / "student" / "README.md"
    before.parent.mkdir()
    before.write_text("as it was")
    monkeypatch.setattr(exercises, "release", interrupted)
    with pytest.raises(KeyboardInterrupt):
        student.edition(before.parent)
    assert before.read_text() == "as it was"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_nothing_in_the_student_edition_gives_an_answer_away(edition, name):
    told = [path for path in [edition / "notebooks", edition / "helpers" / "checks"] for path in path.rglob("*.*")]
    assert not [path for path in told if path.name == f"{name}.py"]
    text = "\n".join(path.read_text("utf-8") for path in told if path.suffix in {".ipynb", ".py", ".md"})
    assert "HIDDEN TESTS" not in text and GAP not in text
    plain = text.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
    assert solutions(name) and not [answer for answer in solutions(name) if answer in plain]


def test_a_solution_that_is_given_away_would_be_noticed():
    assert "(torch.xlogy(y, y) - torch.xlogy(y, y_hat)).sum(-1)" in solutions("00_tour")


def test_the_student_edition_holds_what_it_needs_and_no_tests(edition):
    there = {path.name for path in edition.iterdir()}
    assert there == {*student.HANDED_OUT, "pyproject.toml", "README.md", "notebooks"}
    assert not (edition / "data" / "cache").exists()
    assert {path.name for path in (edition / "notebooks").iterdir()} == {
        "README.md",
        *(f"{name}.ipynb" for name in NOTEBOOKS),
    }
    assert not re.search("(?m)^formats", (edition / "pyproject.toml").read_text("utf-8"))  # jupytext pairs nothing
    assert "colab.research" not in "".join(path.read_text("utf-8") for path in edition.glob("notebooks/*.ipynb"))


def test_the_syllabus_of_the_student_edition_leaves_out_what_is_for_teachers(edition):
    given = (edition / "notebooks" / "README.md").read_text("utf-8")
    before, _, rest = SYLLABUS.partition("## For teachers\n")
    assert rest and given == before + rest[rest.index("## Cite") :]
    assert "solutions" not in given and not re.search(r"`make |`build/", given)


def run(path):
    """The notebook run in its folder; an error in any cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}})
    client.widget_registry["@jupyter-widgets/output"]["OutputModel"] = pages.QuietOutput
    client.execute()
    return notebook


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs if output.get("name") == "stdout")


@brief_notebook
def test_an_untouched_student_edition_runs_to_its_end(edition, name):
    notebook = run(edition / "notebooks" / f"{name}.ipynb")
    for exercise, check in exercises.checks(notebook).items():
        assert printed(check).startswith("Not yet: "), exercise
    errors = [output for cell in code(notebook) for output in cell.outputs if output.output_type == "error"]
    assert not errors
    shown = [output.text for cell in code(notebook) for output in cell.outputs if output.get("name") == "stderr"]
    assert not any("Error" in text for text in shown)  # what goes wrong inside a widget is only printed


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_story_needs_no_answer(edition, name):
    given = nbformat.read(edition / "notebooks" / f"{name}.ipynb", as_version=4)
    story = [cell.source for cell in code(given) if "nbgrader" not in cell.metadata]
    answers = {
        cell.metadata.nbgrader.grade_id for cell in given.cells if cell.metadata.get("nbgrader", {}).get("solution")
    }
    assert not [cell for cell in story if answers & set(re.findall(r"\w+", cell))]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_in_the_teachers_edition_every_check_passes(name):
    stored = nbformat.read(pages.NOTEBOOKS / f"{name}.ipynb", as_version=4)
    checked = [cell for cell in code(stored) if re.match(r"checks\.\w+\(my_", cell.source)]
    assert len(checked) == sum(GAP in cell.source for cell in stored.cells)
    assert all(printed(cell).startswith("Correct: ") for cell in checked)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_check_shows_what_is_missing_and_lets_the_page_go_on(name):
    text = (pages.NOTEBOOKS / f"{name}.py").read_text("utf-8")
    (topic,) = re.findall(r"from helpers\.checks import (\w+) as checks", text)
    module = __import__(f"helpers.checks.{topic}", fromlist=["checks"])
    called = set(re.findall(r"(?m)^checks\.(\w+)\(my_", text))
    assert called
    assert not [check for check in called if not hasattr(getattr(module, check), "__wrapped__")], "decorate: @exercise"


@checks.exercise
def never(answer):
    checks.require(False, f"not {answer}.")


def test_a_check_raises_outside_notebooks():
    with pytest.raises(checks.Unsolved, match="not this"):
        never("this")


def test_a_check_prints_in_notebooks_and_raises_while_nbgrader_grades(monkeypatch, capsys):
    monkeypatch.setattr(checks, "get_ipython", object)
    never("this")
    assert capsys.readouterr().out == "Not yet: not this.\n"
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(checks.Unsolved, match="not this"):
        never("this")


def test_helpers_of_the_student_edition_import_from_its_folder(edition):
    command = "import helpers.checks.tour as t; print(t.__file__)"
    result = subprocess.run([sys.executable, "-c", command], cwd=edition, capture_output=True, text=True, timeout=120)
    assert Path(result.stdout.strip()).is_relative_to(edition), result.stderr


SYLLABUS = (pages.NOTEBOOKS / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_syllabus_says_of_each_notebook_how_long_it_takes_and_when_it_is_read(name):
    (row,) = re.findall(rf"(?m)^\| \[{name}\]\({name}\.ipynb\) \|(.*)\|$", SYLLABUS)
    after, *minutes, trained = [cell.strip() for cell in row.split("|")]
    assert all(1 <= int(number) <= 60 for number in minutes) and len(minutes) == 3
    assert all(other < name[:2] for other in after.split())
    text = (pages.NOTEBOOKS / f"{name}.py").read_text("utf-8")
    assert len(trained.split(" · ")) == text.count(GAP)  # something for each exercise
    assert name in SYLLABUS.partition("## Two weeks")[2].partition("## For teachers")[0]


def test_the_syllabus_links_to_what_is_there_and_names_this_version():
    targets = re.findall(r"\]\((?!https?://)([^)]+)\)", SYLLABUS)
    assert targets and not [target for target in targets if not (pages.NOTEBOOKS / target).exists()]
    assert pages.linked(SYLLABUS) == SYLLABUS and pages.PROJECT["urls"]["Repository"] in SYLLABUS
    assert f"{{{pages.PROJECT['version']}}}" in SYLLABUS
