"""Each exercise's check accepts right answers in more than one style, and names what is wrong with wrong ones."""

import pytest
import torch

from helpers import bregman
from helpers.checks import Unsolved
from helpers.checks import bregman_losses as checks

SEEDS = pytest.mark.parametrize("seed", range(3))


def gap(phi, grad_phi, y, y_hat):
    return phi(y) - phi(y_hat) - ((y - y_hat) * grad_phi(y_hat)).sum(-1)


def three_parts(phi, grad_phi, y, y_hat):
    slope = grad_phi(y_hat)
    return phi(y) + (torch.einsum("nk,nk->n", y_hat, slope) - phi(y_hat)) - torch.einsum("nk,nk->n", y, slope)


def by_autograd(phi, grad_phi, y, y_hat):
    return bregman.from_phi(phi)(y, y_hat)


@SEEDS
@pytest.mark.parametrize("answer", [gap, three_parts, by_autograd])
def test_divergence_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.divergence(answer)
    assert "Correct" in capsys.readouterr().out


@SEEDS
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda phi, grad, y, y_hat: None, "returns nothing yet"),
        (lambda phi, grad, y, y_hat: gap(phi, grad, y_hat, y), "exchanged"),
        (lambda phi, grad, y, y_hat: phi(y) - phi(y_hat) - ((y - y_hat) * grad(y)).sum(-1), "slope is taken at y"),
        (lambda phi, grad, y, y_hat: -gap(phi, grad, y, y_hat), "sign"),
        (lambda phi, grad, y, y_hat: phi(y) - phi(y_hat), "difference of the two heights"),
        (lambda phi, grad, y, y_hat: phi(y) - phi(y_hat) + ((y - y_hat) * grad(y_hat)).sum(-1), "must be taken off"),
        (lambda phi, grad, y, y_hat: gap(phi, grad, y, y_hat).mean(), "one number for each row"),
        (lambda phi, grad, y, y_hat: phi(y)[:, None] - (y - y_hat) * grad(y_hat), "one number for each row"),
        (lambda phi, grad, y, y_hat: (y - y_hat).square().sum(-1), "should be"),
    ],
)
def test_divergence_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.divergence(answer)


@SEEDS
@pytest.mark.parametrize(
    "answer",
    [
        lambda y: (y**3).sum(-1),
        lambda y: (y * y * y - 4 * y + 1).sum(-1),
        lambda y: ((y - 1).square() * (y + 2)).sum(-1),  # the slice at ŷ = 1
    ],
)
def test_generator_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.generator(answer)
    assert "Correct" in capsys.readouterr().out


@SEEDS
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda y: None, "returns nothing yet"),
        (lambda y: ..., "returns nothing yet"),
        (lambda y: y**3, "sum over the last"),
        (lambda y: 3 * y.sum(-1), "straight line"),
        (lambda y: -(y**3).sum(-1), "not convex"),
        (lambda y: (y**3).sum(-1) / 3, "0.333 times"),
        (lambda y: y.square().sum(-1), "squared distance"),
        (lambda y: 3 * y.square().sum(-1), "squared distance"),
        (lambda y: (y**4).sum(-1), "should be"),
        (lambda y: torch.xlogy(y, y).sum(-1), "should be"),
    ],
)
def test_generator_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.generator(answer)


def soft(f, T):
    return (f.log() / T).softmax(-1)


def by_powers(f, T):
    softened = f ** (1 / T)
    q = (softened / softened.sum(-1, keepdim=True)).mean(0) ** T
    return q / q.sum()


def by_logarithms(f, T):
    return (T * soft(f, T).mean(0).log()).softmax(-1)


@SEEDS
@pytest.mark.parametrize("answer", [by_powers, by_logarithms])
def test_best_constant_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.best_constant(answer)
    assert "Correct" in capsys.readouterr().out


@SEEDS
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda f, T: None, "returns nothing yet"),
        (lambda f, T: soft(f, T), "one q for all members"),
        (lambda f, T: soft(f, T).mean(0), "Undo"),
        (lambda f, T: f.mean(0), "T = 1 only"),
        (lambda f, T: f.log().mean(0).softmax(-1), "T → ∞ only"),
        (lambda f, T: soft(soft(f, T).mean(0), T), "second time"),
        (lambda f, T: soft(f, T).mean(0) ** T, "divide by the sum"),
        (lambda f, T: soft(f, 1 / T).mean(0), "there is one with"),
        (lambda f, T: torch.ones(4) / 4, "there is one with"),
    ],
)
def test_best_constant_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.best_constant(answer)
