"""Each exercise's check accepts right answers in more than one style, and names what is wrong with wrong ones."""

import pytest
import torch
from torch import nn

from helpers import bregman, datasets, gates, predictors
from helpers.checks import Unsolved
from helpers.checks import distillation as checks


def gated(teacher, x, m):
    with gates.sampling(teacher), torch.no_grad():
        return sum(teacher(x).softmax(-1) for _ in range(m)) / m


def plain_kl(y, y_hat):
    return (torch.xlogy(y, y) - torch.xlogy(y, y_hat)).sum(-1)


def by_package(teacher, student, x, m):
    return bregman.kl(gated(teacher, x, m), student(x).softmax(-1)).mean()


def by_monte_carlo(teacher, student, x, m):
    return bregman.kl(predictors.monte_carlo(teacher, x, m), student(x).softmax(-1)).mean()


def by_logits(teacher, student, x, m):
    return bregman.kl.with_logits(gated(teacher, x, m), student(x)).mean()


def by_torch(teacher, student, x, m):
    return nn.functional.kl_div(student(x).log_softmax(-1), gated(teacher, x, m), reduction="batchmean")


def in_one_pass(teacher, student, x, m):
    with gates.sampling(teacher), torch.no_grad():
        f = teacher(x.repeat(m, 1)).softmax(-1).unflatten(0, (m, len(x))).mean(0)
    return bregman.kl(f, student(x).softmax(-1)).mean()


def gradient_into_teacher(teacher, student, x, m):
    with gates.sampling(teacher):
        f = sum(teacher(x).softmax(-1) for _ in range(m)) / m
    return bregman.kl(f, student(x).softmax(-1)).mean()


def no_gradient_at_all(*arguments):
    with torch.no_grad():
        return by_package(*arguments)


def left_in_training_mode(teacher, student, x, m):
    teacher.train()
    with torch.no_grad():
        f = sum(teacher(x).softmax(-1) for _ in range(m)) / m
    return bregman.kl(f, student(x).softmax(-1)).mean()


def standard_teacher(teacher, student, x, m):
    return bregman.kl(predictors.standard(teacher, x), student(x).softmax(-1)).mean()


def mean_of_logits(teacher, student, x, m):
    with gates.sampling(teacher), torch.no_grad():
        f = (sum(teacher(x) for _ in range(m)) / m).softmax(-1)
    return bregman.kl(f, student(x).softmax(-1)).mean()


def one_mask_for_the_batch(teacher, student, x, m):
    f = 0
    for _ in range(m):
        with gates.fixed(teacher, {"2": (torch.rand(6) < 0.5).float()}), torch.no_grad():
            f = f + teacher(x).softmax(-1) / m
    return bregman.kl(f, student(x).softmax(-1)).mean()


def unasked_teacher(teacher, student, x, m):
    q = student(x).softmax(-1)
    return bregman.kl(q.detach(), q).mean()


@pytest.mark.parametrize("answer", [by_package, by_monte_carlo, by_logits, by_torch, in_one_pass])
@pytest.mark.parametrize("seed", range(5))
def test_distillation_loss_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.distillation_loss(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda *arguments: None, "returns nothing yet"),
        (lambda *arguments: ..., "returns nothing yet"),
        (lambda t, s, x, m: bregman.kl(gated(t, x, m), s(x).softmax(-1)), "mean over the batch"),
        (lambda *arguments: by_package(*arguments) * torch.nan, "NaN"),
        (no_gradient_at_all, "no gradient can reach the student"),
        (gradient_into_teacher, "back into the teacher"),
        (left_in_training_mode, "left in training mode"),
        (unasked_teacher, "not asked"),
        (standard_teacher, "dropped nothing"),
        (lambda t, s, x, m: by_package(t, s, x, 50), "very many masks"),
        (lambda t, s, x, m: by_package(t, s, x, 1), "with one mask"),
        (lambda t, s, x, m: sum(by_package(t, s, x, 1) for _ in range(m)) / m, "average the m predictions first"),
        (mean_of_logits, r"mean of the m \*logits"),
        (one_mask_for_the_batch, "one mask serves the whole batch"),
        (lambda t, s, x, m: bregman.kl(m * gated(t, x, m), s(x).softmax(-1)).mean(), "divide by m"),
        (lambda t, s, x, m: plain_kl(m * gated(t, x, m), s(x).softmax(-1)).mean(), "divide by m"),
        (lambda t, s, x, m: bregman.kl(gated(t, x, m), s(x)).mean(), "softmax taken of the student's logits"),
        (lambda t, s, x, m: bregman.kl(s(x).softmax(-1), gated(t, x, m)).mean(), "first argument"),
        (lambda t, s, x, m: -(gated(t, x, m) * s(x).log_softmax(-1)).sum(-1).mean(), "cross-entropy"),
        (lambda t, s, x, m: by_package(t, s, x, m) * len(x), "sum over the batch"),
        (lambda t, s, x, m: by_package(t, s, x, m) / 3, "over examples and classes"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_distillation_loss_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.distillation_loss(answer)


def blocks(x, rate):
    """Gates of squares of 2 × 2 pixels."""
    return nn.functional.interpolate((torch.rand(len(x), 1, 10, 10) >= rate).float(), scale_factor=2)


def as_many(x, rate):
    """The same number of pixels of each image, in other places."""
    order = torch.rand(len(x), 1, *x.shape[2:]).flatten(1).argsort().argsort().view(len(x), 1, *x.shape[2:])
    return (order >= rate * order[0].numel()) * x


def hidden(x, rate):
    return (torch.rand(len(x), 1, *x.shape[2:]) >= rate) * x


@pytest.mark.parametrize(
    "answer",
    [
        datasets.drop_pixels,
        lambda x, rate: x.where(torch.rand_like(x[:, :1]) >= rate, torch.tensor(0.0)),
        lambda x, rate: x.double() * (torch.rand_like(x[:, :1]) >= rate),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_perturbation_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.perturbation(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x, rate: None, "returns nothing yet"),
        (lambda x, rate: x, "no pixel was set to zero"),
        (lambda x, rate: 0 * x, "every pixel"),
        (lambda x, rate: x[:, 0], "expected the shape of x"),
        (lambda x, rate: x.mul_(torch.rand_like(x[:, :1]) >= rate), "x itself was changed"),
        (lambda x, rate: hidden(x, rate) / (1 - rate), "divided by 1 - rate"),
        (lambda x, rate: hidden(x, rate).double() / (1 - rate), "divided by 1 - rate"),
        (lambda x, rate: hidden(x, rate) * 2, "must stay as they are"),
        (lambda x, rate: x * (torch.rand_like(x) >= rate), "channels of one pixel"),
        (lambda x, rate: x * (torch.rand(x.shape[2:]) >= rate), "every image lost the same pixels"),
        (lambda x, rate: x * (torch.rand(len(x), 1, 1, 1) >= rate), "whole images"),
        (lambda x, rate: x * (torch.rand(len(x), 1, x.shape[2], 1) >= rate), "together with their neighbours"),
        (lambda x, rate: x * (torch.rand(len(x), 1, 1, x.shape[3]) >= rate), "together with their neighbours"),
        (lambda x, rate: x * blocks(x, rate), "together with their neighbours"),
        (as_many, "the same number of pixels"),
        (lambda x, rate: hidden(x, 0.2), "should be about 0.35"),
        (lambda x, rate: hidden(x, 1 - rate), "share that is set to zero"),
        (lambda x, rate: hidden(x, 0.5), "should be about 0.2"),
        (
            lambda x, rate: x * (torch.rand(50, 1, 20, 20, generator=torch.Generator().manual_seed(0)) >= rate),
            "do not set a seed",
        ),
    ],
)
def test_perturbation_says_what_is_wrong(answer, message):
    torch.manual_seed(0)
    with pytest.raises(Unsolved, match=message):
        checks.perturbation(answer)
