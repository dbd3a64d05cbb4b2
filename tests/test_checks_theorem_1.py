"""Each exercise's check accepts right answers in more than one style, and names what is wrong with wrong ones."""

import pytest
import torch

from helpers import bregman
from helpers.checks import Unsolved
from helpers.checks import theorem_1 as checks

SEEDS = pytest.mark.parametrize("seed", range(3))


def gap(loss, f, q):
    return loss(f.mean(0), q).mean() - loss(f, q).mean()


def gap_by_loop(loss, f, q):
    J = sum(loss(f[:, n].mean(0), q[n]) for n in range(len(q))) / len(q)
    J_prime = sum(loss(member, q).mean() for member in f) / len(f)
    return J - J_prime


def by_numbers(loss, f, q):
    return bregman.objectives(loss, f, q)[2].item()


def by_numpy(loss, f, q):
    return loss(f.mean(0), q).numpy().mean() - loss(f, q).numpy().mean()


@SEEDS
@pytest.mark.parametrize("answer", [gap, gap_by_loop, by_numbers, by_numpy])
def test_gap_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.gap(answer)
    assert "Correct" in capsys.readouterr().out


@SEEDS
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda loss, f, q: None, "write its body and return a number"),
        (lambda loss, f, q: gap(loss, f, q).tolist() + 1j, "expected a number, got complex"),
        (lambda loss, f, q: -gap(loss, f, q).item(), "J' - J"),
        (lambda loss, f, q: gap(loss, f.div_(f.sum(-1, keepdim=True) + 1), q), "changed its argument in place"),
        (lambda loss, f, q: -gap(loss, f, q), "J' - J"),
        (lambda loss, f, q: loss(f.mean(0), q).mean(), "J alone"),
        (lambda loss, f, q: loss(f, q).mean(), "J' alone"),
        (lambda loss, f, q: loss(f.mean(0), q) - loss(f, q).mean(0), "mean over the examples"),
        (lambda loss, f, q: (loss(f.mean(0), q) - loss(f, q).mean(0)).sum(), "summed"),
        (lambda loss, f, q: loss(q, f.mean(0)).mean() - loss(q, f).mean(), "first argument"),
        (lambda loss, f, q: loss(f, q).mean(0).mean() - loss(f, q).mean(), "zero"),
        (lambda loss, f, q: gap(bregman.kl, f, q), "should be"),
        (lambda loss, f, q: gap(loss, f[:3], q), "should be"),
    ],
)
def test_gap_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.gap(answer)


def entropy(p):
    return -torch.xlogy(p, p).sum(-1)


def difference_of_entropies(f):
    return entropy(f.mean(0)) - entropy(f).mean(0)


@SEEDS
@pytest.mark.parametrize(
    "answer",
    [
        difference_of_entropies,
        lambda f: bregman.kl(f, f.mean(0)).mean(0),
        lambda f: torch.special.entr(f.mean(0)).sum(-1) - torch.special.entr(f).sum(-1).mean(0),
    ],
)
def test_information_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.information(answer)
    assert "Correct" in capsys.readouterr().out


@SEEDS
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda f: None, "returns nothing yet"),
        (lambda f: difference_of_entropies(f).mean(), "one number for each example"),
        (lambda f: difference_of_entropies(f.transpose(0, 1)), "one number for each example"),
        (lambda f: -difference_of_entropies(f), "sign"),
        (lambda f: difference_of_entropies(f) / torch.log(torch.tensor(2.0)), "bits"),
        (lambda f: entropy(f).mean(0), "mean entropy of the members"),
        (lambda f: entropy(f.mean(0)), "entropy of the mean"),
        (lambda f: f.var(0, correction=0).sum(-1), "should be"),
        (lambda f: (f * (f.log() - f.mean(0).log())).sum(-1).mean(0), "0 log 0"),
    ],
)
def test_information_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.information(answer)


@SEEDS
@pytest.mark.parametrize(
    "loss",
    [
        lambda y, y_hat: (y - y_hat).pow(4).sum(-1),
        lambda y, y_hat: (y - y_hat).abs().amax(-1),
        lambda y, y_hat: (y - y_hat).norm(dim=-1),
        lambda y, y_hat: (y.sqrt() - y_hat.sqrt()).square().sum(-1),  # Hellinger
        lambda y, y_hat: ((y - y_hat).square() / y_hat).sum(-1),
        lambda y, y_hat: bregman.kl(y, (y + y_hat) / 2) + bregman.kl(y_hat, (y + y_hat) / 2),
        lambda y, y_hat: (y - y_hat).abs().sum(-1) + bregman.reverse_kl(y, y_hat),
    ],
    ids=["fourth power", "largest difference", "distance", "Hellinger", "χ²", "Jensen–Shannon", "L1 + reverse KL"],
)
def test_counterexample_accepts_right_answers(loss, seed, capsys):
    torch.manual_seed(seed)
    checks.counterexample(loss)
    assert "Correct" in capsys.readouterr().out


@SEEDS
@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda y, y_hat: None, "returns nothing yet"),
        (bregman.kl, "for every student"),
        (bregman.squared_euclidean, "for every student"),
        (lambda y, y_hat: (y - y_hat).square().sum(1), r"the loss must be \[20, 10\].*sum over the last dimension"),
        (lambda y, y_hat: (y * (y / y_hat).log()).sum(1), "sum over the last dimension"),
        (lambda y, y_hat: (y - y_hat).pow(4).sum(1), "sum over the last dimension"),
        (lambda y, y_hat: (y - y_hat).abs().sum(-1), "L1.*that one is on the page"),
        (lambda y, y_hat: (y - y_hat).abs().sum(-1) / 2, "that one is on the page"),  # the total variation
        (lambda y, y_hat: (y - y_hat).relu().sum(-1), "that one is on the page"),  # so is this, for distributions
        (bregman.reverse_kl, "reverse KL.*that one is on the page"),
        (lambda y, y_hat: (y_hat * (y_hat / y).log2()).sum(-1), "reverse KL.*that one is on the page"),
        (lambda y, y_hat: y.sub_(y_hat).pow(4).sum(-1), "changed its argument in place"),
        (lambda y, y_hat: -(y * y_hat.log()).sum(-1), "must be zero"),
        (lambda y, y_hat: (y - y_hat).sum(-1), "must be positive"),
        (lambda y, y_hat: (y - y_hat).norm(dim=-1).sqrt(), "not convex"),
        (lambda y, y_hat: (y - y_hat).abs().mean(), "one number for each row"),
        (lambda y, y_hat: (y - y_hat).abs(), "one number for each row"),
        (lambda y, y_hat: (y - y_hat).sum(-1).log(), "NaN"),
    ],
)
def test_counterexample_says_what_is_wrong(loss, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.counterexample(loss)
