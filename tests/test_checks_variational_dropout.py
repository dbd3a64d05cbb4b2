"""The checks of notebook 09 accept right answers in more than one style, and name what is wrong with wrong ones."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge

from helpers import variational
from helpers.checks import Unsolved
from helpers.checks import variational_dropout as checks

K1, K2, K3 = 0.63576, 1.87320, 1.48695


def by_formula(a):
    return K1 - K1 * torch.sigmoid(K2 + K3 * a) + 0.5 * torch.log(1 + torch.exp(-a))


def with_the_rounded_constants(a):
    return K1 * torch.sigmoid(-(K2 + K3 * a)) - 0.5 * F.logsigmoid(a)


def in_double(a):
    return by_formula(a.double())


@pytest.mark.parametrize("answer", [by_formula, with_the_rounded_constants, variational.kl, in_double])
@pytest.mark.parametrize("seed", range(3))
def test_divergence_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.divergence(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda a: None, "returns nothing yet"),
        (lambda a: ..., "returns nothing yet"),
        (lambda a: by_formula(a).sum(), "for each weight"),
        (lambda a: -by_formula(a), "sign"),
        (lambda a: -in_double(a), "sign"),
        (lambda a: by_formula(a.neg_()), "changed its argument in place"),
        (lambda a: by_formula(a) - K1, "vanish for large"),
        (lambda a: K1 - by_formula(a), "vanish for large"),
        (lambda a: by_formula(a.exp()), "log α already"),
        (lambda a: K1 * torch.sigmoid(-K2 - K3 * a) + F.softplus(-a), "one half"),
        (lambda a: K1 * torch.sigmoid(-K2 - K3 * a) + 0.5 * F.softplus(a), "1/α"),
        (lambda a: a.square(), "should be"),
        (lambda a: (a - 9).sqrt(), "NaN"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_divergence_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.divergence(answer)


def local(x, theta, log_sigma2):
    mean, variance = x @ theta.T, x**2 @ log_sigma2.exp().T
    return mean + variance.sqrt() * torch.randn_like(mean)


def weights_for_each_example(x, theta, log_sigma2):
    w = theta + (log_sigma2 / 2).exp() * torch.randn(len(x), *theta.shape)
    return torch.einsum("nki,ni->nk", w, x)


def local_in_double(x, theta, log_sigma2):
    return local(x.double(), theta.double(), log_sigma2.double())


def with_scale(x, theta, log_sigma2, scale):
    mean = x @ theta.T
    return mean + scale * torch.randn_like(mean)


def one_number_for_all_outputs(x, theta, log_sigma2):
    return x @ theta.T + (x**2 @ log_sigma2.exp().T).sqrt() * torch.randn(len(x), 1)


def always_the_same_noise(x, theta, log_sigma2):
    torch.manual_seed(0)
    return local(x, theta, log_sigma2)


def one_weight_for_all(x, theta, log_sigma2):
    return x @ (theta + (log_sigma2 / 2).exp() * torch.randn_like(theta)).T


@pytest.mark.parametrize("answer", [local, weights_for_each_example, local_in_double])
@pytest.mark.parametrize("seed", range(5))
def test_local_noise_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.local_noise(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x, m, s: None, "returns nothing yet"),
        (lambda x, m, s: local(x, m, s).T, "expected outputs"),
        (lambda x, m, s: x @ m.T, "no noise"),
        (one_weight_for_all, "noise of its own"),
        (lambda x, m, s: local(x, 2 * m, s), "not θ x"),
        (lambda x, m, s: with_scale(x, m, s, x**2 @ s.exp().T), "square root"),
        (lambda x, m, s: with_scale(x, m, s, (x**2 @ (s / 2).exp().T).sqrt()), "takes σ for σ²"),
        (lambda x, m, s: with_scale(x, m, s, (x @ s.exp().T).abs().sqrt()), "square the inputs"),
        (lambda x, m, s: with_scale(x, m, s, x @ (s / 2).exp().T), "standard deviations were added"),
        (lambda x, m, s: local(x, m, s + 2), "should be near"),
        (one_number_for_all_outputs, "share their noise"),
        (always_the_same_noise, "do not set a seed"),
        (lambda x, m, s: local(x.square_(), m, s), "changed its argument in place"),
        (lambda x, m, s: local(x, m, s.exp_().log()), "changed its argument in place"),
        (lambda x, m, s: with_scale(x, m, s, (x @ s.T - 99).sqrt()), "NaN"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_local_noise_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.local_noise(answer)


def rates(X, penalty):
    return penalty / (penalty + X.square().sum(0))


def rates_from_log_odds(X, penalty):
    return torch.sigmoid(math.log(penalty) - (X.T @ X).diagonal().log())


def rates_by_bisection(X, penalty):
    low, high = torch.zeros(X.shape[1]).double(), torch.ones(X.shape[1]).double()
    for _ in range(60):
        p = (low + high) / 2
        too_much = p / (1 - p) * X.square().sum(0) > penalty
        low, high = torch.where(too_much, low, p), torch.where(too_much, p, high)
    return p


@pytest.mark.parametrize("answer", [rates, rates_from_log_odds, rates_by_bisection])
@pytest.mark.parametrize("seed", range(3))
def test_rates_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.rates(answer)
    assert "Correct" in capsys.readouterr().out


def test_with_the_right_rates_dropout_is_ridge_regression():
    """Against scikit-learn, by going through all masks of the features."""
    torch.manual_seed(0)
    X, t, penalty = torch.randn(30, 3).double(), torch.randn(30).double(), 7.0
    p = rates(X, penalty)
    squares, products = torch.zeros(3, 3).double(), torch.zeros(3).double()
    for mask in itertools.product([0.0, 1.0], repeat=3):
        sigma = torch.tensor(mask).double()
        probability = ((1 - p) * sigma + p * (1 - sigma)).prod()
        gated = X * sigma / (1 - p)
        squares += probability * gated.T @ gated
        products += probability * gated.T @ t
    ridge = Ridge(alpha=penalty, fit_intercept=False).fit(X.numpy(), t.numpy()).coef_
    torch.testing.assert_close(torch.linalg.solve(squares, products), torch.from_numpy(ridge))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda X, penalty: None, "returns nothing yet"),
        (lambda X, penalty: rates(X, penalty)[:, None], "each feature"),
        (lambda X, penalty: rates(X, penalty).mean(), "each feature"),
        (lambda X, penalty: penalty / X.square().sum(0), "between 0 and 1"),
        (lambda X, penalty: 1 - rates(X, penalty), "keeping"),
        (lambda X, penalty: rates(1 / X.norm(dim=0, keepdim=True), penalty), "squares divide"),
        (lambda X, penalty: rates(X / len(X) ** 0.5, penalty), "do not divide by N"),
        (lambda X, penalty: rates(X.norm(dim=0, keepdim=True).sqrt(), penalty), "no square root"),
        (lambda X, penalty: 1 + rates(X, penalty), "lies between"),
        (lambda X, penalty: torch.full((4,), 0.5), "should be"),
        (lambda X, penalty: rates(X.mul_(2), penalty), "changed its argument in place"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_rates_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.rates(answer)
