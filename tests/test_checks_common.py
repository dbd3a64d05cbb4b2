"""What all checks share: how an answer is called, and what a notebook shows of one that ends in an error."""

import re

import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from helpers import checks
from helpers.checks import Unsolved, call, mismatch


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int64(2), np.mean([1.0, 3.0]), torch.tensor(2)])
def test_a_number_is_a_tensor_without_dimensions(value):
    answer = call(lambda: value, number=True)
    assert isinstance(answer, torch.Tensor) and answer.shape == () and answer == 2


def test_a_number_keeps_its_digits():
    assert call(lambda: 0.1, number=True).item() == 0.1


@pytest.mark.parametrize(
    ("answer", "expected", "message"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.5, 3.1], "entry [1] should be 2.5, and is 2."),
        ([[0.1, 0.2]], [[0.1, 0.20001]], "entry [0, 1] should be 0.20001, and is 0.2."),
        (0.25, 0.75, "it should be 0.75, and is 0.25."),
        ([0.5, float("nan")], [0.7, 0.3], "entry [1] should be 0.3, and is nan."),
    ],
)
def test_a_mismatch_names_the_worst_entry_with_as_many_digits_as_it_takes(answer, expected, message):
    assert mismatch(torch.tensor(answer).double(), torch.tensor(expected).double()) == message


@pytest.mark.parametrize("value", [2.0, [2.0], "2", np.ones(2)])
def test_where_a_tensor_is_asked_for_nothing_else_will_do(value):
    with pytest.raises(Unsolved, match=f"expected a tensor, got {type(value).__name__}"):
        call(lambda: value)


def halved(w, p):
    w *= 1 - p
    return w


def changed_and_forgotten(w, p):
    w[0, 0] = 9.0


@pytest.mark.parametrize("function", [halved, changed_and_forgotten, lambda w, p: w.t_() * p])
def test_a_changed_argument_is_named_before_anything_else(function):
    with pytest.raises(Unsolved, match="changed its argument in place"):
        call(function, torch.ones(2, 3), 0.5)


def test_a_function_that_changes_its_own_tensors_is_let_be():
    w = torch.ones(2)
    assert call(lambda w: w.clone().mul_(3), w).tolist() == [3, 3] and w.tolist() == [1, 1]


@checks.exercise
def check_of_length(function):
    assert len(call(function, torch.ones(3))) == 3  # an error, too, if the answer has no dimension
    print("Correct: it has a length.")


def failing(x):
    return x @ torch.ones(4)


def without_length(x):
    return x.sum()


class Shell:
    """Stands in for that of a notebook."""

    def showtraceback(self):
        print("(traceback)")


@pytest.mark.parametrize(("answer", "error"), [(failing, RuntimeError), (without_length, TypeError)])
def test_an_error_is_shown_in_notebooks_and_raised_elsewhere_and_while_nbgrader_grades(
    answer, error, monkeypatch, capsys
):
    with pytest.raises(error):
        check_of_length(answer)
    monkeypatch.setattr(checks, "get_ipython", Shell)
    check_of_length(answer)
    said, traceback = capsys.readouterr().out.splitlines()
    assert said.startswith("Not yet: ") and traceback == "(traceback)"
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(error):
        check_of_length(answer)


PAGE = [
    "import torch\nfrom helpers.checks import tour as checks",
    "def my_kl(y, y_hat):\n    return y @ y_hat",
    "checks.kl(my_kl)",
    "print('the story goes on')",
]


def test_a_page_with_an_answer_that_fails_runs_to_its_end(monkeypatch):
    page = new_notebook(cells=[new_code_cell(source) for source in PAGE])
    NotebookClient(page, timeout=120).execute()
    said, error = page.cells[2].outputs
    assert said.text.startswith("Not yet: ") and error.ename == "RuntimeError"
    assert "in my_kl" in re.sub("\x1b.*?m", "", "".join(error.traceback))
    assert page.cells[3].outputs[0].text == "the story goes on\n"
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(CellExecutionError, match="RuntimeError"):
        NotebookClient(page, timeout=120).execute()
