"""What all tests share: one thread, kernels without ports, the notebooks, and a compiler, git and a browser if any."""

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import tests.kernels  # noqa: F401 - for what the import does
from helpers.experiments.sparsifying import can_compile

# For networks as small as those of the tests a second thread costs more than it computes.
torch.set_num_threads(1)


NOTEBOOKS = sorted(path.stem for path in (Path(__file__).parent.parent / "notebooks").glob("[0-9]*.ipynb"))
BRIEF = "05_bregman_losses"  # the notebook that runs in the shortest time

# Where a whole notebook is run, an ordinary run has one of them.
brief_notebook = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == BRIEF else pytest.mark.slow) for name in NOTEBOOKS]
)

compiler = pytest.mark.skipif(
    not can_compile(), reason="compiling takes a C++ compiler, and Python's headers (python3-dev)"
)
git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def is_checkout() -> bool:
    """Whether git is here and takes this copy for a checkout, as it does not where the folder is somebody else's."""
    root = Path(__file__).parent.parent
    if shutil.which("git") is None or not (root / ".git").exists():
        return False
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True).returncode == 0


@contextlib.contextmanager
def graphs_are_compiled():
    """Fails if nothing was compiled inside: PyTorch may pass a network over and say nothing."""
    statistics = torch._dynamo.utils.counters["stats"]
    before = statistics["unique_graphs"]
    yield
    assert statistics["unique_graphs"] > before


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium: the system's, or the one that Playwright installed. Without one the test is skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    system = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    with playwright.sync_playwright() as running:
        try:
            browser = running.chromium.launch(executable_path=system, args=options, timeout=120_000)
        except playwright.Error as error:
            pytest.skip(f"no Chromium can be started (apt-get install chromium): {str(error).splitlines()[0]}")
        yield browser
        browser.close()
