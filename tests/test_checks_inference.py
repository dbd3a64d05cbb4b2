"""Each exercise's check accepts right answers in more than one style, and names what is wrong with wrong ones."""

from itertools import product

import pytest
import torch

from helpers import gates, moments, predictors
from helpers.checks import Unsolved
from helpers.checks import inference as checks


def fixed_masks(model, x):
    """Logits [M, N, K] under each mask, and the masks' probabilities."""
    layers, shapes = gates.stochastic_layers(model), gates.gate_shapes(model, x)
    masks, weights = gates.enumerated(layers, shapes, 0, 2**6)
    logits = []
    for i in range(2**6):
        with gates.fixed(model, {name: mask[i] for name, mask in masks.items()}), torch.no_grad():
            logits.append(model(x))
    return torch.stack(logits).double(), weights


def ideal_mask_by_mask(model, x):
    logits, weights = fixed_masks(model, x)
    return torch.tensordot(weights, logits.softmax(-1), 1)


def ideal_unweighted(model, x):
    return fixed_masks(model, x)[0].softmax(-1).mean(0)


def ideal_of_logits(model, x):
    logits, weights = fixed_masks(model, x)
    return torch.tensordot(weights, logits, 1).softmax(-1)


def ideal_not_summed(model, x):
    logits, weights = fixed_masks(model, x)
    return weights[:, None, None] * logits.softmax(-1)


def logits_averaged(model, x):
    logits, weights = fixed_masks(model, x)
    return torch.tensordot(weights, logits, 1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("answer", [predictors.exact, ideal_mask_by_mask])
def test_ideal_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.ideal(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda model, x: None, "returns nothing yet"),
        (ideal_unweighted, "all masks count the same"),
        (ideal_of_logits, "standard prediction"),
        (predictors.standard, "standard prediction"),
        (ideal_not_summed, "sum over the masks"),
        (logits_averaged, "sum to 1"),
        (lambda model, x: predictors.monte_carlo(model, x, 64), "should be"),
        (lambda model, x: predictors.exact(model, x[:1]).expand(20, -1), "should be"),
    ],
)
def test_ideal_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.ideal(answer)


def pooled_by_horner(h, p):
    total = torch.zeros(len(h))
    for column in h.sort(-1).values.T:
        total = column + p * total
    return total


def pooled_by_masks(h, p):
    total = torch.zeros(len(h))
    for mask in product([0.0, 1.0], repeat=h.shape[-1]):
        kept = sum(mask)
        total += p ** (len(mask) - kept) * (1 - p) ** kept * (h * torch.tensor(mask) / (1 - p)).amax(-1)
    return total


def descending(h):
    return h.sort(-1, descending=True).values


@pytest.mark.parametrize(
    "answer",
    [pooled_by_horner, pooled_by_masks, lambda h, p: (descending(h) * p ** torch.arange(h.shape[-1])).sum(-1)],
)
def test_pooled_mean_accepts_right_answers(answer, capsys):
    checks.pooled_mean(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda h, p: ..., "returns nothing yet"),
        (lambda h, p: h.amax(-1), "what weight scaling says"),
        (lambda h, p: (1 - p) * pooled_by_masks(h, p), "not rescaled"),
        (lambda h, p: (h * p ** torch.arange(h.shape[-1])).sum(-1), "in order"),
        (lambda h, p: (h.sort(-1).values * p ** torch.arange(h.shape[-1])).sum(-1), "in order"),
        (lambda h, p: (descending(h) * (1 - p) ** torch.arange(h.shape[-1])).sum(-1), "With which probability"),
        (lambda h, p: pooled_by_masks(h, p).mean(), "one mean for each window"),
    ],
)
def test_pooled_mean_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.pooled_mean(answer)


normal = torch.distributions.Normal(0.0, 1.0)


def rectified_by_normal(mean, var):
    u = mean / var.sqrt()
    return mean * normal.cdf(u) + var.sqrt() * normal.log_prob(u).exp()


def rectified_by_quadrature(mean, var):
    z = torch.linspace(-9, 9, 40_001, dtype=torch.float64)
    values = (mean[:, None] + var[:, None].sqrt() * z).relu() * torch.exp(-z.square() / 2)
    return values.sum(-1) * (z[1] - z[0]) / (2 * torch.pi) ** 0.5


@pytest.mark.parametrize(
    "answer", [lambda m, v: moments.rectified(m, v)[0], rectified_by_normal, rectified_by_quadrature]
)
def test_rectified_mean_accepts_right_answers(answer, capsys):
    checks.rectified_mean(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda mean, var: None, "returns nothing yet"),
        (lambda mean, var: mean.relu(), "ReLU of the mean"),
        (lambda mean, var: rectified_by_normal(mean, var.square()), "is a variance"),
        (lambda mean, var: mean * normal.cdf(mean / var.sqrt()), "second term is missing"),
        (
            lambda mean, var: (
                rectified_by_normal(mean, var) + (1 - var.sqrt()) * normal.log_prob(mean / var.sqrt()).exp()
            ),
            "unit of z",
        ),
        (lambda mean, var: rectified_by_normal(mean, var).mean(), "one mean for each unit"),
        (lambda mean, var: mean, "should be"),
        (lambda mean, var: mean / (var - var), "NaN"),
    ],
)
def test_rectified_mean_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.rectified_mean(answer)
