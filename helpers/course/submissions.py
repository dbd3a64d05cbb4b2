"""What students hand in, and which of it is graded."""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path


def readable(name: str) -> str:
    """The `name` of a file as text: bytes that are no UTF-8, which old archives leave in it, become \\xfc and the like."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def say(message: str) -> None:
    print(readable(message))


def has_solutions(path: Path) -> bool:
    with suppress(OSError):  # `points` says what is wrong with a notebook that cannot be read
        return b"### BEGIN SOLUTION" in path.read_bytes()
    return False


def folders(submissions: Path) -> list[Path]:
    """The students' folders in `submissions`; what lies beside them is printed.

    Names with a dot or two underscores in front are not a student's: .git, .DS_Store, __MACOSX.
    """
    paths = [path for path in sorted(submissions.iterdir()) if not path.name.startswith((".", "__"))]
    for path in paths:
        if not path.is_dir():
            say(f"{path.name} is in no student's folder, and is not graded")
    return [path for path in paths if path.is_dir()]


def spelled(path: Path) -> str:
    """The name of `path` as those of the suite are spelled: "00_tour" for "00 Tour.ipynb"."""
    return re.sub("[ -]", "_", path.stem.casefold())


def named(path: Path, known: Iterable[str]) -> str | None:
    """The notebook whose name is in that of `path`, as in "Copy of 00_tour", "00_Tour" and "00_tour (1)"."""
    return next((name for name in known if name in spelled(path)), None)


def number(path: Path, name: str | None) -> int:
    """The last number after the notebook's `name` in that of `path`, 2 in "00_tour (2)" and "00_tour-Copy2"; otherwise 0."""
    _, _, added = spelled(path).partition(name or path.stem)
    return int((re.findall(r"[0-9]+", added) or [0])[-1])


@dataclass
class Choice:
    """What is graded of a `student`, {name: notebook}, and why what else was found is not.

    `left_out` has {name of a notebook of the suite: reasons}, and under ``None`` those that belong to no notebook.
    """

    student: str
    notebooks: dict[str, Path] = field(default_factory=dict)
    left_out: dict[str | None, list[str]] = field(default_factory=dict)

    def leave_out(self, name: str | None, why: str) -> None:
        say(f"{self.student}: {why}")
        self.left_out.setdefault(name, []).append(readable(why))

    def missing(self, name: str) -> str:
        """The remark on notebook `name`, which is not graded."""
        return "; ".join(["not handed in", *self.left_out.get(name, []), *self.left_out.get(None, [])])


def choose(one: Path, known: Iterable[str]) -> Choice:
    """What to grade in the folder `one` of a student; what is left out is printed.

    Of several notebooks of one name it is the one in the fewest folders. One whose name has been added to counts where
    there is no other; of those it is the one with the highest number, "00_tour (2)" before "00_tour (1)".
    """
    choice = Choice(one.name)
    # In Colab the set-up cell fetches the suite, with its solutions, to beside the notebook. The student edition may
    # have been unpacked under the same name, but it has no .py halves.
    clones = [path for path in sorted(one.rglob("dropout-distillation")) if any(path.glob("notebooks/[0-9]*.py"))]
    for clone in clones:
        why = f"{clone.relative_to(one)} is a copy of the suite with its solutions, and is not graded"
        choice.leave_out(None, why)
    files = [path for path in one.rglob("[!.]*") if path.is_file()]
    files = [path for path in files if not any(path.is_relative_to(clone) for clone in clones)]
    paths = [path for path in files if path.suffix == ".ipynb"]
    if files and not paths:
        found = ", ".join(sorted(path.name for path in one.iterdir()))
        choice.leave_out(None, f"no notebook is in the folder, only {found}")

    def order(path: Path) -> tuple:
        return path.stem not in known, len(path.parts), -number(path, named(path, known)), path

    for path in sorted(paths, key=order):
        name, where = named(path, known), path.relative_to(one)
        if name is None:
            choice.leave_out(None, f"{where} has the name of no notebook of the suite, and is not graded")
        elif has_solutions(path):
            choice.leave_out(name, f"{where} has the solutions in it (### BEGIN SOLUTION), and is not graded")
        elif name in choice.notebooks:
            why = f"{where} is not graded: there is {choice.notebooks[name].relative_to(one)} too, and that is"
            choice.leave_out(name, why)
        else:
            choice.notebooks[name] = path
            if path.stem != name:
                say(f"{one.name}: {where} is taken for {name}.ipynb")
    return choice
