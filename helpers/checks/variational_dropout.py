"""Checks of the exercises in notebook 09."""

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from helpers import variational
from helpers.checks import call, exercise, mismatch, require

ROWS = 4000  # with so many, a sample variance is within 14 % of the true one in all but two of 1e9 cases


@exercise
def divergence(function: Callable[[Tensor], Tensor]) -> None:
    """Check ``function(log_alpha)``: KL(q ‖ p) of each weight by eq. 14, zero where log α is large."""
    log_alpha = torch.rand(40) * 10 - 5
    answer, expected = call(function, log_alpha), variational.kl(log_alpha)

    def agrees(other: Tensor) -> bool:
        return answer.shape == other.shape and torch.allclose(answer.double(), other.double(), atol=2e-3)

    require(answer.shape == (40,), f"expected a divergence for each weight, [40], got {list(answer.shape)}.")
    require(
        bool(answer.isfinite().all()),
        "some of the answers are NaN or infinite. The argument is log α, which may be negative: α is its exponential.",
    )
    require(not agrees(-expected), "eq. 14 is about -KL; the sign is the wrong way round.")
    level = variational.kl(torch.tensor(-30.0)) - 15  # what the sigmoid comes to
    require(
        not agrees(expected - level) and not agrees(level - expected),
        "it should vanish for large α: that is what the constant C is there for.",
    )
    require(
        not agrees(variational.kl(log_alpha.exp()))
        and not agrees(expected - sigmoid_part(log_alpha) + sigmoid_part(log_alpha.exp())),
        "the argument is log α already, and the sigmoid takes log α, not α.",
    )
    require(
        not agrees(2 * expected - sigmoid_part(log_alpha)),
        "the logarithm has a factor of one half.",
    )
    require(
        not agrees(sigmoid_part(log_alpha) + 0.5 * torch.log1p(log_alpha.exp())),
        "the logarithm is of 1 + 1/α, so that the divergence is large where α is small; this is log(1 + α).",
    )
    require(agrees(expected), mismatch(answer, expected))
    print("Correct: your divergence is that of the package.")


def sigmoid_part(log_alpha: Tensor) -> Tensor:
    """What the package's divergence has beside ½ log(1 + 1/α)."""
    return variational.kl(log_alpha) - 0.5 * torch.log1p((-log_alpha).exp())


@exercise
def local_noise(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check ``function(x, theta, log_sigma2)``: outputs [N, out] with the law of x wᵀ for w ~ N(θ, σ²)."""
    theta, log_sigma2, x, variances = distinguishable()
    y = call(function, x.repeat(ROWS, 1), theta, log_sigma2)
    require(y.shape == (ROWS, 3), f"expected outputs [N, out] = [{ROWS}, 3], got {list(y.shape)}.")
    require(
        bool(y.isfinite().all()),
        "some of the outputs are NaN or infinite. Of what is the root taken? The variance is Σ σⱼ² xⱼ², with "
        "σ² = exp(log σ²), and never negative.",
    )
    require(
        len(y.unique(dim=0)) > 1,
        "all examples get the same output for the same input. Either there is no noise, or one draw of the weights serves "
        "the whole batch; every example needs noise of its own: torch.randn_like(mean).",
    )
    found = y.double().var(0)
    require(
        bool(((y.mean(0) - theta @ x).abs() < 6 * (found / ROWS).sqrt()).all()), "the mean over many draws is not θ x."
    )
    for complaint, variance in variances.items():
        require(complaint == "right" or not torch.allclose(found, variance.double(), rtol=0.14), complaint)
    right = variances["right"]
    require(
        torch.allclose(found, right.double(), rtol=0.14),
        f"the variances should be near {rounded(right)}, and are {rounded(found)}.",
    )
    together = y.T.corrcoef().fill_diagonal_(0).abs().max().item()
    require(
        together < 6 / ROWS**0.5,
        f"the outputs of an example share their noise (a correlation of {together:.2f}): each output has weights of its own.",
    )
    require(
        not torch.equal(y, call(function, x.repeat(ROWS, 1), theta, log_sigma2)),
        "two calls drew the same noise; do not set a seed inside the function.",
    )
    print("Correct: your outputs have the mean and the variance of outputs through sampled weights.")


def distinguishable() -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """A layer θ [3, 5] and log σ², an input x [5], and {what went wrong: variances [3]}, no two of which are alike."""
    while True:
        theta, log_sigma2, x = torch.randn(3, 5), torch.rand(3, 5) - 1.5, torch.randn(5)
        sigma, sigma2 = log_sigma2.mul(0.5).exp(), log_sigma2.exp()
        variances = {
            "right": sigma2 @ x**2,
            "the noise is scaled by the variance; scale it by its square root.": (sigma2 @ x**2) ** 2,
            "this takes σ for σ²: exp(log σ²), not exp(log σ² / 2).": sigma @ x**2,
            "the variance of a sum of wⱼ xⱼ is the sum of σⱼ² xⱼ²: square the inputs.": (sigma2 @ x).abs(),
            "the standard deviations were added. Of independent weights the variances add: Σ σⱼ² xⱼ².": (sigma @ x)
            ** 2,
        }
        if all(((a / b).log().abs() > 0.5).any() for a, b in combinations(variances.values(), 2)):
            return theta, log_sigma2, x, variances


def rounded(values: Tensor) -> list[float]:
    return [round(value, 2) for value in values.tolist()]


@exercise
def rates(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check ``function(X, penalty)``: the rates p [D] with which eq. 20 is ridge regression with this penalty."""
    X, penalty = torch.randn(50, 4).double(), 5 + 20 * torch.rand(()).item()
    X *= torch.tensor([0.2, 1.0, 2.0, 5.0])  # so that it matters that dropout knows the features' scales
    answer = call(function, X, penalty)
    require(
        answer.shape == (4,),
        f"expected a rate for each feature, [4], got {list(answer.shape)}. Dropout's penalty of a feature has the sum of its "
        "squares in it, ridge's has not.",
    )
    squares = X.square().sum(0)

    def is_answer(p: Tensor) -> bool:
        return torch.allclose(answer.double(), p, rtol=1e-4, atol=1e-8)

    alpha = penalty / squares
    right = alpha / (1 + alpha)
    require(not is_answer(alpha), "these are the αᵢ of Gaussian dropout. A rate is p = α / (1 + α), between 0 and 1.")
    require(not is_answer(1 - right), "these are the probabilities of *keeping* a feature.")
    require(not is_answer(penalty * squares / (1 + penalty * squares)), "the squares divide: αᵢ (XᵀX)ᵢᵢ has to be λ.")
    require(
        not is_answer(alpha * len(X) / (1 + alpha * len(X))),
        "XᵀX is a sum over the examples, not a mean: do not divide by N.",
    )
    norms = penalty / squares.sqrt()
    require(
        not is_answer(norms / (1 + norms)), "(XᵀX)ᵢᵢ is the sum of the *squares* of a feature; take no square root."
    )
    require(bool(((answer > 0) & (answer < 1)).all()), "a rate lies between 0 and 1; some of these do not.")
    require(is_answer(right), mismatch(answer, right))
    print("Correct: with these rates eq. 20 has the coefficients of ridge regression.")
