"""nbval, with the guard, notices a wrong stored output in a notebook, and a check that compares nothing."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tests.nbval_guard import TAG

ROOT = Path(__file__).parent.parent


def run(tmp_path: Path, **cell: object) -> subprocess.CompletedProcess:
    """nbval, as `make test` calls it, on a notebook with one checked cell that prints 2."""
    defaults = {
        "source": "print(1 + 1)",
        "execution_count": 1,
        "metadata": {"tags": [TAG]},
        "outputs": [new_output("stream", name="stdout", text="2\n")],
    }
    notebook = new_notebook(cells=[new_code_cell(**defaults | cell)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "small.ipynb"
    nbformat.write(notebook, path)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.nbval_guard",
        "--nbval-lax",
        "-p",
        "no:cacheprovider",
        str(path),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_right_output_passes(tmp_path):
    result = run(tmp_path)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"outputs": [new_output("stream", name="stdout", text="3\n")]}, "small.ipynb::Cell 0"),
        ({"execution_count": None, "outputs": []}, "was not compared"),
        ({"source": "pass", "outputs": []}, "no stored output"),
    ],
    ids=["a planted wrong output", "a stripped notebook", "a cell that shows nothing"],
)
def test_what_could_pass_vacuously_fails(tmp_path, cell, message):
    result = run(tmp_path, **cell)
    assert result.returncode == 1, result.stdout
    assert message in result.stdout
