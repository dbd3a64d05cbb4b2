"""Checks of the exercises in notebook 01."""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from helpers.checks import call, exercise, mismatch, require

Dropout = Callable[[Tensor, float], Tensor]


def factors(function: Dropout, x: Tensor, p: float) -> Tensor:
    """What ``function(x, p)`` multiplied each entry of x [N, D] by, where that is 0 or 1 / (1 - p) at rate p."""
    before = x.clone()
    y = call(lambda: function(x, p))  # x is kept from `call`: what is wrong with changing it is said below
    require(y.shape == x.shape, f"expected the shape of x, {list(x.shape)}, got {list(y.shape)}.")
    require(
        torch.equal(x, before), "x itself was changed; make a new tensor, so that other layers still see the old one."
    )
    ratio = y / x
    kept = y != 0
    share = kept.double().mean().item()
    again = "Run it again: if it is the other way round then, one gate serves the whole of x."
    require(share > 0, f"everything was dropped. {again}")
    require(
        bool(torch.allclose(ratio[kept], ratio[kept][0].expand(int(kept.sum())), rtol=1e-3)),
        "kept entries are multiplied by different numbers; each is kept or dropped, and all that are kept are scaled alike.",
    )
    require(not torch.equal(y, x), "nothing was dropped or scaled: this is what dropout does in eval mode.")
    require(share < 1, f"nothing was dropped. {again}")
    value = ratio[kept].median().item()
    wrong = {
        1.0: "kept entries are unchanged, so that the mean falls to 1 - p of what it was: divide by 1 - p.",
        1 - p: "kept entries are multiplied by 1 - p; *divide* by 1 - p, so that the mean stays.",
        1 / p: "kept entries are divided by p, the rate of dropping; divide by 1 - p, the rate of keeping.",
    }
    for factor, message in wrong.items():
        require(abs(value - factor) > 1e-3, message)
    require(
        abs(value * (1 - p) - 1) < 1e-3, f"kept entries are multiplied by {value:.3f}; it should be {1 / (1 - p):.3f}."
    )
    return ratio


def require_rate(kept: Tensor, p: float, draws: int) -> None:
    """Complain unless about 1 - p of `draws` independent gates were kept."""
    share, error = kept.double().mean().item(), (p * (1 - p) / draws) ** 0.5
    require(
        abs(share - p) > 6 * error,
        f"a share {share:.2f} was kept at rate {p:g}: p is the probability of *dropping*.",
    )
    require(
        abs(share - (1 - p)) < 6 * error,
        f"a share {share:.2f} was kept; at rate {p:g} it should be about {1 - p:g}.",
    )


def constant(kept: Tensor, dimension: int) -> bool:
    """Whether gates [N, D] are the same all along one dimension."""
    return bool((kept == kept.narrow(dimension, 0, 1)).all())


@exercise
def dropout(function: Dropout) -> None:
    """Check ``function(x, p)``: inverted dropout of x [N, D], with a gate for each entry."""
    p, x = 0.3, torch.randn(200, 100) + 5
    kept = factors(function, x, p) != 0
    require(not constant(kept, 0), "all examples lost the same units; draw a gate for every entry of x.")
    require(not constant(kept, 1), "examples were kept or lost whole; draw a gate for every entry of x.")
    require_rate(kept, p, kept.numel())
    require(
        len(kept.sum(1).unique()) > 1,
        "every example lost the same number of units; each entry is dropped independently of the others.",
    )
    again = factors(function, x, p) != 0
    require(not torch.equal(kept, again), "two calls drew the same gates; do not set a seed inside the function.")
    print("Correct: entries are dropped at rate p, and the mean is what it was.")


@exercise
def shared_dropout(function: Dropout) -> None:
    """Check ``function(x, p)``: inverted dropout of x [N, D] with one mask for the whole mini-batch."""
    p, x = 0.3, torch.randn(100, 2_000) + 5
    kept = factors(function, x, p) != 0
    require(not constant(kept, 1), "the gates of one example are all alike; draw a gate for each of the D units.")
    require(
        constant(kept, 0),
        "examples have masks of their own; draw one mask [D], which broadcasts over the mini-batch.",
    )
    require_rate(kept[0], p, kept.shape[1])
    again = factors(function, x, p) != 0
    require(not torch.equal(kept, again), "two calls drew the same mask; each mini-batch needs a new one.")
    numbers = {int((factors(function, x, p) != 0)[0].sum()) for _ in range(4)}
    require(
        len(numbers) > 1,
        "every mask drops the same number of units; each unit is dropped independently of the others.",
    )
    print("Correct: one mask for the mini-batch, and a new one for the next.")


def ridge(X: Tensor, y: Tensor, penalty: Tensor) -> Tensor:
    """The minimiser [D] of ‖y - Xw‖² + Σ_j penalty_j w_j²."""
    return torch.linalg.solve(X.T @ X + torch.diag(penalty), X.T @ y)


def enumerated_regression(X: Tensor, y: Tensor, p: float) -> Tensor:
    """Least squares on X [N, D] under each of its 2^D masks, weighted by their probabilities: [D]."""
    masks = torch.tensor(list(product([0.0, 1.0], repeat=X.shape[1])), dtype=X.dtype)  # [M, D]
    weights = (masks * (1 - p) + (1 - masks) * p).prod(1).sqrt()[:, None]
    rows = (weights[:, None] * X * masks[:, None] / (1 - p)).flatten(0, 1)  # [M N, D]
    return torch.linalg.lstsq(rows, (weights * y).flatten()[:, None]).solution.squeeze(1)


@exercise
def regression(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Check ``function(X, y, p)``: the weights [D] that linear regression with dropout at its inputs leads to."""
    n, d, p = 50, 4, 0.3
    X = (torch.randn(n, d, dtype=torch.float64) + 1) * torch.tensor([0.5, 1.0, 2.0, 3.0])
    y = X @ torch.randn(d, dtype=torch.float64) + torch.randn(n, dtype=torch.float64)
    w = call(function, X, y, p)
    require(w.shape == (d,), f"expected weights [D] = [{d}], got {list(w.shape)}.")
    require(bool(w.isfinite().all()), "some of the weights are NaN or infinite.")
    expected = enumerated_regression(X, y, p)

    def is_near(value: Tensor) -> bool:  # float32 will do
        return torch.allclose(w.double(), value, rtol=1e-4, atol=1e-5 * value.abs().max().item())

    def is_ridge(penalty: Tensor) -> bool:
        return is_near(ridge(X, y, penalty))

    moment, ones = X.square().sum(0), torch.ones(d, dtype=X.dtype)
    odds = p / (1 - p)
    require(not is_ridge(0 * ones), "this is least squares without any penalty.")
    require(
        not is_ridge(odds * ones) and not is_ridge(odds * n * ones) and not is_ridge(odds * moment.mean() * ones),
        "every feature has the same penalty; that of feature j is in proportion to the sum of its squares, Σ_n x_nj².",
    )
    require(
        not is_ridge(odds * (X - X.mean(0)).square().sum(0)),
        "the penalty is made of variances; a gate does not know the mean, so that it takes second moments, Σ_n x_nj².",
    )
    require(not is_ridge(odds * moment / n), "the penalty is N times too weak: *sum* the squares over the examples.")
    require(not is_ridge(moment / odds), "the odds are upside down: the factor is p / (1 - p).")
    require(
        not is_ridge(p * (1 - p) * moment) and not is_near(expected / (1 - p)),
        "this is for gates that are not inverted; here a kept input is divided by 1 - p, so that its factor has the variance p / (1 - p).",
    )
    require(is_near(expected), f"by least squares over all 2^{d} masks {mismatch(w, expected)}")
    print("Correct: your closed form agrees with least squares over all 2⁴ masks.")
