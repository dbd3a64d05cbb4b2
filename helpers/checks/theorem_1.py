"""Checks of the exercises in notebook 04."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Dirichlet

from helpers import bregman
from helpers.checks import call, exercise, mismatch, require

Loss = Callable[[Tensor, Tensor], Tensor]


def same(p: Tensor, q: Tensor | float) -> bool:
    """Whether two answers agree but for rounding."""
    return torch.allclose(p.double(), torch.as_tensor(q).double(), atol=1e-6, rtol=1e-6)


def distributions(*shape: int) -> Tensor:
    return Dirichlet(torch.ones(4).double()).sample(shape)


def near_the_edges(*shape: int) -> Tensor:
    """Distributions most of which are nearly certain, or nearly without some of the classes."""
    return 0.99 * Dirichlet(torch.full((4,), 0.2).double()).sample(shape) + 0.0025


def l1(y: Tensor, y_hat: Tensor) -> Tensor:
    return (y - y_hat).abs().sum(-1)


def unequal(masks: int) -> Tensor:
    """Probabilities of masks, [M], which are not alike."""
    return Dirichlet(torch.ones(masks).double()).sample()


@exercise
def gap(function: Callable[[Loss, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check ``function(loss, f, weights, q)``: Δ = J - J' for f [M, N, K], P(σ) [M] and q [N, K], a scalar."""
    f, weights, q = distributions(6, 5), unequal(6), distributions(5)
    ideal = torch.tensordot(weights, f, 1)
    for loss in (bregman.kl, bregman.squared_euclidean, l1):
        answer = call(function, loss, f, weights, q, number=True)
        J = loss(ideal, q).mean()
        J_prime = sum(weight * loss(member, q).mean() for weight, member in zip(weights, f, strict=True))
        delta = J - J_prime
        require(answer.shape == (), f"expected one number, got {list(answer.shape)}: take the mean over the examples.")
        require(not same(answer, -delta), "this is J' - J; the theorem has J = J' + Δ.")
        require(not same(answer, J), "this is J alone.")
        require(not same(answer, J_prime), "this is J' alone.")
        require(not same(answer, delta * len(q)), "summed over the examples; take their mean.")
        alike = bregman.objectives(loss, f, q)[2]
        require(not same(answer, alike), "all masks count the same here; each counts with its probability, weights[i].")
        require(
            not same(answer, J - loss(f, q).mean()) and not same(answer, loss(f.mean(0), q).mean() - J_prime),
            "the probabilities of the masks are in one of the two terms only: the ideal predictor has them, too.",
        )
        exchanged = (loss(q, ideal) - torch.tensordot(weights, loss(q, f), 1)).mean()
        require(
            same(answer, delta) or not same(answer, exchanged),
            "the teacher is the first argument of the loss, the student the second.",
        )
        require(
            not same(answer, 0.0),
            "zero: the mean over masks is taken inside the loss (or outside it) in both terms.",
        )
        require(same(answer, delta), f"for random f and q {mismatch(answer, delta)}")
    print("Correct: your gap is J - J' for three losses.")


@exercise
def information(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(f, weights)``: the mutual information of label and mask for each example, [N] in nats, from
    f [M, N, K] and P(σ) [M]."""
    f, weights = distributions(7, 5), unequal(7)
    answer = call(function, f, weights)
    ideal = torch.tensordot(weights, f, 1)
    expected = torch.tensordot(weights, bregman.kl(f, ideal), 1)  # how far the members are from their mean
    require(
        answer.shape == (5,),
        f"expected one number for each example, [N] = [5], got {list(answer.shape)}. Sum over the "
        "classes, average over the masks.",
    )
    require(not same(answer, -expected), "the sign is the wrong way round: information is never negative.")
    require(not same(answer, expected / torch.log(torch.tensor(2.0))), "this is in bits; use the natural logarithm.")
    require(
        not same(answer, bregman.kl(f, f.mean(0)).mean(0)),
        "all masks count the same here; each counts with its probability, weights[i].",
    )
    entropies = torch.distributions.Categorical(f).entropy()
    members = torch.tensordot(weights, entropies, 1)
    require(
        not same(answer, members + expected - entropies.mean(0)),
        "the masks' probabilities are missing in the second term.",
    )
    require(
        not same(answer, members),
        "this is the mean entropy of the members, what is unknown about the label when the "
        "mask is known; it must be taken off something.",
    )
    require(
        not same(answer, members + expected),
        "this is the entropy of the mean; take off what stays unknown when the mask is known.",
    )
    require(same(answer, expected), mismatch(answer, expected))
    certain = call(function, torch.eye(4).double()[:, None], torch.full((4,), 0.25).double())
    require(
        bool(certain.isfinite().all()),
        "NaN where a member is certain: 0 log 0 counts as 0. torch.xlogy(p, p) knows that.",
    )
    require(
        abs(certain.item() - math.log(4)) < 1e-4,
        f"of four members, each certain of another class, it should be log 4 = {math.log(4):.4f}, and is "
        f"{certain.item():.4f}: where a probability is zero, its class counts for nothing, but the others still do.",
    )
    print("Correct: your information is the distance of the members from their mean, example by example.")


@exercise
def counterexample(loss: Loss) -> None:
    """Check a loss(y, ŷ) that is a convex function of y, zero for equal arguments only, and not of the form of part ii)."""
    y, other, q = torch.cat([distributions(3, 400), near_the_edges(3, 4000)], dim=1)
    values = call(loss, y, q)
    n = len(y)
    require(values.shape == (n,), f"expected one number for each row, [{n}], got {list(values.shape)}.")
    require(bool(values.isfinite().all()), "some of the losses are NaN or infinite inside the triangle.")
    at_equality = call(loss, q, q).abs().max().item()
    require(
        at_equality < 1e-5,
        f"ℓ(y, y) must be zero, and is {at_equality:.1g} for some y. Otherwise J need not lead to the mean.",
    )
    exchanged = [y[:, order] for order in itertools.permutations(range(4)) if order != (0, 1, 2, 3)]
    for almost in (q, 0.99 * y + 0.01 * q, *exchanged):  # the last have some entries in common with y
        differ = (y - almost).abs().sum(-1) > 1e-3
        require(
            bool((call(loss, y, almost)[differ] > 0).all()),
            "ℓ(y, ŷ) must be positive wherever y and ŷ differ, in whichever entries and however little, and is not.",
        )
    excess = call(loss, (y + other) / 2, q) - (values + call(loss, other, q)) / 2
    require(
        bool((excess < 1e-6 * (1 + values)).all()),
        "it is not convex in y: halfway between two values of y it lies above the chord. Part i) would not hold.",
    )
    f, students = distributions(20, 10), distributions(30, 10)
    shape = call(loss, f, students[0]).shape
    require(
        shape == (20, 10),
        f"for y [20, 10, 4] and ŷ [10, 4] the loss must be [20, 10], and is {list(shape)}: sum over the last dimension, "
        "`.sum(-1)`, however many there are before it.",
    )
    for name, known in {"L1": l1, "reverse KL": bregman.reverse_kl}.items():
        ratio = values / known(y, q)
        require(
            not torch.allclose(ratio, ratio[0].expand(n), rtol=1e-3),
            f"this is {name}, perhaps times a number: that one is on the page. Find a third.",
        )
    deltas = torch.stack([bregman.objectives(loss, f, q)[2] for q in students]).detach()
    require(
        bool(deltas.max() - deltas.min() > 1e-6 * deltas.abs().max()),
        f"the gap J - J' is {deltas[0].item():.4f} for every student: this loss is of the form of part ii).",
    )
    print("Correct: it satisfies part i) and not part ii).")
