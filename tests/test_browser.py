"""The student edition in JupyterLab, in a real browser: Run All reaches the end, and every widget moves its figure.

One notebook by default; ``make browser`` takes them all. After a failure ``build/browser`` has a picture of the page.
"""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass

import nbformat
import pytest

from helpers import pages
from helpers.course import student
from helpers.files import write
from tests.conftest import brief_notebook

pytestmark = pytest.mark.browser

MINUTES = 60_000  # Playwright counts in milliseconds; limits are for a machine that is busy with something else

# All cells are in the page, and none is drawn only when it is scrolled into view.
SETTINGS = {"@jupyterlab/notebook-extension/tracker.jupyterlab-settings": '{"windowingMode": "none"}'}


@dataclass
class Lab:
    """A JupyterLab over the student edition."""

    port: int
    token: str

    def ask(self, method, place, **body):
        """What the server answers, as JSON."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api{place}",
            method=method,
            data=json.dumps(body).encode() if body else None,
            headers={"Authorization": f"token {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.loads(reply.read() or "null")

    def runs(self):
        try:
            return "version" in self.ask("GET", "")
        except (OSError, ValueError):
            return False

    @contextmanager
    def kernel(self, name):
        """A kernel for a notebook. It is there before the page is: JupyterLab may start two, and keep the second."""
        path = f"notebooks/{name}.ipynb"
        session = self.ask("POST", "/sessions", path=path, name=name, type="notebook", kernel={"name": "python3"})
        try:
            yield f"http://127.0.0.1:{self.port}/lab/tree/{path}?token={self.token}&reset"
        finally:
            self.ask("DELETE", f"/sessions/{session['id']}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    student.edition(folder / "student")
    for name, text in SETTINGS.items():
        write(folder / "settings" / name, text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        started = Lab(free.getsockname()[1], secrets.token_hex())
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"),
        *(
            f"--ServerApp.port={started.port}",
            "--ServerApp.port_retries=0",
            f"--IdentityProvider.token={started.token}",
        ),
        *(f"--ServerApp.root_dir={folder / 'student'}", "--LabApp.news_url=None"),
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "spaces"}
    environment = {**os.environ, **{name: str(folder / place) for name, place in own.items()}}
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 180
        while not started.runs():
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"JupyterLab did not start:\n{(folder / 'log.txt').read_text()}")
            time.sleep(0.5)
        yield started
    finally:
        server.terminate()  # and with it its kernels
        server.wait(60)


@pytest.fixture
def page(chromium, request):
    """A page whose JavaScript errors fail the test; a picture is kept of it when the test fails."""
    page = chromium.new_page(viewport={"width": 1300, "height": 1000})
    page.set_default_timeout(3 * MINUTES)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    before = request.session.testsfailed
    yield page
    if errors or request.session.testsfailed > before:
        name = re.sub(r"\W+", "-", request.node.name).strip("-")
        page.screenshot(path=pages.BUILD / "browser" / f"{name}.png")
    page.close()
    assert not errors


# No cell waits, and all have run, or one has failed.
DONE = """() => {
    const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent);
    const failed = document.querySelector('.jp-Notebook [data-mime-type="application/vnd.jupyter.error"]');
    return prompts.length && !prompts.some(p => p.includes('*')) && (failed || prompts.every(p => /[0-9]/.test(p)));
}"""


def run_all(page, address):
    answers = []
    page.on(
        "websocket",
        lambda socket: "/channels" in socket.url and socket.on("framereceived", lambda frame: answers.append(frame)),
    )
    page.goto(address)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    while not answers:  # JupyterLab calls a kernel idle that it is not connected to yet; what is run then is lost
        page.wait_for_timeout(100)
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_function(DONE, timeout=15 * MINUTES)


def complaints(page):
    """What went wrong in a cell, or inside a widget, which only prints it."""
    errors = page.locator('.jp-Notebook [data-mime-type="application/vnd.jupyter.error"]').all_inner_texts()
    printed = page.locator('.jp-Notebook [data-mime-type="application/vnd.jupyter.stderr"]').all_inner_texts()
    broken = page.get_by_text("Error displaying widget").all_inner_texts()
    return errors + [text for text in printed if "Error" in text or "Traceback" in text] + broken


def move(page, handle, patience=60):
    """Move a slider by one step: whether the figure below it became another one within `patience` seconds."""
    picture = handle.locator("xpath=ancestor::*[contains(@class, 'widget-vbox')][1]").locator("img")
    before = picture.get_attribute("src")
    value = handle.get_attribute("aria-valuenow")
    handle.scroll_into_view_if_needed()
    handle.focus()
    page.keyboard.press("ArrowRight")
    if handle.get_attribute("aria-valuenow") == value:  # it was at its end
        page.keyboard.press("ArrowLeft")
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if picture.count() == 1 and picture.get_attribute("src") != before:
            return True
        page.wait_for_timeout(100)
    return False


@brief_notebook
def test_a_notebook_runs_and_each_of_its_widgets_moves_its_figure(lab, page, name):
    source = nbformat.read(pages.NOTEBOOKS / f"{name}.ipynb", as_version=4)
    code = [cell.source for cell in source.cells if cell.cell_type == "code"]
    with lab.kernel(name) as address:
        run_all(page, address)
        assert complaints(page) == []
        unsolved = page.get_by_text(re.compile("^Not yet: "))
        assert unsolved.count() == sum("### BEGIN SOLUTION" in cell for cell in code)

        widgets = page.locator(".jp-Notebook .widget-vbox")
        assert widgets.count() == sum(len(re.findall(r"\bwidgets\.\w+\(", cell)) for cell in code) >= 1
        handles = page.locator(".jp-Notebook .noUi-handle")
        assert handles.count() >= widgets.count()
        assert [number for number in range(handles.count()) if not move(page, handles.nth(number))] == []
        assert complaints(page) == []


# A slider as ipywidgets draws one, above a figure that is another one after each key, or stays as it was.
WIDGET = """
<div class="jp-Notebook"><div class="widget-vbox">
<div class="noUi-handle" tabindex="0" aria-valuenow="1" onkeydown="{reaction}">o</div><img src="data:,1"></div></div>
"""


@pytest.mark.parametrize(("reaction", "moves"), [("document.images[0].src += 1", True), ("", False)])
def test_a_figure_that_does_not_move_is_noticed(page, reaction, moves):
    page.set_content(WIDGET.format(reaction=reaction))
    assert move(page, page.locator(".noUi-handle"), patience=2) == moves


@pytest.mark.parametrize(
    ("output", "count"),
    [
        ('<div data-mime-type="application/vnd.jupyter.error">NameError: x</div>', 1),
        ('<div data-mime-type="application/vnd.jupyter.stderr">Traceback: ValueError</div>', 1),
        ("<div>Error displaying widget: model not found</div>", 1),
        ('<div data-mime-type="application/vnd.jupyter.stderr">100 %</div>', 0),
        ('<div data-mime-type="application/vnd.jupyter.stdout">Error of the network: 1 %</div>', 0),
    ],
)
def test_an_error_in_a_cell_or_in_a_widget_is_noticed(page, output, count):
    page.set_content(f'<div class="jp-Notebook">{output}</div>')
    assert len(complaints(page)) == count
