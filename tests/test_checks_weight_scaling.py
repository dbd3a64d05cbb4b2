"""Each exercise's check accepts right answers in more than one style, and names what is wrong with wrong ones."""

from itertools import product

import pytest
import torch

from helpers.checks import Unsolved
from helpers.checks import weight_scaling as checks


def scaled_by_masks(w, b, v, p):
    """All masks in a loop, without rescaling."""
    log_mean = torch.zeros(len(v), len(b)).double()
    for mask in product([0.0, 1.0], repeat=v.shape[1]):
        kept = sum(mask)
        probability = (1 - p) ** kept * p ** (len(mask) - kept)
        log_mean += probability * ((v * torch.tensor(mask)) @ w.T + b).log_softmax(-1)
    return log_mean.softmax(-1)


@pytest.mark.parametrize(
    "answer",
    [
        lambda w, b, v, p: ((1 - p) * v @ w.T + b).softmax(-1),
        lambda w, b, v, p: torch.nn.functional.linear(v, w * (1 - p), b).softmax(dim=1),
        scaled_by_masks,
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_scaled_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.scaled(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda w, b, v, p: None, "returns nothing yet"),
        (lambda w, b, v, p: (v @ w.T + b).softmax(-1), "not scaled: these masks"),
        (lambda w, b, v, p: (v @ w.mul_(1 - p).T + b).softmax(-1), "changed its argument in place"),
        (lambda w, b, v, p: (p * v @ w.T + b).softmax(-1), "probability of .keeping."),
        (lambda w, b, v, p: (v @ w.T / 2 + b).softmax(-1), "rate 1/2 only"),
        (lambda w, b, v, p: ((1 - p) * (v @ w.T + b)).softmax(-1), "no gate drops the bias"),
        (lambda w, b, v, p: (v @ w.T / (1 - p) + b).softmax(-1), "inverted"),
        (lambda w, b, v, p: (1 - p) * v @ w.T + b, "take the softmax"),
        (lambda w, b, v, p: ((1 - p) * v @ w.T).softmax(-1), "should be"),
    ],
)
def test_scaled_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.scaled(answer)


def geometric_by_logarithms(f, weights):
    logs = (weights[:, None, None] * f.log()).sum(0)
    unnormalised = (logs - logs.max(-1, keepdim=True).values).exp()
    return unnormalised / unnormalised.sum(-1, keepdim=True)


def geometric_by_products(f, weights):
    product = f.prod(0) ** (1 / len(f))
    return product / product.sum(-1, keepdim=True)


def geometric_by_weighted_products(f, weights):
    product = torch.ones_like(f[0])
    for row, weight in zip(f, weights * len(f), strict=True):
        product = product * row**weight
    product = product ** (1 / len(f))
    return product / product.sum(-1, keepdim=True)


def geometric_by_roots(f, weights):
    product = (f ** weights[:, None, None]).prod(0)  # of numbers near one, which does not underflow
    return product / product.sum(-1, keepdim=True)


GEOMETRIC = [
    geometric_by_logarithms,
    lambda f, w: torch.tensordot(w, f.log(), 1).softmax(-1),
    geometric_by_roots,
    lambda f, w: torch.tensordot(w.float(), f.log().float(), 1).softmax(-1),
]


@pytest.mark.parametrize("answer", GEOMETRIC)
@pytest.mark.parametrize("seed", range(4))
def test_geometric_mean_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.geometric_mean(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda f, w: ..., "returns nothing yet"),
        (lambda f, w: torch.tensordot(w, f.log(), 1).exp(), "divide by the sum over the classes"),
        (lambda f, w: torch.tensordot(w, f, 1), "arithmetic mean"),
        (lambda f, w: f.log().mean(0).softmax(-1), "count the same"),
        (lambda f, w: torch.tensordot(w, f.log_(), 1).softmax(-1), "changed its argument in place"),
        (geometric_by_products, "count the same"),
        (geometric_by_weighted_products, "underflows"),
        (lambda f, w: torch.tensordot(w, f.clamp_min(1e-8).log(), 1).softmax(-1), "as small as 1e-200.*should be"),
        (lambda f, w: f.log().sum(0).softmax(-1), "should be"),
        (lambda f, w: w[:, None, None] * f.log(), "expected probabilities"),
    ],
)
def test_geometric_mean_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.geometric_mean(answer)


def variance_by_masks(w, x, p, tau):
    first = second = 0
    for mask in product([0.0, 1.0], repeat=len(w)):
        kept = sum(mask)
        probability = (1 - p) ** kept * p ** (len(mask) - kept)
        mean = (x * torch.tensor(mask) / (1 - p)) @ w
        first, second = first + probability * mean, second + probability * (mean**2 + tau**2)
    return second - first**2


@pytest.mark.parametrize("answer", [lambda w, x, p, tau: tau**2 + p / (1 - p) * (x**2 @ w**2), variance_by_masks])
@pytest.mark.parametrize("seed", range(3))
def test_ensemble_variance_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.ensemble_variance(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda w, x, p, tau: None, "returns nothing yet"),
        (lambda w, x, p, tau: p / (1 - p) * (x**2 @ w**2), "noise is missing"),
        (lambda w, x, p, tau: torch.full((len(x),), tau**2).double(), "add their variance"),
        (lambda w, x, p, tau: tau + p / (1 - p) * (x**2 @ w**2), "its variance is τ²"),
        (lambda w, x, p, tau: tau**2 + p * (1 - p) * (x**2 @ w**2), "does not rescale"),
        (lambda w, x, p, tau: tau**2 + p * (x**2 @ w**2), "not p"),
        (lambda w, x, p, tau: tau**2 + p / (1 - p) * (x @ w) ** 2, "should be"),
        (lambda w, x, p, tau: (tau**2 + p / (1 - p) * (x**2 @ w**2)).sum(), "a variance for each input"),
    ],
)
def test_ensemble_variance_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.ensemble_variance(answer)
