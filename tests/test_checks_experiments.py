"""The checks of notebook 07 accept right answers in more than one style, and name what is wrong with wrong ones."""

import itertools
import math

import numpy as np
import pytest
import torch

from helpers.checks import Unsolved
from helpers.checks import experiments as checks


def of_positive(values, p):
    ordered = values.sort(descending=True).values
    return (ordered * p ** torch.arange(len(values))).sum()


def by_formula(values, p):
    if (values <= 0).all():
        return (1 - p) ** (len(values) - 1) * values.max()
    return of_positive(values[values > 0], p)


def one_by_one(values, p):
    total, left = 0.0, 1.0
    for v in sorted(values.tolist(), reverse=True):
        if v > 0:
            total += left * (1 - p) * v / (1 - p)
            left *= p
    return total if left < 1 else max(values.tolist()) * (1 - p) ** len(values) / (1 - p)


def by_the_distribution(values, p):
    """The mean of a random number is ∫ P(it is above t) dt over t > 0, less ∫ P(it is below t) dt over t < 0."""
    edges = np.sort(np.append(values.numpy() / (1 - p), 0.0))
    total = 0.0
    for low, high in itertools.pairwise(edges):
        kept_above = (values.numpy() / (1 - p) >= high).sum()
        if low >= 0:
            total += (1 - p**kept_above) * (high - low)
        elif kept_above == 0:  # all that is above `low` would be a zero, and nothing was dropped
            total -= (1 - p) ** len(values) * (high - low)
    return total


@pytest.mark.parametrize(
    "answer", [by_formula, one_by_one, by_the_distribution, lambda v, p: torch.tensor(one_by_one(v, p))]
)
@pytest.mark.parametrize("seed", range(5))
def test_expected_maximum_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.expected_maximum(answer)
    assert "Correct" in capsys.readouterr().out


def unordered(values, p):
    positive = values[values > 0]
    return (positive * p ** torch.arange(len(positive))).sum()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda v, p: None, "returns nothing yet"),
        (lambda v, p: v.max(), "weight scaling"),
        (lambda v, p: max(v.tolist()), "weight scaling"),
        (lambda v, p: str(by_formula(v, p)), "expected a number, got str"),
        (lambda v, p: by_formula(v.copy_(v.sort().values), p), "changed its argument in place"),
        (lambda v, p: (1 - p) * by_formula(v, p), "1/\\(1-p\\) is missing"),
        (unordered, "sort them"),
        (lambda v, p: of_positive(v[v > 0], 1 - p), "interchanged"),
        (of_positive, "not positive are counted"),
        (lambda v, p: of_positive(v[v > 0], p), "not always zero"),
        (lambda v, p: by_formula(v, p) * (1 if (v > 0).any() else 1 - p), "is missing"),
        (lambda v, p: v / (1 - p), "one number"),
        (lambda v, p: v.mean(), "should be"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_expected_maximum_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.expected_maximum(answer)


def test_the_yardstick_is_the_mean_over_sampled_masks():
    torch.manual_seed(0)
    values, p, n = torch.rand(6, dtype=torch.float64) - 0.3, 0.4, 400_000
    sampled = (values * (torch.rand(n, 6) >= p) / (1 - p)).max(1).values
    assert abs(sampled.mean() - checks.enumerated_maximum(values, p)) < 5 * sampled.std() / n**0.5  # 6e-7


def right(error, n):
    return 100 * math.sqrt(error / 100 * (1 - error / 100) / n)


@pytest.mark.parametrize(
    "answer", [right, lambda e, n: math.sqrt(e * (100 - e) / n), lambda e, n: torch.tensor(right(e, n - 1))]
)
@pytest.mark.parametrize("seed", range(5))
def test_standard_error_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.standard_error(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda e, n: None, "returns nothing yet"),
        (lambda e, n: [right(e, n)], "expected a number, got list"),
        (lambda e, n: str(right(e, n)), "expected a number, got str"),
        (lambda e, n: right(e, n) / 100, "is a share"),
        (lambda e, n: right(e, n) ** 2, "variance"),
        (lambda e, n: right(e, n) * math.sqrt(n), "single image"),
        (lambda e, n: right(e, n) / math.sqrt(n), "divided by n"),
        (lambda e, n: math.sqrt(abs(e * (1 - e)) / n), "in %"),
        (lambda e, n: (e * (1 - e) / n) ** 0.5, "in %"),
        (lambda e, n: math.sqrt(e * (1 - e) / n), "in %"),
        (lambda e, n: torch.tensor(e * (1 - e) / n).sqrt(), "in %"),
        (lambda e, n: e / n, "should be"),
        (lambda e, n: 100 * (e / 100 / n) ** 0.5, "should be"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_standard_error_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.standard_error(answer)


def test_a_standard_error_of_one_is_not_taken_for_its_square(monkeypatch, capsys):
    monkeypatch.setattr(torch, "rand", lambda *_: torch.tensor(0.0))  # an error of 10 %
    monkeypatch.setattr(torch, "randint", lambda *_: torch.tensor(900))
    checks.standard_error(right)
    assert "Correct" in capsys.readouterr().out


def test_standard_error_blames_the_percentage_for_no_other_error():
    with pytest.raises(ValueError, match="could not convert"):
        checks.standard_error(lambda e, n: float("e"))
