"""Checks of the exercises in notebook 06."""

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor, nn

from helpers import bregman
from helpers.checks import call, exercise, require
from helpers.checks.tour import every_prediction, small_network

COPIES = 300  # of each example, each of which meets masks of its own
MASKS = 2  # m, so that all pairs of masks can be listed


@exercise
def distillation_loss(function: Callable[[nn.Module, nn.Module, Tensor, int], Tensor]) -> None:
    """Check ``function(teacher, student, x, m)``: the loss of one step of Algorithm 2 with m masks for each example."""
    teacher, student, x, means = case()
    batch = x.repeat(COPIES, 1)
    seen = []
    watch = teacher.register_forward_hook(lambda _, __, logits: seen.append(logits.detach()))
    try:
        answer = function(teacher, student, batch, MASKS)
    finally:
        watch.remove()
    loss = call(lambda: answer)
    require(loss.ndim == 0, f"expected one number, the mean over the batch; got a tensor of shape {list(loss.shape)}.")
    require(bool(loss.isfinite()), "the loss is NaN or infinite. Is the softmax taken of the student's logits, too?")
    require(
        answer.requires_grad,
        "no gradient can reach the student: let only the teacher run inside `with torch.no_grad():`.",
    )
    answer.backward()
    require(
        all(p.grad is None for p in teacher.parameters()),
        "the gradient also runs back into the teacher: let it predict inside `with torch.no_grad():`.",
    )
    require(
        any(p.grad is not None for p in student.parameters()), "no gradient reaches the student; is it in the loss?"
    )
    require(
        not any(m.training for m in teacher.modules()),
        "the teacher was left in training mode; `with gates.sampling(teacher):` puts modes back by itself.",
    )
    require(len(seen) > 0, "the teacher was not asked.")
    logits = torch.cat(seen)
    if len(logits) % len(batch) == 0:
        copies = logits.unflatten(0, (-1, COPIES, len(x)))  # of each pass
        alike = torch.allclose(copies, copies[:, :1].expand_as(copies), atol=1e-5)
        require(
            not alike or not torch.allclose(copies, teacher(x).expand_as(copies), atol=1e-5),
            "the teacher dropped nothing: run it inside `with gates.sampling(teacher):`.",
        )
        require(
            not alike,
            "one mask serves the whole batch; every example needs masks of its own: `with gates.sampling(teacher):`.",
        )
    away = {name: abs(loss.item() / mean - 1) for name, mean in means.items()}
    nearest = min(away, key=away.get)
    messages = {
        "ideal": "this is the loss with very many masks; average m of them for each example.",
        "one mask": "this is the loss with one mask: average the m predictions first, and take the loss of the average.",
        "logits": "this is the mean of the m *logits*, which is another mean; average the probabilities.",
        "undivided": "the m predictions were added up; divide by m.",
        "added up": "the m predictions were added up; divide by m.",
        "reversed": "this is KL(q ‖ f): the teacher's prediction is the first argument.",
        "cross-entropy": "this is the cross-entropy; it has the right gradient, but KL has the entropy of f taken off.",
        "sum": "this is the sum over the batch; take the mean.",
        "classes": "this is the mean over examples and classes; sum over the classes first.",
    }
    require(nearest == "right" or away[nearest] > 0.1, messages.get(nearest, ""))
    require(
        away["right"] < 0.05,
        f"the loss is {loss:.3f}; over all pairs of 2^6 masks its mean is {means['right']:.3f}.",
    )
    # However many masks there are, the mean of the gradient is that of KL(ideal ‖ q).
    to_ideal = bregman.kl(every_prediction(teacher, x).mean(0), student(x).softmax(-1)).mean()
    for p, expected in zip(student.parameters(), torch.autograd.grad(to_ideal, student.parameters()), strict=True):
        require(
            bool((p.grad - expected).norm() < 0.1 * expected.norm()),
            "the loss happens to be about as large as it should be, but its gradient is not that of KL: compare probabilities "
            "with probabilities, by Σ f log(f / q).",
        )
    print("Correct: over all masks, the mean of your loss is that of Algorithm 2 with m masks in a step.")


def case() -> tuple[nn.Module, nn.Module, Tensor, dict[str, float]]:
    """A teacher with six gates, a student, inputs [N, 4], and what a right loss and plausible wrong ones are on average,
    chosen so that these lie at least a fifth away from it, and that of KL(q ‖ f) from those that are as large, and none of
    them so near another that chance could take the one for the other."""
    while True:
        x = torch.randn(32, 4)
        teacher, student = small_network(x), nn.Linear(4, 3)
        with torch.no_grad():
            q, members = student(x).softmax(-1), every_prediction(teacher, x)
            f = (members[:, None] + members).flatten(0, 1) / MASKS  # of every pair of masks
            f_logits = ((members[:, None].log() + members.log()) / MASKS).flatten(0, 1).softmax(-1)
            right = bregman.kl(f, q).mean().item()
            means = {
                "right": right,
                "ideal": bregman.kl(members.mean(0), q).mean().item(),
                "one mask": bregman.kl(members, q).mean().item(),
                "logits": bregman.kl(f_logits, q).mean().item(),
                "undivided": bregman.kl(MASKS * f, q).mean().item(),
                "added up": bregman.kl(MASKS * f, q).mean().item() + MASKS - 1,  # without the terms -y + ŷ
                "reversed": bregman.kl(q.expand_as(f), f).mean().item(),
                "cross-entropy": -(f * q.log()).sum(-1).mean().item(),
                "sum": right * len(x) * COPIES,
                "classes": right / 3,
            }
        apart = all(abs(value / right - 1) > 0.2 for name, value in means.items() if name != "right")
        apart = apart and all(abs(a - b) > 0.05 * max(a, b) for a, b in combinations(means.values(), 2))
        large = [means[name] for name in ("undivided", "added up", "cross-entropy")]
        if members.min() > 0 and apart and all(abs(means["reversed"] / other - 1) > 0.2 for other in large):
            return teacher, student, x, means


@exercise
def perturbation(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check ``function(x, rate)``: images [N, C, H, W] with each pixel, all channels together, zero at `rate`."""
    for rate in (0.2, 0.35):
        require_hidden(function, torch.rand(50, 3, 20, 20) + 0.5, rate)
    print("Correct: about as many pixels are hidden as the rate says, and other ones each time.")


def require_hidden(function: Callable[[Tensor, float], Tensor], x: Tensor, rate: float) -> None:
    """Complain unless ``function(x, rate)`` hides pixels independently of each other."""
    before = x.clone()
    y = call(lambda: function(x, rate)).double()  # x is kept from `call`, as its change is told below
    require(y.shape == x.shape, f"expected the shape of x, {list(x.shape)}, got {list(y.shape)}.")
    require(torch.equal(x, before), "x itself was changed; make a new tensor.")
    kept = y != 0
    require(not bool(kept.all()), "no pixel was set to zero.")
    require(bool(kept.any()), "every pixel was set to zero.")
    require(
        not torch.allclose((y / x)[kept], torch.tensor(1 / (1 - rate)).double(), rtol=1e-3),
        "the other pixels were divided by 1 - rate. That is inverted dropout; a perturbed image is an *input*, and the "
        "pixels that it keeps stay as they are.",
    )
    require(torch.allclose(y[kept], x.double()[kept]), "the pixels that are not set to zero must stay as they are.")
    require(
        bool((kept == kept[:, :1]).all()),
        "the channels of one pixel were treated differently; draw [N, 1, H, W] numbers, so that they share one.",
    )
    require(
        not bool((kept == kept[:1]).all()), "every image lost the same pixels; draw a number for each image and pixel."
    )
    pixels = kept[:, 0]
    require(
        not bool((pixels == pixels[:, :1, :1]).all()), "whole images were set to zero; draw a number for each pixel."
    )
    share, error = 1 - pixels.double().mean().item(), (rate * (1 - rate) / pixels.numel()) ** 0.5
    require(
        abs(share - (1 - rate)) > 6 * error,
        f"a share {share:.2f} of the pixels is zero: the rate, {rate:g}, is the share that is set to zero.",
    )
    require(abs(share - rate) < 6 * error, f"a share {share:.2f} of the pixels is zero; it should be about {rate:g}.")
    require(
        len(pixels.sum((1, 2)).unique()) > 1,
        "every image lost the same number of pixels; each pixel is hidden independently of the others.",
    )
    together = rate**2 + (1 - rate) ** 2  # how often two pixels fare alike
    for neighbours in (pixels[:, 1:] == pixels[:, :-1], pixels[:, :, 1:] == pixels[:, :, :-1]):
        error = (together * (1 - together) / neighbours.numel()) ** 0.5
        require(
            neighbours.double().mean().item() < together + 10 * error,
            "pixels vanish together with their neighbours; draw a number for each pixel of each image, [N, 1, H, W].",
        )
    again = call(function, x, rate) != 0
    require(not torch.equal(kept, again), "two calls hid the same pixels; do not set a seed inside the function.")
