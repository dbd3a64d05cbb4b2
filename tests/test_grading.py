"""Whatever students hand in, the run ends, and each gets the points that are deserved."""

import io
import os
import re
import shutil
import subprocess
import sys
import time

import nbformat
import pandas as pd
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers import pages, printing
from helpers.course import __main__ as command
from helpers.course import autograding, exercises, grading, submissions

KL = "(torch.xlogy(y, y) - torch.xlogy(y, y_hat)).sum(-1)"
LIMITS = autograding.Limits(cell=25, notebook=240, memory=3 * 2**30)


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
    """The first check and its function deleted; the other is no Python."""
    notebook = answered(notebook, RIGHT, "    return (((")
    del notebook.cells[3:5]
    return notebook


def with_a_check_edited_and_one_skipped(notebook):
    notebook = answered(notebook, WRONG, WRONG)
    edited, skipped = (notebook.cells[index_of(notebook, f"check-{name}")] for name in ("my_kl", "my_other_kl"))
    edited.source = "print('Correct: your divergence agrees with bregman.kl.')"
    skipped.metadata["tags"] = ["skip-execution"]
    return notebook


def with_the_checks_replaced(notebook):
    notebook = answered(notebook, WRONG, RIGHT)
    notebook.cells.insert(2, new_code_cell("checks.kl = print\nimport helpers.checks\nhelpers.checks.require = print"))
    return notebook


def with_a_first_cell(notebook, source):
    """Wrong in both places, and with a cell at its top that is to hide it."""
    notebook = answered(notebook, WRONG, None)
    notebook.cells.insert(1, new_code_cell(source))
    return notebook


def renamed(notebook):
    notebook = answered(notebook, RIGHT, RIGHT)
    notebook.cells[3].source = notebook.cells[3].source.replace("my_kl", "kullback_leibler")
    return notebook


def index_of(notebook, name):
    """Where the cell with the mark `name` is."""
    (index,) = [index for index, cell in enumerate(notebook.cells) if exercises.grade_id(cell) == name]
    return index


def copied(cell, source):
    """What JupyterLab makes of `cell` when it is copied or split: another cell with the same mark."""
    return new_code_cell(source, metadata=cell.metadata)


def split(notebook):
    """A trial at the bottom of one gap and one at the top of the other, each made a cell of its own."""
    notebook = answered(notebook, RIGHT, RIGHT)
    for name, below in (("my_kl", 1), ("my_other_kl", 0)):
        index = index_of(notebook, name)
        notebook.cells.insert(index + below, copied(notebook.cells[index], "print('a trial')"))
    return notebook


def with_gaps_copied(notebook):
    """A gap tried out again at the end, and one from another notebook of the suite."""
    notebook = answered(notebook, RIGHT, WRONG)
    gap = notebook.cells[index_of(notebook, "my_kl")]
    notebook.cells.append(copied(gap, gap.source))
    gap = copied(gap, "def my_mask():\n    return 1")
    gap.metadata.nbgrader.grade_id = "my_mask"
    notebook.cells.append(gap)
    return notebook


def with_checks_copied(notebook):
    """One check also above its function, the other also at the end."""
    notebook = answered(notebook, RIGHT, ENDS_A_LINE)
    for name, where in (("check-my_kl", 2), ("check-my_other_kl", len(notebook.cells) + 1)):
        check = notebook.cells[index_of(notebook, name)]
        notebook.cells.insert(where, copied(check, check.source))
    return notebook


def with_half_an_emoji(notebook):
    notebook = answered(notebook, RIGHT, RIGHT)
    notebook.cells[0].source += " \ud83d"
    return notebook


NO_GRADING = "import os\nos.environ.pop('NBGRADER_EXECUTION', None)"
NO_CELLS = "get_ipython().input_transformers_cleanup.append(lambda lines: ['pass\\n'])"
FLOOD = "    while True:\n        print('x' * 1000)"
TALKS = f"    print('y' * 10**6)\n    print(y.shape)\n{RIGHT}"
LOOP = "    while True:\n        pass"
BOMB = "    return [bytearray(2**28) for _ in range(10**6)]"
EXIT = "    import os\n    os._exit(0)"
ENDS_A_LINE = f"    print(file=sys.stderr)\n{RIGHT}"
DOTS = f"    print('..', end='')\n{RIGHT}"
RETURNS = f"    print('\\rstep', end='')\n{RIGHT}"
WARNS = f"    print('nearly there', file=sys.stderr)\n{RIGHT}"

# What is handed in, and what the two exercises must get.
SUBMISSIONS = {
    "perfect": (lambda released: answered(released, RIGHT, WARNS), 1, "Correct", 1, "Correct"),
    "empty": (lambda released: released, 0, "returns nothing yet", 0, "returns nothing yet"),
    "infinite loop": (lambda released: answered(released, LOOP, RIGHT), 0, "stopped after .* s in one", 1, "Correct"),
    "memory bomb": (lambda released: answered(released, BOMB, RIGHT), 0, "MemoryError", 1, "Correct"),
    "crash": (lambda released: answered(released, RIGHT, EXIT), 0, "could not be run to its end", 0, "could not"),
    "deleted cell, syntax error": (without_check, 0, "NameError", 0, "SyntaxError"),
    "renamed function": (renamed, 0, "NameError", 1, "Correct"),
    "checks edited": (with_a_check_edited_and_one_skipped, 0, r"this is KL\(ŷ ‖ y\)", 0, r"this is KL\(ŷ ‖ y\)"),
    "checks replaced": (with_the_checks_replaced, 0, r"this is KL\(ŷ ‖ y\)", 1, "Correct"),
    "no grading": (lambda released: with_a_first_cell(released, NO_GRADING), 0, "Not yet: this is", 0, "Not yet"),
    "no cells": (lambda released: with_a_first_cell(released, NO_CELLS), 0, "no word", 0, "no word"),
    "flood": (lambda released: answered(released, FLOOD, TALKS), 0, "printed without end", 1, "^Correct: [^\n]*$"),
    "gap copied": (with_gaps_copied, 1, "Correct", 0, r"this is KL\(ŷ ‖ y\)"),
    "checks copied": (with_checks_copied, 1, "Correct", 1, "Correct"),
    "no ends of lines": (lambda released: answered(released, DOTS, RETURNS), 1, "^Correct: ", 1, "^Correct: "),
    "half an emoji": (with_half_an_emoji, 0, "could not be graded: UnicodeEncodeError", 0, "could not be graded"),
    "Smith [Bob]": (split, 1, "Correct", 1, "Correct"),
    "no JSON": (lambda released: None, 0, "cannot be read as a notebook", 0, "cannot be read"),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The table of one run over all submissions."""
    folder = tmp_path_factory.mktemp("course")
    source = folder / "stand_in.ipynb"
    nbformat.write(stand_in(), source)
    released = exercises.read(next(exercises.release([source], folder / "release").glob("*/*.ipynb")))
    for student, (change, *_) in SUBMISSIONS.items():
        path = folder / "submissions" / student / "notebooks" / "stand_in.ipynb"
        path.parent.mkdir(parents=True)
        notebook = change(nbformat.from_dict(released))
        text = "a notebook, I swear" if notebook is None else nbformat.writes(notebook, ensure_ascii=True)
        path.write_text(text, "utf-8")
    (folder / "submissions" / "nothing").mkdir()
    (folder / "submissions" / "nothing" / "homework.ipynb").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exercises, "every_notebook", lambda: [source])
        return grading.grade(folder / "submissions", folder / "grades", LIMITS, jobs=2)


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
    expected = "not handed in; homework.ipynb has the name of no notebook of the suite, and is not graded"
    assert set(rows.remark) == {expected}


def test_the_summary_has_a_row_for_each_student_and_a_column_for_each_exercise(graded):
    table = grading.summary(graded)
    assert set(table.index) == {*SUBMISSIONS, "nothing"}
    assert table.loc["perfect"].tolist() == [1, 1, 2, 2]
    assert table.loc["gap copied"].tolist() == [1, 0, 1, 2]


def test_a_folder_without_notebooks_of_the_suite_is_refused(tmp_path):
    (tmp_path / "submissions" / "someone").mkdir(parents=True)
    with pytest.raises(ValueError, match="expected STUDENT/00_tour"):
        grading.grade(tmp_path / "submissions", tmp_path / "grades")


def test_why_nothing_can_be_graded_is_said_in_a_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "submissions" / "someone").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["course", "grade", str(tmp_path / "submissions")])
    with pytest.raises(SystemExit):
        command.main()
    assert "expected STUDENT/00_tour" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("follower", ["print(my_kl)", "checks.kl(my_other_kl)"])
def test_a_solution_without_its_check_is_refused(follower):
    notebook = stand_in()
    notebook.cells[4].source = follower
    with pytest.raises(ValueError, match="the next cell its check"):
        exercises.marked(notebook)


KNOWN = {"00_tour", "01_dropout"}


def lay_out(folder, contents):
    """The notebooks {path without suffix: text} in `folder`."""
    for name, text in contents.items():
        path = folder / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def chosen(one):
    return {name: path.relative_to(one).as_posix() for name, path in submissions.choose(one, KNOWN).notebooks.items()}


def test_of_several_notebooks_of_one_name_the_one_in_the_fewest_folders_is_graded(tmp_path, capsys):
    paths = {path: "{}" for path in ("z/00_tour", "a/b/00_tour", "z/01_dropout", "y/01_dropout", "a/02_other")}
    lay_out(tmp_path / "Ada", paths)
    assert chosen(tmp_path / "Ada") == {"00_tour": "z/00_tour.ipynb", "01_dropout": "y/01_dropout.ipynb"}
    lines = capsys.readouterr().out.splitlines()
    assert "Ada: a/b/00_tour.ipynb is not graded: there is z/00_tour.ipynb too, and that is" in lines
    assert "Ada: z/01_dropout.ipynb is not graded: there is y/01_dropout.ipynb too, and that is" in lines
    assert "Ada: a/02_other.ipynb has the name of no notebook of the suite, and is not graded" in lines
    assert len(lines) == 3


def test_a_name_that_was_added_to_counts_where_there_is_no_other(tmp_path, capsys):
    paths = ("Kopie von 00_tour", "00_tour (1)", "a/b/01_dropout", "01_dropout (1)", "tour")
    lay_out(tmp_path / "Ada", dict.fromkeys(paths, "{}"))
    assert chosen(tmp_path / "Ada") == {"00_tour": "00_tour (1).ipynb", "01_dropout": "a/b/01_dropout.ipynb"}
    lines = capsys.readouterr().out.splitlines()
    assert "Ada: 00_tour (1).ipynb is taken for 00_tour.ipynb" in lines
    assert "Ada: Kopie von 00_tour.ipynb is not graded: there is 00_tour (1).ipynb too, and that is" in lines
    assert "Ada: 01_dropout (1).ipynb is not graded: there is a/b/01_dropout.ipynb too, and that is" in lines
    assert "Ada: tour.ipynb has the name of no notebook of the suite, and is not graded" in lines


def test_of_names_that_were_added_to_the_highest_number_counts(tmp_path):
    paths = ("Copy of 00_tour", "00_tour (2)", "00_tour (10)", "01_dropout", "01_dropout-Copy2")
    lay_out(tmp_path / "Ada", dict.fromkeys(paths, "{}"))
    assert chosen(tmp_path / "Ada") == {"00_tour": "00_tour (10).ipynb", "01_dropout": "01_dropout.ipynb"}


def test_capitals_and_spaces_in_a_name_cost_nothing(tmp_path):
    lay_out(tmp_path / "Ada", {"00_Tour": "{}", "01 dropout": "{}"})
    assert chosen(tmp_path / "Ada") == {"00_tour": "00_Tour.ipynb", "01_dropout": "01 dropout.ipynb"}


def test_the_remark_on_what_is_not_graded_says_why(tmp_path):
    lay_out(tmp_path / "Ada", {"00_tour": '"### BEGIN SOLUTION"'})
    choice = submissions.choose(tmp_path / "Ada", KNOWN)
    assert choice.missing("00_tour").startswith("not handed in; 00_tour.ipynb has the solutions in it")
    assert choice.missing("01_dropout") == "not handed in"


def test_a_clone_that_the_set_up_cell_made_is_not_graded(tmp_path, capsys):
    clone = tmp_path / "Ada" / "dropout-distillation"
    lay_out(tmp_path / "Ada", {"handed/in/00_tour": "{}"})
    lay_out(clone, {"notebooks/00_tour": "{}", "notebooks/01_dropout": "{}"})
    (clone / "notebooks" / "00_tour.py").write_text("### BEGIN SOLUTION", "utf-8")
    assert chosen(tmp_path / "Ada") == {"00_tour": "handed/in/00_tour.ipynb"}
    assert "Ada: dropout-distillation is a copy of the suite" in capsys.readouterr().out


def test_a_student_edition_of_the_name_of_a_clone_is_graded(tmp_path, capsys):
    lay_out(tmp_path / "Ada", {"dropout-distillation/notebooks/00_tour": "{}"})
    assert chosen(tmp_path / "Ada") == {"00_tour": "dropout-distillation/notebooks/00_tour.ipynb"}
    assert not capsys.readouterr().out


def test_of_a_folder_without_a_notebook_it_is_said_what_is_in_it(tmp_path, capsys):
    (tmp_path / "Ada" / "empty").mkdir(parents=True)
    assert chosen(tmp_path / "Ada") == {} and not capsys.readouterr().out
    (tmp_path / "Ada" / "hand-in.zip").touch()
    assert chosen(tmp_path / "Ada") == {}
    assert capsys.readouterr().out == "Ada: no notebook is in the folder, only empty, hand-in.zip\n"


def test_a_notebook_with_solutions_is_not_graded(tmp_path, capsys):
    lay_out(tmp_path / "Ada", {"00_tour": '"### BEGIN SOLUTION"', "mine/00_tour": "{}"})
    assert chosen(tmp_path / "Ada") == {"00_tour": "mine/00_tour.ipynb"}
    assert "Ada: 00_tour.ipynb has the solutions in it" in capsys.readouterr().out


@pytest.fixture
def quick(monkeypatch):
    """Grading without nbgrader: everybody has one point. The folders that it would run in."""
    ran_in = []

    def release(notebooks, folder):
        folder.mkdir()
        (folder / "gradebook.db").touch()
        return folder / "release"

    def points(path, released, job, limits):
        ran_in.append(job)
        (job / "graded.ipynb").touch()
        return pd.DataFrame({"exercise": ["my_kl"], "points": 1.0, "of": 1.0, "remark": "Correct"})

    monkeypatch.setattr(exercises, "release", release)
    monkeypatch.setattr(autograding, "points", points)
    return ran_in


def test_grades_have_the_names_of_students_and_nbgrader_does_not_see_them(tmp_path, quick):
    lay_out(tmp_path / "week [1]", {"Smith [Bob]/00_tour": "{}"})
    grading.grade(tmp_path / "week [1]", tmp_path / "grades")
    assert not [job for job in quick if "[" in str(job.relative_to(tmp_path))]
    kept = grading.place(tmp_path / "week [1]", tmp_path / "grades")
    assert list(pd.read_csv(kept / "grades.csv").student) == ["Smith [Bob]"]
    assert (kept / "Smith [Bob]" / "00_tour" / "graded.ipynb").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system whose names are bytes")
def test_a_name_that_is_no_utf_8_is_graded_and_spelt_out(tmp_path, quick, capsys):
    name = b"M\xfcller".decode("utf-8", "surrogateescape")
    lay_out(tmp_path / "submissions", {f"{name}/00_tour": "{}", f"{name}/b/00_tour": "{}", "Müller/00_tour": "{}"})
    table = grading.grade(tmp_path / "submissions", tmp_path / "grades")
    assert list(table.student) == ["Müller", r"M\xfcller"]
    kept = grading.place(tmp_path / "submissions", tmp_path / "grades")
    assert list(pd.read_csv(kept / "grades.csv").student) == list(table.student)
    assert capsys.readouterr().out.startswith(r"M\xfcller: b/00_tour.ipynb is not graded")


def test_what_is_no_students_folder_is_not_graded(tmp_path, quick, capsys):
    names = ("Ada/00_tour", ".git/00_tour", "__MACOSX/Ada/00_tour", "00_tour", ".hidden")
    lay_out(tmp_path / "submissions", {name: "{}" for name in names})
    assert list(grading.grade(tmp_path / "submissions", tmp_path / "grades").student) == ["Ada"]
    assert capsys.readouterr().out == "00_tour.ipynb is in no student's folder, and is not graded\n"


def test_grades_of_one_folder_leave_those_of_others(tmp_path, quick):
    grades, folders = tmp_path / "grades", [tmp_path / week / "submissions" for week in ("1", "2")]
    for folder in folders:
        lay_out(folder, {"Ada/00_tour": "{}"})
        grading.grade(folder, grades)
    assert all((grading.place(folder, grades) / "grades.csv").exists() for folder in folders)
    assert sorted(grades.iterdir()) == sorted(grading.place(folder, grades) for folder in folders)


def test_grades_are_replaced_by_whole_ones_only(tmp_path, quick, monkeypatch):
    submissions, grades = tmp_path / "submissions", tmp_path / "grades"
    lay_out(submissions, {"Ada/00_tour": "{}", "Bob/00_tour": "{}"})
    grading.grade(submissions, grades)
    before = sorted(grades.rglob("*"))

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(autograding, "points", interrupted)
        grading.grade(submissions, grades)
    assert sorted(grades.rglob("*")) == before

    shutil.rmtree(submissions / "Bob")
    grading.grade(submissions, grades)
    kept = grading.place(submissions, grades)
    assert list(pd.read_csv(kept / "grades.csv").student) == ["Ada"]
    assert not (kept / "Bob").exists() and list(grades.iterdir()) == [kept]


def test_points_outlive_a_notebook_that_cannot_be_kept(tmp_path, quick, monkeypatch):
    lay_out(tmp_path / "submissions", {"Ada/00_tour": "{}", "Bob/00_tour": "{}"})
    graded = autograding.points

    def and_loses_its_folder(path, released, job, limits):
        table = graded(path, released, job, limits)
        if path.parent.name == "Ada":
            shutil.rmtree(job)
        return table

    monkeypatch.setattr(autograding, "points", and_loses_its_folder)
    table = grading.grade(tmp_path / "submissions", tmp_path / "grades")
    assert table.set_index("student").points.to_dict() == {"Ada": 1, "Bob": 1}
    assert (grading.place(tmp_path / "submissions", tmp_path / "grades") / "Bob" / "00_tour" / "graded.ipynb").exists()


def test_excel_is_told_that_grades_are_utf_8(tmp_path, quick):
    lay_out(tmp_path / "submissions", {"Jörg/00_tour": "{}"})
    grading.grade(tmp_path / "submissions", tmp_path / "grades")
    kept = grading.place(tmp_path / "submissions", tmp_path / "grades") / "grades.csv"
    assert kept.read_bytes().startswith(b"\xef\xbb\xbfstudent,")
    assert list(pd.read_csv(kept).student) == ["Jörg"]


def test_a_process_that_left_its_family_ends_with_it(tmp_path):
    pid = tmp_path / "pid"
    process = autograding.PROCESSES.Process(target=leave_somebody, args=(pid,))
    process.start()
    assert not autograding.watch(process, LIMITS)
    assert not runs(int(pid.read_text()))


def runs(pid):
    """Whether a process runs; one that has ended stays in the list where the first one waits for nobody, as in many
    containers."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def idle():
    time.sleep(600)


@pytest.mark.parametrize(
    ("limits", "wrong"),
    [
        (autograding.Limits(notebook=0), "stopped after 0 s"),
        (autograding.Limits(memory=0), "stopped at 0 GB of memory"),
    ],
    ids=["time", "memory"],
)
def test_a_process_that_takes_too_much_is_ended(limits, wrong):
    process = autograding.PROCESSES.Process(target=idle)
    process.start()
    assert autograding.watch(process, limits) == wrong
    assert not process.is_alive()


def leave_somebody(pid):
    """A program that is started in a session of its own, and outlives who started it."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    pid.write_text(str(sleeper.pid))
    time.sleep(2)


@pytest.mark.parametrize("table", ["Łukasz: ŷ ‖ y", "plain"])
def test_what_an_output_has_no_sign_for_is_spelt_out(table):
    code = f"from helpers.printing import spell_out; spell_out(); print({table!r})"
    cp1252 = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    ended = subprocess.run([sys.executable, "-c", code], cwd=pages.ROOT, env=cp1252, capture_output=True)
    assert ended.returncode == 0 and ended.stdout.decode("cp1252").strip() == table.replace("Ł", "\\u0141").replace(
        "ŷ", "\\u0177"
    ).replace("‖", "\\u2016")


def test_a_notebook_s_output_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    printing.spell_out()
    print("ŷ")
    assert sys.stdout.getvalue() == "ŷ\n"


def test_grading_that_is_interrupted_says_so_in_a_line(tmp_path, monkeypatch, capsys):
    def interrupted(submissions):
        raise KeyboardInterrupt

    monkeypatch.setattr(grading, "grade", interrupted)
    monkeypatch.setattr(sys, "argv", ["course", "grade", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "python -m helpers.course: interrupted; no grades have been written\n"


@pytest.mark.parametrize(("submissions", "grades"), [("all", "all"), ("all/mine", "all"), ("all", "all/grades")])
def test_submissions_and_grades_in_each_other_are_refused(tmp_path, quick, submissions, grades):
    lay_out(tmp_path / submissions, {"Ada/00_tour": "{}"})
    with pytest.raises(ValueError, match="move the submissions"):
        grading.grade(tmp_path / submissions, tmp_path / grades)
    assert (tmp_path / submissions / "Ada" / "00_tour.ipynb").exists() and not quick


@pytest.mark.parametrize("name", ["a%20b", "new [1]"])
def test_a_folder_that_nbgrader_would_misread_is_refused(tmp_path, quick, name):
    lay_out(tmp_path / "submissions", {"Ada/00_tour": "{}"})
    with pytest.raises(ValueError, match="move the suite"):
        grading.grade(tmp_path / "submissions", tmp_path / name / "grades")
    assert not quick and not (tmp_path / name).exists()


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_clean_leaves_grades(tmp_path):
    shutil.copy(pages.ROOT / "Makefile", tmp_path)
    command = ["make", "--silent", "clean"]
    subprocess.run(command, cwd=tmp_path, check=True)  # there may be nothing to remove
    for name in ("build/grades/week/grades.csv", "build/a page/00_tour.html", "build/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(command, cwd=tmp_path, check=True)
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["grades"]
    assert (tmp_path / "build/grades/week/grades.csv").exists()


@pytest.mark.parametrize(
    ("log", "times"), [("RuntimeError: Kernel died before replying to kernel_info", 2), ("NameError: name 'x'", 1)]
)
def test_a_notebook_whose_kernel_never_started_gets_a_second_one(log, times, tmp_path, monkeypatch):
    started = []

    class Process:
        def __init__(self, target, args):
            self.job = args[0]

        def start(self):
            started.append(self)
            (self.job / "log.txt").write_text(log)

    monkeypatch.setattr(autograding, "PROCESSES", type("", (), {"Process": Process}))
    monkeypatch.setattr(autograding, "watch", lambda process, limits: "the notebook could not be run to its end")
    notebook = exercises.every_notebook()[0]
    autograding.points(notebook, notebook, tmp_path, autograding.Limits())
    assert len(started) == times
