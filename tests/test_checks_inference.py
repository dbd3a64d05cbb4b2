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


def moment_by_horner(h, p, power):
    total = torch.zeros(len(h))
    for column in (h.sort(-1).values / (1 - p)).T:
        total = (1 - p) * column**power + p * total
    return total


def moment_by_masks(h, p, power):
    total = torch.zeros(len(h))
    for mask in product([0.0, 1.0], repeat=h.shape[-1]):
        kept = sum(mask)
        largest = (h * torch.tensor(mask) / (1 - p)).amax(-1)
        total += p ** (len(mask) - kept) * (1 - p) ** kept * largest**power
    return total


def varies_by_horner(h, p):
    return moment_by_horner(h, p, 2) - moment_by_horner(h, p, 1) ** 2


def varies_by_masks(h, p):
    return moment_by_masks(h, p, 2) - moment_by_masks(h, p, 1) ** 2


def varies_by_formula(h, p):
    ordered, powers = h.sort(-1, descending=True).values, p ** torch.arange(h.shape[-1])
    return (powers * ordered**2).sum(-1) / (1 - p) - (powers * ordered).sum(-1) ** 2


def varies_in_this_order(h, p):
    powers = p ** torch.arange(h.shape[-1])
    return (powers * h**2).sum(-1) / (1 - p) - (powers * h).sum(-1) ** 2


@pytest.mark.parametrize("answer", [varies_by_horner, varies_by_masks, varies_by_formula])
def test_pooled_variance_accepts_right_answers(answer, capsys):
    checks.pooled_variance(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda h, p: ..., "returns nothing yet"),
        (lambda h, p: moment_by_masks(h, p, 1), "this is the mean;"),
        (lambda h, p: moment_by_masks(h, p, 2), "mean of the square;"),
        (lambda h, p: varies_by_masks(h, p).sqrt(), "standard deviation"),
        (lambda h, p: (1 - p) ** 2 * varies_by_masks(h, p), "not rescaled"),
        (lambda h, p: (1 - p) * moment_by_masks(h, p, 2) - moment_by_masks(h, p, 1) ** 2, "only one cancels"),
        (varies_in_this_order, "in order"),
        (lambda h, p: varies_in_this_order(h.sort(-1).values, p), "in order"),
        (lambda h, p: varies_by_formula(h, 1 - p), "With which probability"),
        (lambda h, p: varies_by_masks(h, p).mean(), "one variance for each window"),
        (lambda h, p: varies_by_masks(h, p) if h.shape[-1] > 1 else 0 * h[:, 0], "windows of one unit"),
        (lambda h, p: varies_by_formula(h.mul_(2), p), "changed its argument in place"),
    ],
)
def test_pooled_variance_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.pooled_variance(answer)


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
