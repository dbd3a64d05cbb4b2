"""Each exercise's check accepts right answers in more than one style, and names what is wrong with wrong ones."""

import pytest
import torch

from helpers.checks import Unsolved
from helpers.checks import bregman_losses as checks

SEEDS = pytest.mark.parametrize("seed", range(3))


def searched(grad_phi, inverse, members):
    """Without the inverse: down the gradient of the mean of ℓ(q, Y), coordinate by coordinate, by bisection."""
    low, high, target = members.min(0).values, members.max(0).values, grad_phi(members).mean(0)
    for _ in range(60):
        middle = (low + high) / 2
        above = grad_phi(middle) > target
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return low


def averaged(grad_phi, inverse, members):
    return inverse(sum(grad_phi(y) for y in members) / len(members))


@SEEDS
@pytest.mark.parametrize("answer", [averaged, searched])
def test_best_first_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.best_first(answer)
    assert "Correct" in capsys.readouterr().out


@SEEDS
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda slope, inverse, y: None, "returns nothing yet"),
        (lambda slope, inverse, y: y.mean(0), "best .second. argument"),
        (lambda slope, inverse, y: slope(y).mean(0), "mean of ∇φ"),
        (lambda slope, inverse, y: inverse(y.mean(0)), "without having been applied"),
        (lambda slope, inverse, y: slope(inverse(y).mean(0)), "changed places"),
        (lambda slope, inverse, y: inverse(slope(y)).mean(0), "best .second. argument"),
        (lambda slope, inverse, y: inverse(slope(y)), "one q"),
        (lambda slope, inverse, y: inverse(slope(y).mean(-1)), "one q"),
        (lambda slope, inverse, y: y.median(0).values, "should be"),
    ],
)
def test_best_first_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.best_first(answer)


@SEEDS
@pytest.mark.parametrize(
    "answer",
    [
        lambda y: (y**3).sum(-1),
        lambda y: (y.float() ** 3).sum(-1),
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
        (lambda y: torch.tensor([float((row**3).sum()) for row in y]), "cannot differentiate"),
        (lambda y: torch.from_numpy((y.numpy() ** 3).sum(-1)), "cannot differentiate"),
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


def members_not_normalised(f, T):
    q = (f ** (1 / T)).mean(0) ** T
    return q / q.sum()


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
        (lambda f, T: soft(f, 1 / T).mean(0), "there is another q"),
        (lambda f, T: torch.ones(4) / 4, "there is another q"),
        (members_not_normalised, "there is another q"),
    ],
)
def test_best_constant_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.best_constant(answer)
