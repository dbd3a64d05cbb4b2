"""What README says works: its lines of code run, and what it links to is there."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers import pages
from helpers.course import student

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_the_four_lines_distil_a_network():
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    torch.manual_seed(0)
    names = {
        "model": nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)),
        "unlabelled": torch.randn(100, 4),
        "inputs": torch.randn(5, 4),
    }
    exec(code, names)
    assert names["probabilities"].shape == (5, 3)
    assert names["student"] is not names["model"]


def test_what_it_links_to_is_there():
    targets = re.findall(r"\]\((?!https?://)([^)]+)\)", README)
    assert targets
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert not missing, f"README links to {missing}"


def test_every_notebook_has_a_row_and_a_badge():
    for notebook in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        assert f"(notebooks/{notebook.name})" in README
        assert f"/notebooks/{notebook.name})" in README.replace(f"(notebooks/{notebook.name})", "")


def test_the_table_of_results_is_that_of_the_records():
    assert "| CIFAR10 Quick | distilled |" in README
    assert pages.with_results(README) == README, "there are new records: `python -m helpers.pages results`"


def test_links_name_the_repository_of_pyproject():
    assert pages.linked(README) == README, "README links elsewhere: `python -m helpers.pages links`"


@pytest.mark.parametrize(
    "path", ["README.md", "notebooks/README.md", "notebooks/00_tour.py", "notebooks/00_tour.ipynb"]
)
def test_links_follow_pyproject_to_another_name_and_back(path, monkeypatch):
    text = pages.linked((ROOT / path).read_text("utf-8"))
    address, version = pages.PROJECT["urls"]["Repository"], pages.PROJECT["version"]
    where = address.removeprefix("https://github.com/")
    with monkeypatch.context() as patch:
        moved = {"urls": {"Repository": "https://github.com/me/lessons.v2"}, "version": "1.0rc1"}
        patch.setattr(pages, "PROJECT", moved)
        elsewhere = pages.linked(text)
    assert where in text and elsewhere.count("me/lessons.v2") == text.count(where)
    assert where not in elsewhere and version not in elsewhere
    assert pages.linked(elsewhere) == text


@pytest.mark.parametrize("text", [README, student.START], ids=["README", "student edition"])
def test_what_windows_and_old_macs_need_is_said_where_commands_differ(text):
    commands = re.findall(r"(?m)^    (\S+) -m ", text)
    assert {command.partition("/bin/")[0] for command in commands} == {"python3", ".venv"}
    assert "`py` for `python3`, and `.venv\\Scripts\\` for `.venv/bin/`" in text
    assert re.search(r"Mac with an\s+Intel\s+processor.*?use Colab", text, flags=re.DOTALL)


def test_teachers_are_told_that_web_pages_show_solutions():
    (paragraph,) = [part for part in README.split("\n\n") if "`make site`" in part]
    assert re.search(r"`make site`[^.]*solutions", paragraph)
