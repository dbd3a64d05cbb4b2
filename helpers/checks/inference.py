"""Checks of the exercises in notebook 02."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers import moments, predictors
from helpers.checks import call, exercise, mismatch, require


def identity(z: Tensor) -> Tensor:
    return z


def far(p: Tensor, q: Tensor) -> bool:
    """Whether two answers of one shape differ by more than rounding."""
    return not torch.allclose(p.double(), q.double(), atol=1e-4, rtol=1e-4)


@exercise
def ideal(function: Callable[[nn.Module, Tensor], Tensor]) -> None:
    """Check ``function(model, x)``: the mean over all masks, eq. 3, of a network whose rate is not 1/2."""
    x = torch.randn(20, 4)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    q = call(function, model, x)
    require(q.shape == (20, 3), f"expected probabilities [N, K] = [20, 3], got {list(q.shape)}: sum over the masks.")
    sums = q.sum(-1)
    require(
        not far(sums, torch.ones(20)),
        f"each row must sum to 1, but the first sums to {sums[0]:.3f}. The probabilities of the masks sum to 1 already, "
        "and it is probabilities that are averaged: take the softmax of each mask's logits over the classes, `softmax(-1)`.",
    )
    even = copy.deepcopy(model)  # masks at rate 1/2 are equally likely; kept units are still divided by 0.7
    even[2].p = 0.5
    even[3].weight.data *= 0.5 / 0.7
    require(
        far(q, predictors.exact(even, x)),
        "all masks count the same here, but at rate 0.3 a mask that keeps more units is more likely: use the "
        "probabilities that gates.enumerated returns.",
    )
    require(
        far(q, predictors.standard(model, x)),
        "this is the standard prediction, the softmax of the mean logits. Average the probabilities.",
    )
    expected = predictors.exact(model, x)
    require(
        not far(q, expected),
        f"{mismatch(q, expected)} Is each example seen under all 2^6 masks, inside `with gates.fixed(model, masks):`?",
    )
    print("Correct: your mean over all masks agrees with predictors.exact.")


@exercise
def pooled_variance(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check ``function(h, p)``: the variance of the largest of n positive units, dropped at rate p and rescaled."""
    h, p = torch.rand(7, 5) + 0.1, 0.3
    answer = call(function, h, p)
    require(answer.shape == (7,), f"expected one variance for each window, [7], got {list(answer.shape)}.")
    pool = nn.Sequential(nn.Dropout(p), nn.MaxPool1d(5))
    mean = predictors.exact(pool, h[:, None], output=identity).flatten()
    square = predictors.exact(pool, h[:, None], output=torch.square).flatten()
    expected = square - mean**2
    require(far(answer, mean), "this is the mean; the variance is the mean of the square less the square of the mean.")
    require(far(answer, square), "this is the mean of the square; take off the square of the mean.")
    require(far(answer, expected.sqrt()), "this is the standard deviation; the variance is its square.")
    require(
        far(answer, (1 - p) ** 2 * expected),
        "the units are dropped but not rescaled: kept units are multiplied by 1 / (1 - p).",
    )
    require(
        far(answer, (1 - p) * square - mean**2),
        "in the square the rescaling is squared, too: of the two factors 1 / (1 - p) only one cancels.",
    )
    chances = (1 - p) * p ** torch.arange(5)
    for order in (h, h.sort(-1).values):
        values = order / (1 - p)
        wrong = (chances * values**2).sum(-1) - (chances * values).sum(-1) ** 2
        require(
            far(answer, wrong),
            "the units must be in order, the largest first: it is the second largest that counts when the largest is gone.",
        )
    require(
        not far(answer, expected),
        f"{mismatch(answer, expected)} With which probability is the k-th largest unit the largest that is left, and how "
        "large is it then?",
    )
    alone = h[:, :1]
    require(not far(call(function, alone, p), p / (1 - p) * alone[:, 0] ** 2), "it is wrong for windows of one unit.")
    print("Correct: your variance agrees with the enumeration of all 2⁵ masks.")


@exercise
def rectified_mean(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(mean, var)``: E[max(0, z)] for z ~ N(mean, var)."""
    mean, var = torch.randn(50), torch.rand(50) * 4 + 0.1
    answer = call(function, mean, var)
    expected = moments.rectified(mean, var)[0]
    require(answer.shape == (50,), f"expected one mean for each unit, [50], got {list(answer.shape)}.")
    require(bool(answer.isfinite().all()), "some of the answers are NaN or infinite.")
    require(far(answer, mean.relu()), "this is the ReLU of the mean, which is what weight scaling takes for the mean.")
    require(
        far(answer, moments.rectified(mean, var.square())[0]),
        "`var` is a variance; the formula has the standard deviation s, its square root.",
    )
    normal = torch.distributions.Normal(0.0, 1.0)
    u = mean / var.sqrt()
    require(
        far(answer, mean * normal.cdf(u)),
        "the second term is missing: also where z is near zero, what is above zero counts.",
    )
    require(
        far(answer, mean * normal.cdf(u) + normal.log_prob(u).exp()),
        "the density term has the unit of z: multiply it by s.",
    )
    require(not far(answer, expected), mismatch(answer, expected))
    print("Correct: your mean agrees with the one that fast dropout carries through a ReLU.")
