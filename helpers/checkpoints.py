"""Files that an interrupted run continues from: written whole or not at all, loaded without executing code."""

import re
import tempfile
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers import functional
from helpers.files import replacing

FORMAT = 1
FUNCTIONS = (FunctionType, partial)


def save(path: Path, settings: dict, state: dict) -> None:
    """Write `state` and the `settings` it belongs to, so that `path` holds the old file or the new one, never half.

    Raises
    ------
    OSError : if the file cannot be written (no permission, full disk); the old one is intact.
    """
    try:
        with replacing(path) as file:
            torch.save({"format": FORMAT, "settings": settings, **state}, file)
    except (OSError, RuntimeError) as error:
        # On a full disk PyTorch's zip writer complains of a position in the file while it handles what says why.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise OSError(f"cannot write the checkpoint {path}: {reason}") from error


def require_writable(path: Path) -> None:
    """Raise OSError unless a checkpoint can be written to `path`: better before the first epoch than after it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(f"cannot write the checkpoint {path}: {error}") from error


def load(path: Path, settings: dict, device: torch.device) -> dict[str, Any] | None:
    """The state saved at `path`, its tensors on `device`, or ``None`` if there is no such file.

    Raises
    ------
    ValueError : if the file is damaged or no checkpoint, or was written under other `settings`.
    OSError : if it cannot be read, or is a folder.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if state["format"] != FORMAT:
            raise ValueError(f"its format is {state['format']}, this version reads {FORMAT}")
        saved = state["settings"]
    except (PermissionError, IsADirectoryError, MemoryError, torch.OutOfMemoryError):
        raise  # the file may be good
    except Exception as error:  # a damaged file can raise almost anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{path} is not a checkpoint that can be read ({reason}); delete it to start afresh"
        ) from error
    if different := [key for key in saved | settings if saved.get(key) != settings.get(key)]:
        lines = [f"  {key}: {saved.get(key)!r} there, {settings.get(key)!r} here" for key in different]
        raise ValueError(
            "\n".join([f"the checkpoint {path} belongs to another configuration:", *lines])
            + "\nUse the same settings to continue that run, or another path to start a new one."
        )
    return state


def fingerprint(values: Iterable[Any]) -> int:
    """A checksum of the shapes and values of tensors: equal for equal ones, and almost surely different otherwise. Of what else
    there is, such as the extra state of a module, nothing counts."""
    total = 0
    for tensor in (value for value in values if isinstance(value, Tensor)):
        total = zlib.crc32(repr((tensor.dtype, tuple(tensor.shape))).encode(), total)
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        total = zlib.crc32(flat.view(torch.uint8).numpy() if flat.numel() else b"", total)
    return total


def layers(model: nn.Module) -> str:
    """A network's class, and a checksum of the layers that it shows."""
    return f"{type(model).__name__} {zlib.crc32(text(model).encode()):08x}"


def plain(value: Any) -> Any:
    """`value` with NumPy's numbers as Python's, since a file with others in it cannot be loaded again."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def describe(function: Callable | None) -> str:
    """A function's name and bound arguments, or an object's class and what it says of itself, the same in every process.

    Functions are told apart by their defaults and by the numbers and strings that they enclose, those without a name by
    their code as well. Of an object's attributes those that are functions count, and what its `repr` shows; others are
    left out: some count, or remember.
    """
    if isinstance(function, partial):
        bound = {**dict(enumerate(function.args)), **function.keywords}
        values = {key: describe(value) if callable(value) else text(value) for key, value in bound.items()}
        listed = [value if isinstance(key, int) else f"{key}={value}" for key, value in values.items()]
        return f"{describe(function.func)}({', '.join(listed)})"
    if not hasattr(function, "__qualname__"):
        kind = describe(type(function))
        said = [] if type(function).__repr__ is object.__repr__ else [text(function)]
        held = [describe(value) for value in getattr(function, "__dict__", {}).values() if isinstance(value, FUNCTIONS)]
        return " ".join([kind, *said, *held])
    name = f"{function.__module__}.{function.__qualname__}"
    if name.endswith("<lambda>"):
        code = function.__code__
        constants = [text(c) for c in code.co_consts if not hasattr(c, "co_code")]
        name += f" {zlib.crc32(repr((code.co_code, code.co_names, constants)).encode()):08x}"
    return " ".join([name, *map(text, kept_values(function))])


def kept_values(function: Callable) -> list[Any]:
    """The defaults of `function`, and the numbers and strings that it takes from the functions around it."""
    defaults = getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None)
    enclosed = functional.closure(function).items() if isinstance(function, FunctionType) else ()
    plain = {name: value for name, value in enclosed if isinstance(value, bool | int | float | str)}
    return [value for value in (*defaults, plain) if value]


def text(value: Any) -> str:
    """`repr` without addresses, which are other ones in every process."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))
