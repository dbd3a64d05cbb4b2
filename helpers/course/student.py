"""The edition for students, which works by itself: notebooks with gaps for answers, helpers and data."""

import re
import shutil
import tempfile
from pathlib import Path

from helpers.course import exercises
from helpers.files import put, write
from helpers.pages import BUILD, NOTEBOOKS, ROOT

HANDED_OUT = ["LICENSE", "environment.yml", "requirements.lock", "helpers", "data"]
START = """# Dropout distillation: exercises

The notebooks are in `notebooks/`, and `notebooks/README.md` says in which order to read them. Each has exercises: write
your answer where a cell says so, run the next cell, and it tells you what is still wrong. A page runs to its end
whatever you have answered. Hand in the notebooks, by the names that they have.

With conda or mamba:

    conda env create -f environment.yml
    conda activate dropout-distillation
    jupyter lab

With Python 3.11 or newer (on Windows write `py` for `python3`, and `.venv\\Scripts\\` for `.venv/bin/`; on a Mac with an
Intel processor, for which there is no recent PyTorch, use Colab):

    python3 -m venv .venv
    .venv/bin/python -m pip install -r requirements.lock
    .venv/bin/python -m jupyter lab

In Google Colab: upload a notebook; its first cell fetches what is missing.
"""


def edition(folder: Path = BUILD / "student") -> None:
    """Write the edition to `folder`, in place of what is there, when it is complete."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    for name in HANDED_OUT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, new / name, ignore=shutil.ignore_patterns("cache", "__pycache__", "*.tmp"))
        else:
            write(new / name, (ROOT / name).read_bytes())
    unpaired = re.sub(r"(?m)^formats = .*\n", "", (ROOT / "pyproject.toml").read_text("utf-8"))
    write(new / "pyproject.toml", unpaired)
    write(new / "README.md", START)
    syllabus = (NOTEBOOKS / "README.md").read_text("utf-8")  # teachers are told in it where the solutions are
    write(new / "notebooks" / "README.md", re.sub(r"(?ms)^## For teachers$.*?(?=^## )", "", syllabus))
    with tempfile.TemporaryDirectory() as course:
        for path in exercises.release(exercises.every_notebook(), Path(course)).glob("*/*.ipynb"):
            write(new / "notebooks" / path.name, path.read_bytes())
    put(new, folder)
