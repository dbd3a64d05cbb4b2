"""Notebooks from the command line: ``python -m helpers.pages tour | run [NAME ...] | links | results``.

The ``.py`` half of a pair is the source of truth; `run` executes it and writes the ``.ipynb`` half with its outputs.
Needs the extra ``notebooks``.
"""

import argparse
import base64
import re
import tomllib
from pathlib import Path

import jupytext
import nbformat
from latex2mathml.converter import convert as mathml
from nbclient import NotebookClient
from nbclient.output_widget import OutputWidget
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from tqdm.auto import tqdm

from helpers.files import write
from helpers.printing import spell_out

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
BUILD = ROOT / "build"
PICTURES = ROOT / "data" / "pictures"  # of cells tagged "picture", for the README
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


class QuietOutput(OutputWidget):
    """An Output widget that keeps what it shows to itself.

    nbclient would send it back to the kernel, on a socket on which it waits for a reply, and may then wait forever.
    """

    def sync_state(self) -> None:
        pass


def execute(source: Path) -> NotebookNode:
    """The notebook written in `source` (py:percent), run from top to bottom, with its outputs.

    Raises
    ------
    nbclient.exceptions.CellExecutionError : if a cell raises.
    """
    notebook = jupytext.read(source)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    with tqdm(total=len(cells), desc=source.stem, unit="cell", leave=False) as bar:
        client = NotebookClient(
            notebook,
            timeout=None,
            coalesce_streams=True,  # how a kernel cuts what is printed into pieces is a matter of time
            resources={"metadata": {"path": str(source.parent)}},
            on_cell_executed=lambda **_: bar.update(),
            extra_arguments=["--log-level=ERROR"],  # no warnings about a kernel that only this process talks to
        )
        client.widget_registry["@jupyter-widgets/output"]["OutputModel"] = QuietOutput
        client.execute()
    return cleaned(notebook)


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """Without what differs from run to run or means nothing on a still page: timings, random ids, widget state,
    and the places where progress bars and widgets stood."""
    notebook.metadata.pop("widgets", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not transient(output)]
    return notebook


def transient(output: NotebookNode) -> bool:
    return output.get("name") == "stderr" or "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def page(notebook: NotebookNode) -> str:
    """The notebook as one HTML page that needs no network: pictures are inside it, formulas are MathML."""
    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(
                r"\$\$(.+?)\$\$", lambda m: mathml(m[1], display="block"), cell.source, flags=re.DOTALL
            )
            cell.source = re.sub(r"\$(.+?)\$", lambda m: mathml(m[1]), cell.source)
    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="", widget_renderer_url="")
    return exporter.from_notebook_node(notebook)[0]


def outputs(notebook: NotebookNode, tag: str, kind: str) -> list[str]:
    """What the cells tagged `tag` show, in the form `kind` (a MIME type)."""
    cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
    return [output.data[kind] for cell in cells for output in cell.outputs if kind in output.get("data", {})]


def tour() -> None:
    """Run the tour, print its table, and leave it as a page."""
    print("Running the tour: training, averaging and distilling a network on 4,000 digits, in about a minute.")
    notebook = execute(NOTEBOOKS / "00_tour.py")
    print(*outputs(notebook, "table", "text/plain"), sep="\n")
    target = BUILD / "00_tour.html"
    write(target, page(notebook))
    print(f"\nThe page, with the pictures: {target.as_uri()}\nTo open the suite and move the sliders: make lab")


def known() -> list[str]:
    """The names of all notebooks, in their order."""
    return sorted(path.stem for path in NOTEBOOKS.glob("[0-9]*.py"))


def run(names: list[str]) -> None:
    """Execute the notebooks `names` (all of them by default) and write each .ipynb with its outputs."""
    for source in [NOTEBOOKS / f"{name}.py" for name in names or known()]:
        notebook = execute(source)
        write(source.with_suffix(".ipynb"), nbformat.writes(notebook) + "\n")
        for number, picture in enumerate(outputs(notebook, "picture", "image/png")):
            write(PICTURES / f"{source.stem}{number or ''}.png", base64.b64decode(picture))
        print(f"ran {source.stem}")


# Where repository and version are named, whatever they have been so far.
BADGE = re.compile(r"(colab\.research\.google\.com/github/)[\w.-]+/[\w.-]+(/blob/)[^/\s]+")
SET_UP = re.compile(r'(REPOSITORY, TAG = \\?")[^"\\]+(\\?", \\?")[^"\\]+')  # in an .ipynb, \ is before each "
CITATION = re.compile(r"(version = \{)[^}]+(\},\n *url *= \{)[^}]+")


def linked(text: str) -> str:
    """`text` with the repository and the version in every link to it, as pyproject.toml has them."""
    address, version = PROJECT["urls"]["Repository"], PROJECT["version"]
    text = BADGE.sub(rf"\g<1>{address.removeprefix('https://github.com/')}\g<2>v{version}", text)
    text = SET_UP.sub(rf"\g<1>{address}\g<2>v{version}", text)
    return CITATION.sub(rf"\g<1>{version}\g<2>{address}", text)


def links() -> None:
    """Bring the links in both README.md and in the notebooks up to date with pyproject.toml."""
    notebooks = [path for pattern in ("*.md", "*.py", "*.ipynb") for path in sorted(NOTEBOOKS.glob(pattern))]
    for path in [ROOT / "README.md", *notebooks]:
        before = path.read_text("utf-8")
        if (after := linked(before)) != before:
            write(path, after)
            print(f"updated {path.name}")


RESULTS = re.compile("(?<=<!-- results -->\n).*?(?=<!-- end of results -->)", re.DOTALL)


def with_results(readme: str) -> str:
    """`readme` with the left half of Table 1 between its two marks, as far as it has been run."""
    from helpers.experiments import records  # and with it PyTorch, for which the other commands need not wait

    table = records.left()
    table = table[table["error [%]"] != "not run"]
    lines = [["", "", *table.columns], ["---"] * (2 + len(table.columns))]
    lines += [[*name, *cells] for name, cells in zip(table.index, table.to_numpy(), strict=True)]
    return RESULTS.sub("".join(f"| {' | '.join(line)} |\n" for line in lines), readme)


def results() -> None:
    """Bring the table of results in README.md up to date with the records."""
    write(ROOT / "README.md", with_results((ROOT / "README.md").read_text("utf-8")))


def main() -> None:
    spell_out()
    parser = argparse.ArgumentParser(
        prog="python -m helpers.pages", description="Run notebooks and make pages of them."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tour", help=tour.__doc__)
    commands.add_parser("run", help=run.__doc__).add_argument("names", nargs="*", metavar="NAME")
    commands.add_parser("links", help=links.__doc__)
    commands.add_parser("results", help=results.__doc__)
    match (arguments := parser.parse_args()).command:
        case "tour":
            tour()
        case "run":
            if unknown := set(arguments.names) - set(known()):
                parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(known())}")
            run(arguments.names)
        case "links":
            links()
        case "results":
            results()


if __name__ == "__main__":
    main()
