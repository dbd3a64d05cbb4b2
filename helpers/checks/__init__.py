"""Checks of the exercises: each runs the reader's function on fresh random input and says what is wrong with it.

There is a module for each notebook. A check holds no solution: it compares with what this package computes. It prints
one line when all is well. What is missing it shows in a notebook, and the cells below still run; elsewhere, and when
nbgrader grades the notebook, it raises `Unsolved`.
"""

import os
from collections.abc import Callable
from functools import wraps

from IPython import get_ipython
from torch import Tensor


class Unsolved(AssertionError):
    """What an exercise still lacks, in words for the reader."""

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet: {self}"]  # IPython shows this instead of a traceback


def exercise(check: Callable[..., None]) -> Callable[..., None]:
    """The check of an exercise, with `Unsolved` shown in a notebook, and raised where there is none or nbgrader runs it."""

    @wraps(check)
    def shown(*answer: object) -> None:
        try:
            check(*answer)
        except Unsolved as unsolved:
            if get_ipython() is None or "NBGRADER_EXECUTION" in os.environ:
                raise
            print(f"Not yet: {unsolved}")

    return shown


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
