"""A notebook is run, cleaned of what differs from run to run, and made into a page that needs no network."""

import base64
import re

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook, new_output

from helpers import pages

SOURCE = """# %% [markdown]
# A formula $\\\\frac{a}{b}$ and another:
#
# $$\\\\sum_k y_k$$

# %% tags=["table"]
6 * 7

# %%
from tqdm.auto import tqdm
for _ in tqdm(range(3)):
    pass

# %%
import ipywidgets
ipywidgets.IntSlider()
""".replace("\\\\", "\\")


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    source = tmp_path_factory.mktemp("pages") / "small.py"
    source.write_text(SOURCE)
    return pages.execute(source)


def test_outputs_are_kept_and_what_passes_is_not(notebook):
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output.data["text/plain"] for output in outputs] == ["42"]
    assert "widgets" not in notebook.metadata
    assert [cell.id for cell in notebook.cells] == [f"cell-{i}" for i in range(4)]
    nbformat.validate(notebook)


def test_a_tag_finds_what_its_cell_shows(notebook):
    assert pages.outputs(notebook, "table", "text/plain") == ["42"]


def test_the_page_needs_no_network(notebook):
    html = pages.page(notebook)
    assert html.count("<math") == 2
    assert not re.findall(r'(?:src|href)="https?://[^"]+\.(?:js|css)"', html)


@pytest.mark.parametrize("command", ["tour", "run"])
def test_the_commands_leave_what_they_say(command, notebook, tmp_path, monkeypatch, capsys):
    for name, folder in {"NOTEBOOKS": "", "BUILD": "build", "PICTURES": "pictures"}.items():
        monkeypatch.setattr(pages, name, tmp_path / folder)
    (tmp_path / "00_tour.py").write_text(SOURCE)
    monkeypatch.setattr(pages, "execute", lambda source: notebook)  # as above, which takes seconds
    monkeypatch.setattr("sys.argv", ["pages", command])
    pages.main()
    printed = capsys.readouterr().out.splitlines()
    if command == "tour":
        page = tmp_path / "build" / "00_tour.html"
        assert "42" in printed and any(page.as_uri() in line for line in printed)
        assert "<math" in page.read_text("utf-8")
    else:
        assert printed == ["ran 00_tour"]
        nbformat.validate(nbformat.read(tmp_path / "00_tour.ipynb", as_version=4))


def test_the_table_is_printed_though_the_page_cannot_be_written(notebook, monkeypatch, capsys):
    def write(path, content):
        raise PermissionError(path)

    monkeypatch.setattr(pages, "execute", lambda source: notebook)
    monkeypatch.setattr(pages, "write", write)
    with pytest.raises(PermissionError):
        pages.tour()
    assert "42" in capsys.readouterr().out.splitlines()


def test_a_name_that_no_notebook_has_is_answered_with_those_that_there_are(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pages", "run", "00_tour", "00_tour.ipynb"])
    with pytest.raises(SystemExit):
        pages.main()
    assert "there is no 00_tour.ipynb; there are 00_tour, 01_dropout, " in capsys.readouterr().err


def test_the_pictures_of_tagged_cells_are_written_for_the_readme(tmp_path, monkeypatch):
    def shown(png):
        return new_output("display_data", {"image/png": base64.b64encode(png).decode()})

    tagged = new_code_cell(metadata={"tags": ["picture"]}, outputs=[shown(b"first"), shown(b"second")])
    notebook = new_notebook(cells=[new_code_cell(outputs=[shown(b"not tagged")]), tagged])
    monkeypatch.setattr(pages, "execute", lambda source: notebook)
    monkeypatch.setattr(pages, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(pages, "PICTURES", tmp_path / "pictures")
    pages.run(["small"])
    written = {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    assert written == {"small.png": b"first", "small1.png": b"second"}


def test_a_cell_that_raises_is_not_passed_over(tmp_path):
    (tmp_path / "bad.py").write_text("# %%\n1 / 0\n")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        pages.execute(tmp_path / "bad.py")


def test_the_pictures_in_the_page_are_inside_it(tmp_path):
    (tmp_path / "plot.py").write_text(
        "# %%\n# %matplotlib inline\nfrom matplotlib.figure import Figure\nfigure = Figure()\nfigure.subplots()\nfigure\n"
    )
    assert 'src="data:image/png;base64,' in pages.page(pages.execute(tmp_path / "plot.py"))
