"""The checks of notebook 09 accept right answers in more than one style, and name what is wrong with wrong ones."""

import pytest
import torch
import torch.nn.functional as F

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


def solved(X, t, alpha):
    A = X.T @ X
    return torch.linalg.solve(A + torch.diag(A.diag() * alpha), X.T @ t)


def by_extra_rows(X, t, alpha):
    """Least squares with a row √(α ΣX²) for each feature, whose target is zero."""
    rows = torch.diag((alpha * X.square().sum(0)).sqrt())
    return torch.linalg.lstsq(torch.cat([X, rows]), torch.cat([t, torch.zeros_like(alpha)])).solution


def ridge(X, t, penalty):
    return torch.linalg.solve(X.T @ X + torch.diag(penalty), X.T @ t)


@pytest.mark.parametrize("answer", [solved, by_extra_rows])
@pytest.mark.parametrize("seed", range(3))
def test_regression_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.regression(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda X, t, a: None, "returns nothing yet"),
        (lambda X, t, a: solved(X, t, a)[:, None], "each feature"),
        (lambda X, t, a: ridge(X, t, 0 * a), "least squares"),
        (lambda X, t, a: ridge(X, t, a), "eq. 19"),
        (lambda X, t, a: solved(X, t, a.mean().expand(4)), "α of its own"),
        (lambda X, t, a: solved(X, t, 1 / a), "should multiply"),
        (lambda X, t, a: solved(X, t, a / len(X)), "do not divide by N"),
        (lambda X, t, a: torch.ones(4), "not zero there"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_regression_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.regression(answer)
