"""The two halves of each notebook say the same, cell by cell, and the stored half is fit to be compared."""

import copy
from itertools import zip_longest
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbformat import NotebookNode

from helpers import pages

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PAIRS = sorted({path.with_suffix("") for path in NOTEBOOKS.glob("[0-9]*")})
CHECKED = "nbval-check-output"


def drift(source: NotebookNode, stored: NotebookNode) -> str | None:
    """The first difference between the halves of a pair in cell types, sources or tags, in words."""

    for number, (a, b) in enumerate(zip(source.cells, stored.cells, strict=False)):
        parts = [(a.cell_type, b.cell_type), (a.metadata.get("tags", []), b.metadata.get("tags", []))]
        lines = zip_longest(a.source.splitlines(keepends=True), b.source.splitlines(keepends=True), fillvalue="")
        for one, other in [*parts, *lines]:
            if one != other:
                return f"cell {number} differs: {one!r} in the .py, {other!r} in the .ipynb"
    if len(source.cells) != len(stored.cells):
        return f"{len(source.cells)} cells in the .py, {len(stored.cells)} in the .ipynb"
    return None


def halves(pair: Path) -> tuple[NotebookNode, NotebookNode]:
    return jupytext.read(pair.with_suffix(".py")), nbformat.read(pair.with_suffix(".ipynb"), as_version=4)


def test_there_are_notebooks():
    assert PAIRS


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_the_halves_of_a_pair_agree(pair):
    difference = drift(*halves(pair))
    assert difference is None, f"{pair.name}: {difference}. The .py is the source: run `make notebooks`."


@pytest.mark.parametrize("change", ["source", "tags", "type", "missing"])
def test_a_change_in_one_half_is_noticed(change):
    source, stored = halves(PAIRS[0])
    stored = copy.deepcopy(stored)
    cell = stored.cells[3]
    if change == "source":
        cell.source += " "
    elif change == "tags":
        cell.metadata["tags"] = [*cell.metadata.get("tags", []), "other"]
    elif change == "type":
        cell.cell_type = "raw"
    else:
        del stored.cells[-1]
    assert drift(source, stored) is not None


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_stored_outputs_are_there_to_be_compared(pair):
    _, stored = halves(pair)
    code = [cell for cell in stored.cells if cell.cell_type == "code" and cell.source.strip()]
    assert all(cell.execution_count for cell in code), f"{pair.name} was saved without running: `make notebooks`"
    checked = [cell for cell in code if CHECKED in cell.metadata.get("tags", [])]
    assert len(checked) >= 3, (
        f"{pair.name} has {len(checked)} cells whose output is checked; tag at least three {CHECKED}"
    )
    outputs = [output for cell in code for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    assert "widgets" not in stored.metadata


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_links_name_the_repository_of_pyproject(pair):
    for half in (pair.with_suffix(".py"), pair.with_suffix(".ipynb")):
        text = half.read_text("utf-8")
        assert pages.PROJECT["urls"]["Repository"] in text
        assert pages.linked(text) == text, f"{half.name} links elsewhere: `python -m helpers.pages links`"
