"""Checks of the exercises in notebook 03."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers import moments, predictors
from helpers.checks import call, exercise, mismatch, require


def far(p: Tensor, q: Tensor, rounding: float = 1e-5) -> bool:
    """Whether two answers differ by more than the rounding of float32, or in shape."""
    return p.shape != q.shape or not torch.allclose(p.double(), q.double(), atol=rounding, rtol=1e-4)


def gated_linear(w: Tensor, b: Tensor, p: float) -> nn.Sequential:
    """Dropout at rate p and a linear layer with weights [K, n] and biases [K]."""
    model = nn.Sequential(nn.Dropout(p), nn.Linear(w.shape[1], w.shape[0])).double()
    model[1].weight.data, model[1].bias.data = w, b
    return model


@exercise
def scaled(function: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> None:
    """Check ``function(w, b, v, p)``: the renormalised geometric mean over masks d of softmax(W (d ∘ v) + b), in one pass.
    The masks do not rescale."""
    w, b, v, p = torch.randn(3, 6).double(), torch.randn(3).double(), torch.randn(10, 6).double(), 0.3
    answer = call(function, w, b, v, p)
    require(answer.shape == (10, 3), f"expected probabilities [N, K] = [10, 3], got {list(answer.shape)}.")
    softmax = lambda scale, bias: (v @ (scale * w).T + bias * b).softmax(-1)
    sums_to_one = not bool((answer.sum(-1) - 1).abs().max() > 1e-6)
    require(sums_to_one, "each row must sum to 1: take the softmax over the classes, `softmax(-1)`.")
    require(far(answer, softmax(1, 1)), "the weights are not scaled: these masks do not rescale what they keep.")
    require(far(answer, softmax(p, 1)), "the factor is the probability of *keeping* a unit, not the rate.")
    require(far(answer, softmax(0.5, 1)), "this is right for rate 1/2 only; here it is 0.3.")
    require(far(answer, softmax(1 - p, 1 - p)), "no gate drops the bias, so it is not scaled.")
    require(
        far(answer, softmax(1 / (1 - p), 1)),
        "dividing by 1 - p is what *inverted* dropout does in training; here nothing was rescaled in training.",
    )
    # `nn.Dropout` does rescale what it keeps; weights times 1 - p undo that.
    expected = predictors.exact(gated_linear((1 - p) * w, b, p), v, "geometric")
    require(not far(answer, expected), mismatch(answer, expected))
    print("Correct: one pass agrees with the geometric mean over all 2⁶ masks.")


@exercise
def geometric_mean(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(f, weights)``: the renormalised geometric mean over masks of f [M, N, K] with P(σ) [M]."""
    logits, weights = torch.randn(8, 5, 4).double() * 3, torch.rand(8).double()
    f, weights = logits.softmax(-1), weights / weights.sum()
    answer = call(function, f, weights)
    require(answer.shape == (5, 4), f"expected probabilities [N, K] = [5, 4], got {list(answer.shape)}.")
    product = f.log().mul(weights[:, None, None]).sum(0).exp()
    require(far(answer, product), "this does not sum to 1 yet: divide by the sum over the classes, eq. 7.55.")
    require(far(answer, torch.tensordot(weights, f, 1)), "this is the arithmetic mean.")
    require(
        far(answer, f.log().mean(0).softmax(-1)),
        "all masks count the same here; the exponent of each is its probability, weights[i].",
    )
    expected = torch.tensordot(weights, logits, 1).softmax(-1)  # of a softmax, it is the softmax of the mean logits
    require(not far(answer, expected), mismatch(answer, expected))
    f = (300 * torch.randn(1024, 2, 4).double()).softmax(-1).clamp_min(1e-200)
    even = torch.full((1024,), 1 / 1024).double()
    many = call(function, f, even)
    require(
        bool(many.isfinite().all()),
        "with 1,024 masks the product underflows to 0, and 0 / 0 is NaN: add logarithms instead of multiplying, and take "
        "the softmax of the sum.",
    )
    expected = f.log().mean(0).softmax(-1)
    require(
        not far(many, expected, rounding=1e-3),
        f"of probabilities as small as 1e-200, which count as they are: {mismatch(many, expected)}",
    )
    print("Correct: your mean agrees with the softmax of the mean logits.")


@exercise
def ensemble_variance(function: Callable[[Tensor, Tensor, float, float], Tensor]) -> None:
    """Check ``function(w, x, p, tau)``: the variance of y under the arithmetic mean of all gated linear regressions."""
    w, x, p, tau = torch.randn(6).double(), torch.randn(10, 6).double(), 0.3, 0.7
    answer = call(function, w, x, p, tau)
    require(answer.shape == (10,), f"expected a variance for each input, [10], got {list(answer.shape)}.")
    _, between = moments.logit_moments(gated_linear(w[None], torch.zeros(1).double(), p), x)
    between = between.detach().flatten()
    require(far(answer, between), "the noise is missing: the variance of y about each mask's mean is τ².")
    require(far(answer, torch.full_like(between, tau**2)), "the means of the masks differ, too; add their variance.")
    require(far(answer, between + tau), "the noise has *standard deviation* τ; its variance is τ².")
    require(
        far(answer, (1 - p) ** 2 * between + tau**2),
        "p (1 - p) is the variance of a gate that does not rescale; here what is kept is divided by 1 - p.",
    )
    require(far(answer, (1 - p) * between + tau**2), "the variance of σ / (1 - p) is p / (1 - p), not p.")
    require(not far(answer, between + tau**2), mismatch(answer, between + tau**2))
    print("Correct: your variance agrees with the one that fast dropout carries to the output.")
