"""Each exercise's check accepts right answers in more than one style, and names what is wrong with wrong ones."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.checks import Unsolved
from helpers.checks import dropout as checks


def comparison(x, p):
    return x * (torch.rand_like(x) >= p) / (1 - p)


def bernoulli(x, p):
    return x * torch.bernoulli(torch.full_like(x, 1 - p)).div(1 - p)


def shared(x, p):
    return x * (torch.rand(x.shape[1]) >= p) / (1 - p)


def shared_from_a_layer(x, p):
    return x * nn.functional.dropout(torch.ones(1, x.shape[1]), p)


def as_many(x, p):
    """Drops as many units of x [..., D] in each mask."""
    return x * (torch.randperm(x.shape[-1]) >= round(p * x.shape[-1])) / (1 - p)


def whole_examples(x, p):
    return x * (torch.rand(len(x), 1) >= p) / (1 - p)


def in_place(x, p):
    return x.mul_((torch.rand_like(x) >= p) / (1 - p))


def seeded(x, p):
    return x * (torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) >= p) / (1 - p)


@pytest.mark.parametrize("answer", [comparison, bernoulli, nn.functional.dropout])
@pytest.mark.parametrize("seed", range(5))
def test_dropout_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.dropout(answer)
    assert "Correct" in capsys.readouterr().out


COMMON = [
    (lambda x, p: None, "returns nothing yet"),
    (lambda x, p: ..., "returns nothing yet"),
    (lambda x, p: x, "nothing was dropped"),
    (lambda x, p: 0 * x, "everything was dropped"),
    (lambda x, p: comparison(x, p).sum(0), "expected the shape of x"),
    (in_place, "x itself was changed"),
]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        *COMMON,
        (lambda x, p: x * (torch.rand_like(x) >= p), r"mean falls to 1 - p"),
        (lambda x, p: x * (torch.rand_like(x) >= p) * (1 - p), r"\*divide\* by 1 - p"),
        (lambda x, p: x * (torch.rand_like(x) < p) / p, "divided by p"),
        (lambda x, p: x * (torch.rand_like(x) < p) / (1 - p), r"probability of \*dropping\*"),
        (lambda x, p: x * (torch.rand_like(x) >= 0.5) / (1 - p), "it should be about 0.7"),
        (lambda x, p: x * 2 * (torch.rand_like(x) >= p), "it should be 1.429"),
        (lambda x, p: x * (1 + torch.randn_like(x)), "different numbers"),
        (lambda x, p: nn.functional.dropout(x, p, False), "eval mode"),
        (lambda x, p: x / (1 - p), "nothing was dropped. Run it again"),
        (lambda x, p: comparison(x, p) * torch.rand_like(x), "different numbers"),
        (shared, "lost the same units"),
        (whole_examples, "kept or lost whole"),
        (lambda x, p: torch.stack([as_many(row, p) for row in x]), "the same number"),
        (seeded, "do not set a seed"),
    ],
)
def test_dropout_says_what_is_wrong(answer, message):
    torch.manual_seed(0)
    with pytest.raises(Unsolved, match=message):
        checks.dropout(answer)


@pytest.mark.parametrize("answer", [shared, shared_from_a_layer])
@pytest.mark.parametrize("seed", range(5))
def test_shared_dropout_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.shared_dropout(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        *COMMON,
        (comparison, "masks of their own"),
        (whole_examples, "gates of one example are all alike"),
        (lambda x, p: x * (torch.rand(x.shape[1]) >= p), "mean falls"),
        (lambda x, p: x * (torch.rand(x.shape[1]) < p) / (1 - p), r"probability of \*dropping\*"),
        (lambda x, p: seeded(x[:1], p).sign() * x / (1 - p), "a new one"),
        (as_many, "the same number"),
    ],
)
def test_shared_dropout_says_what_is_wrong(answer, message):
    torch.manual_seed(0)
    with pytest.raises(Unsolved, match=message):
        checks.shared_dropout(answer)


def test_a_gate_for_each_example_is_told_from_no_gate_at_all_whatever_was_drawn():
    for seed in range(30):
        torch.manual_seed(seed)
        with pytest.raises(Unsolved, match="gates of one example are all alike"):
            checks.shared_dropout(whole_examples)


def normal_equations(X, y, p):
    G = X.T @ X
    return torch.linalg.solve(G + p / (1 - p) * torch.diag(G.diagonal()), X.T @ y)


def more_rows(X, y, p):
    """Ridge regression as least squares with a further row for each penalty."""
    rows = torch.diag((p / (1 - p)) ** 0.5 * X.norm(dim=0))
    A, b = torch.cat([X, rows]), torch.cat([y, torch.zeros(len(rows), dtype=y.dtype)])
    return torch.from_numpy(np.linalg.lstsq(A.numpy(), b.numpy(), rcond=None)[0])


def in_float32(X, y, p):
    return normal_equations(X.float(), y.float(), p)


@pytest.mark.parametrize("answer", [normal_equations, more_rows, in_float32])
@pytest.mark.parametrize("seed", [*range(5), 240])
def test_regression_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.regression(answer)
    assert "Correct" in capsys.readouterr().out


def penalised(penalty):
    return lambda X, y, p: checks.ridge(X, y, penalty(X, p))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda X, y, p: None, "returns nothing yet"),
        (lambda X, y, p: normal_equations(X, y, p)[:, None], r"expected weights \[D\]"),
        (lambda X, y, p: normal_equations(X, y, p) * torch.nan, "NaN"),
        (penalised(lambda X, p: torch.zeros(X.shape[1], dtype=X.dtype)), "without any penalty"),
        (penalised(lambda X, p: p / (1 - p) * torch.ones(X.shape[1], dtype=X.dtype)), "same penalty"),
        (penalised(lambda X, p: p / (1 - p) * len(X) * X.var(0, correction=0)), "second moments"),
        (penalised(lambda X, p: p / (1 - p) * X.square().mean(0)), "N times too weak"),
        (penalised(lambda X, p: (1 - p) / p * X.square().sum(0)), "upside down"),
        (penalised(lambda X, p: p * (1 - p) * X.square().sum(0)), "not inverted"),
        (lambda X, y, p: normal_equations(X, y, p) / (1 - p), "not inverted"),
        (penalised(lambda X, p: X.square().sum(0)), r"over all 2\^4 masks"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_regression_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.regression(answer)


def test_least_squares_over_all_masks_minimises_the_expected_loss():
    """By the gradient of the loss under each mask, summed one by one."""
    X, y, p = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, dtype=torch.float64), 0.4
    w = checks.enumerated_regression(X, y, p)
    gradient = 0.0
    for mask in np.ndindex(2, 2, 2):
        mask = torch.tensor(mask, dtype=torch.float64)
        Z = X * mask / (1 - p)
        gradient = gradient + (1 - p) ** mask.sum() * p ** (3 - mask.sum()) * Z.T @ (Z @ w - y)
    torch.testing.assert_close(gradient, torch.zeros(3, dtype=torch.float64), atol=1e-10, rtol=0)
