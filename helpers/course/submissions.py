"""What students hand in, and which of it is graded."""

from collections.abc import Iterable
from contextlib import suppress
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


def named(path: Path, known: Iterable[str]) -> str | None:
    """The notebook whose name is in that of `path`, as in "Copy of 00_tour" and "00_tour (1)"."""
    return next((name for name in known if name in path.stem), None)


def choose(one: Path, known: Iterable[str]) -> dict[str, Path]:
    """{name: notebook} of those to grade in the folder `one` of a student; what is left out is printed.

    Of several notebooks of one name it is the one in the fewest folders. One whose name has been added to counts where
    there is no other.
    """
    # In Colab the set-up cell fetches the suite, with its solutions, to beside the notebook. The student edition may
    # have been unpacked under the same name, but it has no .py halves.
    clones = [path for path in sorted(one.rglob("dropout-distillation")) if any(path.glob("notebooks/[0-9]*.py"))]
    for clone in clones:
        say(f"{one.name}: {clone.relative_to(one)} is a copy of the suite with its solutions, and is not graded")
    files = [path for path in one.rglob("[!.]*") if path.is_file()]
    files = [path for path in files if not any(path.is_relative_to(clone) for clone in clones)]
    paths = [path for path in files if path.suffix == ".ipynb"]
    if files and not paths:
        say(f"{one.name}: no notebook is in it, only {', '.join(sorted(path.name for path in one.iterdir()))}")
    chosen: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: (path.stem not in known, len(path.parts), path)):
        name, where = named(path, known), f"{one.name}: {path.relative_to(one)}"
        if name is None:
            say(f"{where} has the name of no notebook of the suite, and is not graded")
        elif has_solutions(path):
            say(f"{where} has the solutions in it (### BEGIN SOLUTION), and is not graded")
        elif name in chosen:
            say(f"{where} is not graded: there is {chosen[name].relative_to(one)} too, and that is")
        else:
            chosen[name] = path
            if path.stem != name:
                say(f"{where} is taken for {name}.ipynb")
    return chosen
