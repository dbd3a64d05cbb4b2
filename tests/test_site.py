"""The web pages are made without a warning, hold every notebook, and link to nothing that is not there."""

from urllib.parse import unquote, urldefrag, urlparse

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from sphinx.errors import SphinxWarning

from helpers import pages, site
from helpers.experiments import records

NOTEBOOKS = sorted(path.stem for path in pages.NOTEBOOKS.glob("[0-9]*.ipynb"))
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return site.build(tmp_path_factory.mktemp("pages") / "site", strict=True).parent


@pytest.fixture(scope="module")
def soups(built):
    found = [path for folder in (built, built / "notebooks") for path in sorted(folder.glob("*.html"))]
    return {path: BeautifulSoup(path.read_text("utf-8"), "html.parser") for path in found}


def broken(soups):
    """Links and sources that lead to no file of the site, or to no place in a page."""
    anchors = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in soups.items()}
    found = []
    for path, soup in soups.items():
        for tag in soup.find_all(["a", "img", "script", "link"]):
            address, fragment = urldefrag(tag.get("href") or tag.get("src") or "")
            if urlparse(address).scheme:
                continue
            target = (path.parent / unquote(urlparse(address).path)).resolve() if address else path
            if not target.exists() or (fragment and fragment not in anchors.get(target, {fragment})):
                found.append(f"{path.name}: {address}#{fragment}")
    return found


def test_every_notebook_is_there_and_in_the_contents(built, soups):
    contents = {link["href"] for link in soups[built / "index.html"].select("nav.bd-links a")}
    assert {f"notebooks/{name}.html" for name in NOTEBOOKS} <= contents
    assert {"notebooks/README.html", "results.html"} <= contents
    for name in NOTEBOOKS:
        source = nbformat.read(pages.NOTEBOOKS / f"{name}.ipynb", as_version=4)
        title = source.cells[0].source.splitlines()[0].removeprefix("# ").replace("'", "’")
        article = soups[built / "notebooks" / f"{name}.html"].find("article")
        assert article.h1.get_text().startswith(title)
        assert len(article.select("div.cell_input")) == sum(
            cell.cell_type == "code" and bool(cell.source) for cell in source.cells
        )


def test_every_link_leads_somewhere(soups):
    assert broken(soups) == []


@pytest.mark.parametrize("link", ["nowhere.html", "a.html#nowhere", "#nowhere", "nowhere.png"])
def test_a_link_that_leads_nowhere_is_noticed(tmp_path, link):
    page = tmp_path / "a.html"
    page.touch()
    html = f'<h1 id="here"><a href="a.html#here">fine</a> <a href="{link}">broken</a></h1>'
    assert len(broken({page: BeautifulSoup(html, "html.parser")})) == 1


def test_a_link_to_a_missing_page_stops_a_strict_build(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "CONTENTS", "\n\n[gone](notebooks/gone.ipynb)\n")
    monkeypatch.setattr(site, "NOTEBOOKS", tmp_path / "notebooks")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "README.md").write_text("# Syllabus\n")
    with pytest.raises(SphinxWarning, match="notebooks"):
        site.build(tmp_path / "site", strict=True)


def test_every_figure_has_a_text(soups):
    images = [image for soup in soups.values() for image in soup.find_all("img")]
    figures = [image for image in images if "_images" in image["src"]]
    assert len(figures) >= 3 * len(NOTEBOOKS)
    assert all(len(image.get("alt", "")) >= 25 for image in figures), figures
    assert all(image.get("alt") for image in images)


def test_the_pages_need_no_network_but_for_the_badge(soups):
    for soup in soups.values():
        loaded = [tag.get("src") or tag.get("href") for tag in soup.find_all(["script", "img", "iframe"])]
        loaded += [tag["href"] for tag in soup.find_all("link", rel="stylesheet")]
        assert {address for address in loaded if address and urlparse(address).scheme} <= {BADGE}


def test_formulas_are_drawn(built, soups):
    for name in NOTEBOOKS:
        article = soups[built / "notebooks" / f"{name}.html"].find("article")
        assert article.find("math")
        for code in article.find_all(["pre", "code"]):
            code.decompose()
        assert "$" not in article.get_text(), name


def test_no_line_is_broken_between_a_formula_and_its_punctuation(soups):
    formulas = [formula for soup in soups.values() for formula in soup.find_all("math", display="inline")]
    behind = [formula.next_sibling for formula in formulas if "kept" not in formula.parent.get("class", ())]
    assert len(behind) < len(formulas)
    assert not [
        text for text in behind if isinstance(text, str) and text.startswith((",", ".", ":", ";", "?", "!", ")"))
    ]


def test_the_results_are_those_of_the_records(built, soups):
    text = soups[built / "results.html"].find("article").get_text(" ")
    for _, row in records.left().iterrows():
        assert all(value in text for value in row)
    for title in site.RESULTS:
        assert title in text


def test_there_is_a_search(built, soups):
    index = (built / "searchindex.js").read_text("utf-8")
    assert all(f"notebooks/{name}" in index for name in NOTEBOOKS)
    assert built / "search.html" in soups


FIGURE = [new_output("display_data", {"image/png": "iVBORw0KGgo="})]


def test_a_figure_is_described_by_its_heading_and_by_the_function_that_draws_it():
    notebook = new_notebook(
        cells=[
            new_code_cell(
                "from helpers.plots import tour as plots\n\ndef move(m):\n    return plots.settling(m)\n\nx = 1"
            ),
            new_markdown_cell("# Title\n\ntext\n\n## The `figure` of $x$\n\nmore"),
            new_code_cell("plots.ensemble(x, y)", outputs=FIGURE),
            new_code_cell("move(3)", outputs=FIGURE),
            new_code_cell("other()", outputs=FIGURE),
        ]
    )
    texts = [cell.metadata.mystnb.image.alt for cell in site.described(notebook).cells[2:]]
    assert texts == [
        "The figure of x: One image, what the first few of many gated networks say about it, and the mean of all M.",
        "The figure of x: How the mean of m gated predictions nears the ideal.",
        "The figure of x",
    ]


@pytest.mark.browser
def test_on_a_phone_no_page_is_wider_than_the_screen(chromium, built, soups):
    page = chromium.new_page(viewport={"width": 390, "height": 800})
    page.route("http*://**", lambda route: route.abort())
    wide = []
    for path in soups:
        page.goto(path.as_uri())
        if page.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(path.name)
    page.close()
    assert wide == []
