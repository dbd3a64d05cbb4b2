"""Checks of the exercises in notebook 00."""

import math
from collections.abc import Callable
from itertools import combinations, product

import torch
from torch import Tensor, nn

from helpers import bregman, gates, predictors
from helpers.checks import call, exercise, mismatch, require


def distance(p: Tensor, q: Tensor) -> float:
    """Mean absolute difference of two tables of probabilities [N, K]."""
    return (p - q).abs().mean().item()


def small_network(x: Tensor) -> nn.Sequential:
    """A random network with six gates: few enough to enumerate, and so crooked that three means of it lie far apart on
    the inputs `x` [N, 4]: arithmetic, geometric, and weight scaling."""
    while True:
        model = nn.Sequential(
            nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)
        ).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(4)
        means = [predictors.exact(model, x), predictors.exact(model, x, "geometric"), predictors.standard(model, x)]
        if min(distance(p, q) for p, q in combinations(means, 2)) > 0.05:
            return model


def every_prediction(model: nn.Module, x: Tensor) -> Tensor:
    """Probabilities [2^6, N, K] of `x` [N, D] under each mask of a network with six gates, all in one layer."""
    (layer,), predictions = gates.stochastic_layers(model), []
    for mask in product([0.0, 1.0], repeat=6):
        with gates.fixed(model, {layer: torch.tensor(mask)}), torch.no_grad():
            predictions.append(model(x).softmax(-1))
    return torch.stack(predictions)


@exercise
def monte_carlo(function: Callable[[nn.Module, Tensor, int], Tensor]) -> None:
    """Check ``function(model, x, m)``: the mean of `m` gated predictions, eq. 4."""
    x, m = torch.randn(64, 4), 1000
    model = small_network(x)
    p = call(function, model, x, m)
    require(
        p.shape == (64, 3),
        f"expected probabilities [N, K] = [64, 3], got {list(p.shape)}. Is the mean over the masks?",
    )
    require(bool(p.isfinite().all()), "some of the answers are NaN or infinite.")
    require(
        bool(torch.allclose(p.double().sum(-1), torch.ones(64).double(), atol=1e-3)),
        f"each row must sum to 1, but the first sums to {p[0].sum():.3f}. The ideal predictor averages probabilities: "
        "take the softmax of every pass over the classes, `softmax(-1)`, and divide the sum by m.",
    )
    require(
        distance(p, predictors.standard(model, x)) > 0.02,
        "this is the standard prediction: no unit was dropped. Run the passes inside `with gates.sampling(model):`.",
    )
    require(
        distance(p, predictors.exact(model, x, "geometric")) > 0.02,
        "this is the softmax of the mean logits, which is the geometric mean of the predictions. "
        "Average the probabilities.",
    )
    error = distance(p, predictors.exact(model, x))
    require(
        error < 0.02,
        f"the answer is {error:.2f} away from the mean over all 2^6 masks, too far for m = {m} masks. "
        "Is a new mask drawn in every pass, and are all m passes averaged?",
    )
    once = call(function, model, x[:1], 1).double()
    require(
        bool(torch.isclose(every_prediction(model, x[:1]).double(), once, atol=1e-4).all(-1).any()),
        "with m = 1 the answer should be the prediction under one mask, and is not: draw m masks, neither more nor fewer.",
    )
    require(
        not any(module.training for module in model.modules()),
        "the model, or a layer of it, was left in training mode; `with gates.sampling(model):` puts modes back by itself.",
    )
    print("Correct: your average agrees with the enumeration of all 2⁶ masks.")


@exercise
def kl(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(y, y_hat)``: KL(y ‖ ŷ) of each row, in nats."""
    y, y_hat = torch.randn(2, 50, 5).mul(2).softmax(-1)
    answer = call(function, y, y_hat)
    expected = bregman.kl(y, y_hat)

    def agrees(other: Tensor) -> bool:
        return answer.shape == other.shape and torch.allclose(answer.double(), other.double(), atol=1e-4)

    require(
        answer.ndim > 0,
        "one number for all rows; sum over the classes only, so that the result is [N].",
    )
    shape = list(answer.shape)
    require(shape == [50], f"expected one number per row, [50], got {shape}: sum over the classes, `.sum(-1)`.")
    require(not agrees(bregman.kl(y_hat, y)), "this is KL(ŷ ‖ y): the expectation must be under y, the first argument.")
    require(not agrees(-expected), "the sign is the wrong way round: KL is never negative.")
    require(not agrees(expected / torch.log(torch.tensor(2.0))), "this is in bits; use the natural logarithm.")
    require(
        not agrees(-(y * y_hat.log()).sum(-1)),
        "this is the cross-entropy -Σ y log ŷ; KL has the entropy of y taken off: Σ y (log y - log ŷ).",
    )
    require(agrees(expected), mismatch(answer, expected))
    zero = call(function, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]))
    require(
        bool(zero.isfinite().all()),
        "NaN where y has a zero: 0 log 0 counts as 0. torch.xlogy(y, y) knows that.",
    )
    require(
        abs(zero.item() - math.log(2)) < 1e-4,
        "where y has a zero, that class counts for nothing, but the others still do: of y = (1, 0) and ŷ = (1/2, 1/2) "
        f"KL is log 2 = {math.log(2):.4f}, and your answer is {zero.item():.4f}.",
    )
    print("Correct: your divergence agrees with bregman.kl, also where a probability is zero.")
