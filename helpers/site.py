"""The suite as web pages: ``python -m helpers.site``.

Sphinx and MyST-NB make them of the stored outputs; nothing is run, and nothing is downloaded. Formulas are MathML, which
browsers draw by themselves, so that a reader needs no network either, but for the picture on the badges of Colab. Needs
the extras ``notebooks`` and ``site``.
"""

import importlib
import inspect
import re
import shutil
import sys
from pathlib import Path

import nbformat
from docutils import nodes
from latex2mathml.converter import convert as mathml
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils
from sphinx.writers.html5 import HTML5Translator

from helpers.experiments import records, tables
from helpers.experiments.declared import PROFILES, declared
from helpers.files import write
from helpers.pages import BUILD, NOTEBOOKS, PROJECT, ROOT

SETTINGS = {
    "project": "Dropout distillation",
    "author": PROJECT["authors"][0]["name"],
    "copyright": PROJECT["authors"][0]["name"],
    "release": PROJECT["version"],
    "language": "en",
    "extensions": ["myst_nb", "helpers.site"],
    "nb_execution_mode": "off",
    "nb_render_markdown_format": "myst",  # formulas in what a cell shows
    "myst_enable_extensions": ["dollarmath"],
    "html_math_renderer": "mathml",
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {
        "repository_url": PROJECT["urls"]["Repository"],
        "use_repository_button": True,
        "use_download_button": False,
        "navbar_persistent": [],  # the search field is in the side bar
    },
    "html_title": "Dropout distillation",
    "html_copy_source": False,
    "html_use_index": False,
}
CONTENTS = """

```{toctree}
:hidden:
:caption: The suite

notebooks/README
results
```

```{toctree}
:hidden:
:caption: Notebooks
:glob:

notebooks/[0-9]*
```
"""
# Above each table of the page of results, and the function that makes it of the records.
RESULTS = {
    **tables.BY_PROFILE,
    **tables.OTHERS,
    "Averaging 100 masks: seconds, and how many times as long other ways take": records.speed,
    "Where the records of Table 1 come from": records.provenance,
}


# ---- What Sphinx reads --------------------------------------------------------------------------------------------


def stage(folder: Path) -> None:
    """Write the pages that Sphinx reads to `folder`: README, syllabus, results and notebooks, laid out as in the
    repository, so that links from one to another hold."""
    shutil.rmtree(folder, ignore_errors=True)
    write(folder / "index.md", (ROOT / "README.md").read_text("utf-8") + CONTENTS)
    write(folder / "notebooks" / "README.md", (NOTEBOOKS / "README.md").read_bytes())
    write(folder / "results.md", results())
    shutil.copytree(ROOT / "data" / "pictures", folder / "data" / "pictures")
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        write(folder / "notebooks" / path.name, nbformat.writes(described(nbformat.read(path, as_version=4))))


def results() -> str:
    """The page of results: what the records say beside what the papers say."""
    parts = [
        "# Results",
        "What the runs recorded in `data/runs` say, beside what the papers say. A cell without a record says "
        "“not run”. Means ± standard deviations are over repetitions.",
    ]
    all_runs = [run for profile in PROFILES for run in declared((), profile)]
    parts.append(records.origin(records.contents(all_runs)))
    for title, table in RESULTS.items():
        html = table().to_html(border=0, na_rep="", float_format="{:.2f}".format)
        parts += [f"## {title}", f'<div class="results" tabindex="0">\n{html}\n</div>']
    return "\n\n".join(parts) + "\n"


def described(notebook: NotebookNode) -> NotebookNode:
    """`notebook` with a text for each of its figures, for readers who do not see them: the heading above, and what the
    function that draws says about its figure."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    modules = {
        alias or name: name for name, alias in re.findall(r"from helpers\.plots import (\w+)(?: as (\w+))?", code)
    }
    functions = {name: body for body, name in re.findall(r"(?ms)^(def (\w+)\(.*?)(?=^\S|\Z)", code)}
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = [heading, *re.findall(r"(?m)^#+ (.*)", cell.source)][-1]
        elif any("image/png" in output.get("data", {}) for output in cell.outputs):
            called = [functions[name] for name in re.findall(r"(\w+)\(", cell.source) if name in functions]
            calls = [
                (modules[alias], name)
                for source in (cell.source, *called)
                for alias, name in re.findall(r"(\w+)\.(\w+)\(", source)
                if alias in modules
            ]
            drawn = "".join(f": {description(*call)}" for call in calls[:1])
            cell.metadata["mystnb"] = {"image": {"alt": f"{plain(heading)}{drawn}"}}
    return notebook


def description(module: str, function: str) -> str:
    """The first paragraph of what a function in `helpers.plots` says about its figure, without the shapes."""
    text = inspect.getdoc(getattr(importlib.import_module(f"helpers.plots.{module}"), function)).partition("\n\n")[0]
    while (less := re.sub(r"\{[^{}]*\}|\[[^][]*\]|\(\s*\)", "", text)) != text:
        text = less
    return plain(re.sub(r"\s*[,:]*\s*(?=[.;,:)])", "", text))


def plain(text: str) -> str:
    """Markdown without its marks, in one line."""
    return " ".join(re.sub(r"[`*$\\]", "", text).split())


# ---- What Sphinx is taught ----------------------------------------------------------------------------------------


def inline_math(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def display_math(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="formula" tabindex="0">{mathml(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def keep_together(app: Sphinx, page: nodes.document) -> None:
    """Put each formula and the punctuation behind it into one element: browsers would break the line between them."""
    for formula in list(page.findall(nodes.math)):
        line, i = formula.parent, formula.parent.index(formula)
        behind = line[i + 1] if i + 1 < len(line) else None
        if isinstance(behind, nodes.Text) and (mark := re.match(r"[^\w\s(\[“‘]+", behind)):
            kept = nodes.inline("", "", formula, nodes.Text(mark[0]), classes=["kept"])
            line[i : i + 2] = [kept, nodes.Text(behind[mark.end() :])]


# What is wider than a phone is scrolled by itself, and a figure keeps a size at which it can be read. Code and printed lines
# are broken where they are too wide: of a line that ends outside the page nobody sees that it goes on.
STYLE = """
.highlight pre { font-size: 0.8em; white-space: pre-wrap; overflow-wrap: break-word; }
.formula, .results, .cell_output { overflow-x: auto; }
.formula { margin: 1em 0; }
.kept { white-space: nowrap; }
.results table, .cell_output table { font-size: 0.85em; white-space: nowrap; margin-bottom: 1em; }
:is(.results, .cell_output) :is(td, th) { padding: 0 0.6em; }
table.dataframe td { text-align: right; }
table.dataframe thead th { vertical-align: bottom; white-space: normal; }
@media (max-width: 40rem) {
    h1 { font-size: 1.8rem; }
    h2 { font-size: 1.4rem; }
    .cell_output img { max-width: none; min-width: 36rem; }
}
"""


def setup(app: Sphinx) -> dict[str, bool]:
    """What makes this module an extension of Sphinx."""
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))
    app.connect("doctree-read", keep_together)
    app.connect("builder-inited", lambda app: write(Path(app.outdir) / "_static" / "suite.css", STYLE))
    app.add_css_file("suite.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def build(target: Path = BUILD / "site", strict: bool = False) -> Path:
    """Make the pages, in the folder `target`, and return the first of them.

    Raises
    ------
    sphinx.errors.SphinxError : if a page cannot be made, or `strict` is set and there is something to warn of.
    """
    source = target.with_name(f"{target.name}-source")
    stage(source)
    shutil.rmtree(target, ignore_errors=True)
    with patch_docutils(), docutils_namespace():
        app = Sphinx(
            source,
            None,
            target,
            source / ".doctrees",
            "html",
            confoverrides=SETTINGS,
            status=None,
            warning=sys.stderr,
            exception_on_warning=strict,
        )
        app.build()
    return target / "index.html"


if __name__ == "__main__":
    print(f"The site: {build().as_uri()}")
