"""Each exercise's check accepts right answers in more than one style, and names what is wrong with wrong ones."""

import pytest
import torch

from helpers import bregman, gates
from helpers.checks import Unsolved
from helpers.checks import tour as checks


def average(model, x, m):
    with gates.sampling(model), torch.no_grad():
        return sum(model(x).softmax(-1) for _ in range(m)) / m


def average_of_copies(model, x, m):
    with gates.sampling(model), torch.no_grad():
        logits = model(x.repeat(m, 1))
    return logits.softmax(-1).reshape(m, len(x), -1).mean(0)


def average_of_logits(model, x, m):
    with gates.sampling(model), torch.no_grad():
        return (sum(model(x) for _ in range(m)) / m).softmax(-1)


def sum_without_division(model, x, m):
    with gates.sampling(model), torch.no_grad():
        return sum(model(x).softmax(-1) for _ in range(m))


def average_in_eval_mode(model, x, m):
    return sum(model.eval()(x).softmax(-1) for _ in range(m)) / m


def one_pass(model, x, m):
    return average(model, x, 1)


def all_passes(model, x, m):
    with gates.sampling(model), torch.no_grad():
        return torch.stack([model(x).softmax(-1) for _ in range(m)])


def left_in_training_mode(model, x, m):
    model.train()
    with torch.no_grad():
        return sum(model(x).softmax(-1) for _ in range(m)) / m


def layers_left_in_training_mode(model, x, m):
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.train()
    with torch.no_grad():
        return sum(model(x).softmax(-1) for _ in range(m)) / m


def average_in_double(model, x, m):
    with gates.sampling(model), torch.no_grad():
        return sum(model(x).double().softmax(-1) for _ in range(m)) / m


@pytest.mark.parametrize("answer", [average, average_of_copies, average_in_double])
@pytest.mark.parametrize("seed", range(5))
def test_monte_carlo_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.monte_carlo(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda model, x, m: None, "returns nothing yet"),
        (lambda model, x, m: ..., "returns nothing yet"),
        (average_of_logits, "softmax of the mean logits"),
        (sum_without_division, "sum to 1"),
        (lambda model, x, m: model(x), "sum to 1"),
        (average_in_eval_mode, "no unit was dropped"),
        (one_pass, "too far for m"),
        (lambda model, x, m: average(model, x, 1000), "with m = 1"),
        (all_passes, "expected probabilities"),
        (left_in_training_mode, "left in training mode"),
        (layers_left_in_training_mode, "a layer of it, was left in training mode"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_monte_carlo_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.monte_carlo(answer)


@pytest.mark.parametrize(
    "answer",
    [
        bregman.kl,
        lambda y, y_hat: (torch.xlogy(y, y) - torch.xlogy(y, y_hat)).sum(-1),
        lambda y, y_hat: torch.nn.functional.kl_div(y_hat.log(), y, reduction="none").sum(-1),
        lambda y, y_hat: bregman.kl(y.double(), y_hat.double()),
    ],
)
def test_kl_accepts_right_answers(answer, capsys):
    checks.kl(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda y, y_hat: None, "returns nothing yet"),
        (lambda y, y_hat: bregman.kl(y_hat, y), r"KL\(ŷ ‖ y\)"),
        (lambda y, y_hat: -bregman.kl(y, y_hat), "sign"),
        (lambda y, y_hat: -bregman.kl(y.double(), y_hat.double()), "sign"),
        (lambda y, y_hat: torch.xlogy(y, y.div_(y_hat)).sum(-1), "changed its argument in place"),
        (lambda y, y_hat: bregman.kl(y, y_hat).mean(), "one number for all rows"),
        (lambda y, y_hat: bregman.kl(y, y_hat).mean() / 3, "one number for all rows"),
        (lambda y, y_hat: bregman.kl(y, y_hat)[:, None], r"sum over the classes, `\.sum\(-1\)`"),
        (lambda y, y_hat: y * (y.log() - y_hat.log()), "sum over the classes"),
        (lambda y, y_hat: -(y * y_hat.log()).sum(-1), "cross-entropy"),
        (lambda y, y_hat: (y * (y.log2() - y_hat.log2())).sum(-1), "bits"),
        (lambda y, y_hat: bregman.squared_euclidean(y, y_hat), "should be"),
        (lambda y, y_hat: (y * (y.log() - y_hat.log())).sum(-1), "0 log 0"),
        (lambda y, y_hat: (y * (y / y_hat).log()).sum(-1).nan_to_num(), "the others still do.*log 2 = 0.6931"),
        (lambda y, y_hat: bregman.kl(y, y_hat) + 2e-4, "should be"),
    ],
)
def test_kl_says_what_is_wrong(answer, message):
    with pytest.raises(Unsolved, match=message):
        checks.kl(answer)


def test_an_unsolved_exercise_is_shown_as_its_message_alone():
    assert Unsolved("write it.")._render_traceback_() == ["Not yet: write it."]
