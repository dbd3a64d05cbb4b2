"""Checks of the exercises: each runs the reader's function on fresh random input and says what is wrong with it.

There is a module for each notebook. A check compares with what this package computes or with what can be counted. It prints
one line when all is well. What is missing it shows in a notebook, and the cells below still run; elsewhere, and when
nbgrader grades the notebook, it raises `Unsolved`. An answer that ends in an error of its own is treated alike: in a
notebook its traceback is shown.
"""

import os
from collections.abc import Callable
from functools import wraps
from numbers import Real

import torch
from IPython import get_ipython
from torch import Tensor


class Unsolved(AssertionError):
    """What an exercise still lacks, in words for the reader."""

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet: {self}"]  # IPython shows this instead of a traceback


def exercise(check: Callable[..., None]) -> Callable[..., None]:
    """The check of an exercise. What it raises is shown in a notebook, and raised where there is none or nbgrader runs it."""

    @wraps(check)
    def shown(*answer: object) -> None:
        try:
            check(*answer)
        except Exception as error:
            shell = get_ipython()
            if shell is None or "NBGRADER_EXECUTION" in os.environ:
                raise
            if isinstance(error, Unsolved):
                print(f"Not yet: {error}")
            else:
                print("Not yet: the function, or the check of what it returns, ends in an error. This is where:")
                shell.showtraceback()  # the cell itself does not fail, so that those below it run

    return shown


def require(condition: bool, message: str) -> None:
    if not condition:
        raise Unsolved(message)


def mismatch(answer: Tensor, expected: Tensor) -> str:
    """Where `answer` is furthest from what is `expected`, in words, with as many digits as it takes to see it."""
    difference = (answer.double() - expected.double()).abs().nan_to_num(torch.inf)
    worst = tuple(int(i) for i in torch.unravel_index(difference.argmax(), answer.shape))
    found, wanted = answer[worst].item(), expected[worst].item()
    digits = next((d for d in range(4, 17) if f"{found:.{d}g}" != f"{wanted:.{d}g}"), 17)
    which = f"entry {list(worst)}" if worst else "it"
    return f"{which} should be {wanted:.{digits}g}, and is {found:.{digits}g}."


def call(function: Callable, *args: object, number: bool = False) -> Tensor:
    """The function's answer, if it is a tensor and the tensors among `args` are as they were.

    With `number`, a real number of Python or NumPy will do, which is returned as a tensor.
    """
    before = [arg.clone() if isinstance(arg, Tensor) else None for arg in args]
    answer = function(*args)
    require(
        all(old is None or torch.equal(arg, old) for arg, old in zip(args, before, strict=True)),
        "the function changed its argument in place (for example `w *= ...`); make a new tensor.",
    )
    kind = "number" if number else "tensor"
    require(
        answer is not None and answer is not ...,
        f"the function returns nothing yet; write its body and return a {kind}.",
    )
    of_numpy = not isinstance(answer, Tensor) and getattr(answer, "shape", None) == ()
    if number and (isinstance(answer, Real) or of_numpy):
        return torch.tensor(float(answer), dtype=torch.float64)
    require(isinstance(answer, Tensor), f"expected a {kind}, got {type(answer).__name__}.")
    return answer.detach()
