"""The set-up cell makes a notebook run where there is nothing but the notebook, as on Google Colab.

A stub of `google.colab` and an empty folder stand for Colab; what Colab lacks is hidden. Git takes a clone of this
repository for the one on the network, so that what runs is the code that was committed.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from helpers import pages
from tests.conftest import NOTEBOOKS, brief_notebook, is_checkout

ROOT = Path(__file__).parent.parent
REPOSITORY, TAG = pages.PROJECT["urls"]["Repository"], f"v{pages.PROJECT['version']}"

# What the suite has installed for other purposes, and Colab does not have.
ABSENT = """
import sys

class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {"jupytext", "latex2mathml", "nbgrader", "nbval", "onnxscript"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent)
"""


def cells(name):
    """The code cells of a notebook: the set-up, the imports, and so on."""
    notebook = nbformat.read(pages.NOTEBOOKS / f"{name}.ipynb", as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


SET_UP = cells("00_tour")[0].source


# ---- The cell by itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_set_up_cell_is_the_same_in_every_notebook(name):
    first, imports = cells(name)[:2]
    assert first.source == SET_UP
    assert imports.source.startswith("%matplotlib inline\n") and "from helpers" in imports.source


def test_the_set_up_cell_fetches_the_one_address_of_pyproject():
    assert re.findall(r'"(https?://[^"]+)", "(v[^"]+)"', SET_UP) == [(REPOSITORY, TAG)]


def set_up(monkeypatch, folder, installed):
    """Run the set-up cell in `folder`, where `installed` is, {package: version}: what it would have had run."""
    commands = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    found = {name: [SimpleNamespace(version=version)] for name, version in installed.items()}
    monkeypatch.setattr(importlib.metadata, "distributions", lambda name: found.get(name, []))
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
    exec(SET_UP, names := {})
    return commands, names["home"]


# What the suite needs of what Colab may not have, in the versions that pyproject.toml asks for.
NEEDED = {
    name: least
    for name, least in (dependency.split(">=") for dependency in pages.PROJECT["optional-dependencies"]["notebooks"])
    if name in ("ipywidgets", "mlxtend", "safetensors", "torchmetrics")
}


def test_inside_the_suite_nothing_is_fetched(monkeypatch):
    assert set_up(monkeypatch, ROOT / "notebooks", NEEDED) == ([], ROOT)


def test_elsewhere_the_repository_is_cloned_at_its_tag(monkeypatch, tmp_path):
    commands, home = set_up(monkeypatch, tmp_path, NEEDED)
    assert home == tmp_path / "dropout-distillation" and str(home) == sys.path[0]
    assert commands == [["git", "clone", "-q", "--depth", "1", "-b", TAG, REPOSITORY, str(home)]]


def test_a_clone_that_is_there_already_is_used(monkeypatch, tmp_path):
    (tmp_path / "dropout-distillation").mkdir()
    assert set_up(monkeypatch, tmp_path, NEEDED)[0] == []


@pytest.mark.parametrize("absent", [{"torchmetrics"}, {"mlxtend", "torchmetrics"}, {*NEEDED}])
def test_what_is_missing_is_installed_and_nothing_else(monkeypatch, absent):
    there = {name: version for name, version in NEEDED.items() if name not in absent}
    (command,), _ = set_up(monkeypatch, ROOT / "notebooks", there)
    assert command[:5] == [sys.executable, "-m", "pip", "install", "-q"]
    assert set(command[5:]) == {f"{name}>={NEEDED[name]}" for name in absent}


@pytest.mark.parametrize(
    ("there", "enough"), [("0.6.0", False), ("0.6.1", True), ("0.10.0", True), ("0.6.1rc1", False)]
)
def test_what_is_too_old_is_installed_anew(monkeypatch, there, enough):
    commands, _ = set_up(monkeypatch, ROOT / "notebooks", {**NEEDED, "safetensors": there})
    assert [command[5:] for command in commands] == ([] if enough else [["safetensors>=0.6.1"]])


def test_torch_is_never_installed():
    assert "torch" not in re.findall(r'"([\w-]+)[">=]', SET_UP)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_badge_opens_the_notebook(name):
    notebook = nbformat.read(pages.NOTEBOOKS / f"{name}.ipynb", as_version=4)
    where = REPOSITORY.removeprefix("https://github.com/")
    badge = f"(https://colab.research.google.com/github/{where}/blob/{TAG}/notebooks/{name}.ipynb)"
    assert badge in notebook.cells[0].source


# ---- The whole page -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """The environment of a kernel on something like Colab."""
    if not is_checkout():
        pytest.skip("git does not take this copy for a checkout, and there is nothing to clone")
    folder = tmp_path_factory.mktemp("colab")
    clone = folder / "suite.git"
    subprocess.run(["git", "clone", "-q", "--bare", ROOT, clone], check=True)
    subprocess.run(["git", "-C", clone, "tag", "-f", TAG, "HEAD"], check=True, capture_output=True)
    (folder / "modules" / "google" / "colab").mkdir(parents=True)
    (folder / "modules" / "google" / "colab" / "__init__.py").write_text("")
    (folder / "modules" / "sitecustomize.py").write_text(ABSENT)
    return {
        **os.environ,
        "COLAB_RELEASE_TAG": "release-colab",
        "PYTHONPATH": str(folder / "modules"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{clone.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": REPOSITORY,
    }


def committed(name):
    command = ["git", "show", f"HEAD:notebooks/{name}.ipynb"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True, encoding="utf-8")
    return nbformat.reads(shown.stdout, as_version=4)


def run(notebook, folder, environment):
    """The notebook run in `folder`; an error in any cell is raised."""
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    client.widget_registry["@jupyter-widgets/output"]["OutputModel"] = pages.QuietOutput
    client.execute(env=environment)
    return notebook


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout").splitlines()


WHERE = "import google.colab, helpers\nprint(home)\nprint(helpers.__file__)\nprint([*home.parent.iterdir()] == [home])"


def test_every_notebook_finds_what_it_imports_on_colab(colab, tmp_path):
    names = subprocess.run(
        ["git", "ls-files", "notebooks/*.ipynb"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    notebooks = [committed(Path(name).stem) for name in names.stdout.split()]
    assert notebooks
    code = [[cell for cell in notebook.cells if cell.cell_type == "code"][:2] for notebook in notebooks]
    where = nbformat.v4.new_code_cell(WHERE)
    page = nbformat.v4.new_notebook(cells=[code[0][0], where, *(imports for _, imports in code)])
    run(page, tmp_path, colab)
    assert printed(where) == [
        str(tmp_path / "dropout-distillation"),
        str(tmp_path / "dropout-distillation" / "helpers" / "__init__.py"),
        "True",
    ]


@brief_notebook
def test_a_notebook_runs_where_there_is_nothing_else(colab, tmp_path, name):
    notebook = committed(name)
    stored = [printed(cell) for cell in notebook.cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    run(notebook, tmp_path, colab)
    assert (tmp_path / "dropout-distillation" / "helpers").is_dir()
    fresh = [printed(cell) for cell in notebook.cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert fresh == stored
