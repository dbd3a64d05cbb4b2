"""Checks of the exercises in notebook 05."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from helpers import bregman
from helpers.checks import call, exercise, mismatch, require


def same(p: Tensor, q: Tensor) -> bool:
    """Whether two answers agree but for rounding, and in shape."""
    return p.shape == q.shape and torch.allclose(p.double(), q.double(), atol=1e-6, rtol=1e-6)


@exercise
def best_first(function: Callable[[Callable, Callable, Tensor], Tensor]) -> None:
    """Check ``function(grad_phi, inverse, members)``: the q [K] with the least mean of ℓ(q, Y) over members Y [M, K]."""
    for loss, inverse, average in (
        (bregman.kl, lambda slope: (slope - 1).exp(), lambda y: y.log().mean(0).exp()),
        (bregman.itakura_saito, lambda slope: -1 / slope, lambda y: 1 / (1 / y).mean(0)),
        (bregman.exponential, lambda slope: slope.log(), lambda y: y.logsumexp(0) - math.log(len(y))),
    ):
        members, slope = torch.rand(7, 3).double() + 0.1, loss.grad_phi
        expected = average(members)
        q = call(function, slope, inverse, members)
        require(q.shape == (3,), f"expected one q [K] = [3] for all members, got {list(q.shape)}.")
        require(
            not same(q, members.mean(0)), "this is the mean, which is the best *second* argument; here q stands first."
        )
        require(not same(q, slope(members).mean(0)), "this is the mean of ∇φ(Y). It is ∇φ(q) that must be equal to it.")
        require(not same(q, inverse(members.mean(0))), "∇φ is undone without having been applied to the members.")
        require(
            same(q, expected) or not same(q, slope(inverse(members).mean(0))),  # -1/y undoes itself
            "`grad_phi` and `inverse` have changed places: it is the slopes of the members that are averaged.",
        )
        require(same(q, expected), mismatch(q, expected))
    print("Correct: the geometric mean for y log y, the harmonic mean for -log y, log of the mean of exp for exp y.")


@exercise
def generator(function: Callable[[Tensor], Tensor]) -> None:
    """Check ``function(y)``: a φ whose divergence is Σ (y - ŷ)² (y + 2ŷ), for y > 0; φ(y) [N] for y [N, K]."""
    y, y_hat = torch.rand(2, 20, 3).double() * 3 + 0.2
    value = call(function, y)
    require(
        value.shape == (20,), f"φ must be one number for each row, [20]; got {list(value.shape)}: sum over the last."
    )
    try:
        differentiable = function(y.clone().requires_grad_()).requires_grad
    except RuntimeError:  # so NumPy refuses
        differentiable = False
    require(
        differentiable,
        "PyTorch cannot differentiate this φ: write it with PyTorch's operations on y, not with numbers taken out of it.",
    )
    answer = bregman.from_phi(function)(y, y_hat).detach()
    expected = ((y - y_hat).square() * (y + 2 * y_hat)).sum(-1)
    ratio = answer / expected
    require(bool(answer.abs().max() > 1e-9), "the divergence of this φ is zero everywhere: φ is a straight line.")
    require(bool((answer > -1e-9).all()), "the divergence is negative somewhere, so this φ is not convex for y > 0.")
    require(
        not bool((ratio - ratio[0]).abs().max() < 1e-6) or abs(ratio[0].item() - 1) < 1e-6,
        f"nearly: the divergence of this φ is {ratio[0].item():.3g} times what it should be.",
    )
    squares = answer / bregman.squared_euclidean(y, y_hat)
    require(
        not bool((squares - squares[0]).abs().max() < 1e-6),
        "this φ gives the squared distance, which is the same everywhere; here the second derivative must grow with y.",
    )
    require(
        torch.allclose(answer.double(), expected, rtol=1e-4),
        f"of the divergences {mismatch(answer, expected)} "
        "Set K = 1 and ŷ = 0 (or a constant) in the loss: what is left is φ, but for a straight line.",
    )
    print("Correct: the divergence of your φ is the loss.")


@exercise
def best_constant(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check ``function(f, T)``: the q for which the mean over M members f [M, K] of KL(f at T ‖ q at T) is least, [K]."""
    f, T = torch.randn(7, 4).double().mul(2).softmax(-1), 3.0
    q = call(function, f, T).double()
    require(q.shape == (4,), f"expected one distribution [K] = [4], got {list(q.shape)}: one q for all members.")
    soft = (f.log() / T).softmax(-1)

    def objective(logits: Tensor) -> Tensor:
        return bregman.kl.with_logits(soft, logits / T).mean()

    logits = f.mean(0).log().requires_grad_()
    search = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def step() -> Tensor:
        search.zero_grad()
        loss = objective(logits)
        loss.backward()
        return loss

    search.step(step)
    best = logits.detach().softmax(-1)
    require(
        not same(q, soft.mean(0)),
        "this is the mean at temperature T; it is what q must be *after* softening. Undo that.",
    )
    require(not same(q, f.mean(0)), "this is the mean of f, which is right for T = 1 only: the members are softened.")
    require(not same(q, f.log().mean(0).softmax(-1)), "this is the geometric mean, which is right for T → ∞ only.")
    require(
        not same(q, (soft.mean(0).log() / T).softmax(-1)),
        "the mean is softened a second time, instead of the softening being undone.",
    )
    require(abs(q.sum().item() - 1) < 1e-6, f"q must sum to 1, and sums to {q.sum().item():.3f}: divide by the sum.")
    require(same(q, best), f"there is another q, at which the mean loss is less: of it {mismatch(q, best)}")
    print("Correct: no other q does better.")
