"""Checks of the exercises in notebook 07."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from helpers import evaluation
from helpers.checks import call, exercise, require


@exercise
def expected_maximum(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check ``function(values, p)``: the mean over masks of the maximum of `values` [n], of any sign, dropped and rescaled."""
    p, sizes = 0.2 + 0.6 * torch.rand(()).item(), torch.rand(6, dtype=torch.float64).sort().values + 0.1
    sizes = sizes[[2, 1, 0, 4, 3, 5]]  # in no order
    for values in (sizes * torch.tensor([1, -1, 1, 1, -1, 1]), -sizes):
        answer = call(function, values, p, number=True)
        require(answer.numel() == 1, f"expected one number, got a tensor of shape {list(answer.shape)}.")
        answer, truth = answer.item(), enumerated_maximum(values, p)

        def is_near(other: float | Tensor, answer: float = answer) -> bool:
            return math.isclose(answer, float(other), rel_tol=1e-6, abs_tol=1e-9)

        for complaint, value in wrong_maxima(values, p, truth).items():
            require(is_near(truth) or not is_near(value), complaint)
        shown = [round(value, 3) for value in values.tolist()]
        require(is_near(truth), f"for {shown} and p = {p:.3f} it should be {truth:.6f}, and is {answer:.6f}.")
    print("Correct: your formula agrees with the enumeration of all 2⁶ masks, also where no unit is positive.")


def wrong_maxima(values: Tensor, p: float, truth: float) -> dict[str, float]:
    """{what may go wrong: what comes of it}."""
    positive, ordered = values[values > 0], values.sort(descending=True).values
    first = torch.arange(len(positive))
    found = {
        "this is the maximum without dropout, which is what weight scaling computes.": values.max(),
        "the factor 1/(1-p) is missing: a kept unit is rescaled before it is pooled.": (1 - p) * truth,
        "units that are not positive are counted as if they could win: where anything is dropped there is a zero, which is "
        "larger.": (ordered * p ** torch.arange(len(values))).sum(),
    }
    if len(positive) == 0:
        never = "if none is positive it is not always zero: where all units are kept, the largest of them wins."
        return {never: 0.0, **found}
    return {
        "the units are taken in the order in which they come; sort them first, the largest at the front.": (
            positive * p**first
        ).sum(),
        "p and 1-p are interchanged: a unit wins if all larger ones are *dropped*, each with probability p.": (
            ordered[first] * (1 - p) ** first
        ).sum(),
        **found,
    }


def enumerated_maximum(values: Tensor, p: float) -> float:
    """The mean of the pooled value over all 2^n masks."""
    n = len(values)
    masks = (torch.arange(2**n)[:, None] >> torch.arange(n)) & 1
    weights = ((1 - p) * masks + p * (1 - masks)).prod(1)
    return float((weights * (masks * values / (1 - p)).max(1).values).sum())


@exercise
def standard_error(function: Callable[[float, int], float]) -> None:
    """Check ``function(error, n)``: the standard error [%] of an error [%] that was measured on n test images."""
    error, n = 10 + 30 * torch.rand(()).item(), int(torch.randint(500, 20_000, ()))
    try:
        answer = function(error, n)
    except ValueError:  # from `math.sqrt`, if 1 - error makes what is under it negative
        function(error / 100, n)  # raises again if that is not the reason
        answer = math.nan
    nothing = answer is None or answer is ...
    require(not nothing, "the function returns nothing yet; write its body and return a number.")
    is_number = isinstance(answer, complex) or hasattr(answer, "__float__")
    require(is_number, f"expected a number, got {type(answer).__name__}.")
    answer = math.nan if isinstance(answer, complex) else float(answer)  # the same slip with `** 0.5`
    truth = evaluation.standard_error(error, n)

    def is_near(other: float) -> bool:
        return math.isclose(answer, other, rel_tol=1e-3)

    require(not is_near(truth / 100), "this is a share; the answer is asked for in %, like the error.")
    require(  # an error of 1 % is its own square
        is_near(truth) or (not is_near(truth**2) and not is_near(truth**2 / 1e4)),
        "this is the variance; take its square root.",
    )
    require(
        not is_near(truth * math.sqrt(n)),
        "this is the standard deviation of a single image's error; the mean of n of them has 1/√n of it.",
    )
    require(not is_near(truth * math.sqrt(n) / n), "divided by n; a standard error falls as 1/√n.")
    require(
        math.isfinite(answer) and not is_near(math.sqrt(abs(error * (1 - error)) / n)),
        "the error is in %: turn it into a share before you use p(1-p).",
    )
    require(
        is_near(truth) or is_near(truth * math.sqrt(n / (n - 1))),  # which is right too
        f"for an error of {error:.2f} % on {n} images it should be {truth:.4f} %, and is {answer:.4f} %.",
    )
    print("Correct: that is how far a test error moves by chance alone.")
