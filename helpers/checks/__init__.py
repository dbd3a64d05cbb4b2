"""Checks of the exercises: each runs the reader's function on fresh random input and says what is wrong with it.

There is a module for each notebook. A check holds no solution: it compares with what this package computes. It prints
one line when all is well, and otherwise raises `Unsolved`, which notebooks show as its message alone.
"""

from collections.abc import Callable

from torch import Tensor


class Unsolved(AssertionError):
    """What an exercise still lacks, in words for the reader."""

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet: {self}"]  # IPython shows this instead of a traceback


def require(condition: bool, message: str) -> None:
    if not condition:
        raise Unsolved(message)


def call(function: Callable, *args: object) -> Tensor:
    """The function's answer, if it is a tensor."""
    answer = function(*args)
    require(
        answer is not None and answer is not ...,
        "the function returns nothing yet; write its body and return a tensor.",
    )
    require(isinstance(answer, Tensor), f"expected a tensor, got {type(answer).__name__}.")
    return answer.detach()
