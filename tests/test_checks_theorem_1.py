"""Each exercise's check accepts right answers in more than one style, and names what is wrong with wrong ones."""

import pytest
import torch

from helpers import bregman
from helpers.checks import Unsolved
from helpers.checks import theorem_1 as checks

SEEDS = pytest.mark.parametrize("seed", range(3))


def gap(loss, f, weights, q):
    return loss(torch.tensordot(weights, f, 1), q).mean() - torch.tensordot(weights, loss(f, q), 1).mean()


def gap_by_loop(loss, f, weights, q):
    J = sum(loss(weights @ f[:, n], q[n]) for n in range(len(q))) / len(q)
    J_prime = sum(weight * loss(member, q).mean() for weight, member in zip(weights, f, strict=True))
    return J - J_prime


def by_numbers(loss, f, weights, q):
    return gap(loss, f, weights, q).item()


def by_numpy(loss, f, weights, q):
    ideal = torch.einsum("m,mnk->nk", weights, f)
    return loss(ideal, q).numpy().mean() - (weights[:, None] * loss(f, q)).sum(0).numpy().mean()


@SEEDS
@pytest.mark.parametrize("answer", [gap, gap_by_loop, by_numbers, by_numpy])
def test_gap_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.gap(answer)
    assert "Correct" in capsys.readouterr().out


def exchanged(loss, f, weights, q):
    return gap(lambda y, y_hat: loss(y_hat, y), f, weights, q)


@SEEDS
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda loss, f, w, q: None, "write its body and return a number"),
        (lambda loss, f, w, q: gap(loss, f, w, q).tolist() + 1j, "expected a number, got complex"),
        (lambda loss, f, w, q: -gap(loss, f, w, q).item(), "J' - J"),
        (lambda loss, f, w, q: gap(loss, f.div_(f.sum(-1, keepdim=True) + 1), w, q), "changed its argument in place"),
        (lambda loss, f, w, q: -gap(loss, f, w, q), "J' - J"),
        (lambda loss, f, w, q: loss(torch.tensordot(w, f, 1), q).mean(), "J alone"),
        (lambda loss, f, w, q: torch.tensordot(w, loss(f, q), 1).mean(), "J' alone"),
        (lambda loss, f, w, q: loss(f.mean(0), q).mean() - loss(f, q).mean(), "count the same"),
        (lambda loss, f, w, q: loss(torch.tensordot(w, f, 1), q).mean() - loss(f, q).mean(), "one of the two terms"),
        (
            lambda loss, f, w, q: loss(f.mean(0), q).mean() - torch.tensordot(w, loss(f, q), 1).mean(),
            "one of the two terms",
        ),
        (
            lambda loss, f, w, q: loss(torch.tensordot(w, f, 1), q) - torch.tensordot(w, loss(f, q), 1),
            "mean over the examples",
        ),
        (lambda loss, f, w, q: len(q) * gap(loss, f, w, q), "summed"),
        (exchanged, "first argument"),
        (lambda loss, f, w, q: 0 * gap(loss, f, w, q), "zero"),
        (lambda loss, f, w, q: gap(bregman.kl, f, w, q), "should be"),
        (lambda loss, f, w, q: gap(loss, f[:3], w[:3], q), "should be"),
    ],
)
def test_gap_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.gap(answer)


def entropy(p):
    return -torch.xlogy(p, p).sum(-1)


def mean(weights, values):
    return torch.tensordot(weights, values, 1)


def difference_of_entropies(f, weights):
    return entropy(mean(weights, f)) - mean(weights, entropy(f))


def by_the_joint_distribution(f, weights):
    joint = weights[:, None, None] * f
    product = weights[:, None, None] * mean(weights, f)
    return torch.xlogy(joint, joint / product).sum((0, 2))


@SEEDS
@pytest.mark.parametrize(
    "answer",
    [
        difference_of_entropies,
        by_the_joint_distribution,
        lambda f, w: mean(w, bregman.kl(f, mean(w, f))),
        lambda f, w: torch.special.entr(mean(w, f)).sum(-1) - mean(w, torch.special.entr(f).sum(-1)),
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
        (lambda f, w: None, "returns nothing yet"),
        (lambda f, w: difference_of_entropies(f, w).mean(), "one number for each example"),
        (
            lambda f, w: difference_of_entropies(f.transpose(0, 1), torch.full((5,), 0.2).double()),
            "one number for each example",
        ),
        (lambda f, w: -difference_of_entropies(f, w), "sign"),
        (lambda f, w: difference_of_entropies(f, w) / torch.log(torch.tensor(2.0)), "bits"),
        (lambda f, w: entropy(f.mean(0)) - entropy(f).mean(0), "count the same"),
        (lambda f, w: entropy(mean(w, f)) - entropy(f).mean(0), "second term"),
        (lambda f, w: mean(w, entropy(f)), "mean entropy of the members"),
        (lambda f, w: entropy(mean(w, f)), "entropy of the mean"),
        (lambda f, w: f.var(0, correction=0).sum(-1), "should be"),
        (lambda f, w: mean(w, (f * (f.log() - mean(w, f).log())).sum(-1)), "0 log 0"),
        (lambda f, w: mean(w, (f * (f / mean(w, f)).log()).sum(-1).nan_to_num()), "the others still do"),
    ],
)
def test_information_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.information(answer)


def welsch(y, y_hat, scale):
    return 1 - (-(y - y_hat).square().sum(-1) / (2 * scale**2)).exp()


def geman_mcclure(y, y_hat):
    d = (y - y_hat).square().sum(-1)
    return d / (1 + d)


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
        lambda y, y_hat: ((y - y_hat).square().sum(-1) + 1e-12).sqrt(),
        lambda y, y_hat: -(y * y_hat).float().sqrt().sum(-1).log(),  # Bhattacharyya
        lambda y, y_hat: welsch(y, y_hat, 1.5),  # convex, as no two distributions are further apart
    ],
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
        (lambda y, y_hat: welsch(y, y_hat, 1.0), "not convex"),
        (lambda y, y_hat: welsch(y, y_hat, 0.7), "not convex"),
        (geman_mcclure, "not convex"),
        (lambda y, y_hat: (y - y_hat)[..., 0].abs(), "must be positive wherever"),
        (lambda y, y_hat: ((y - y_hat).abs() - 0.05).relu().sum(-1), "must be positive wherever"),
        (lambda y, y_hat: ((y - y_hat).abs() - 0.01).relu().sum(-1), "must be positive wherever"),
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
