"""Each exercise's check accepts right answers in more than one style, and names what is wrong with wrong ones."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical
from torch.nn.functional import kl_div

from helpers import gates, predictors
from helpers.checks import Unsolved
from helpers.checks import your_network as checks

SEEDS = pytest.mark.parametrize("seed", range(3))


def kl(p, q):
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def gap(model, x, m):
    return kl(predictors.monte_carlo(model, x, m), predictors.standard(model, x)).mean()


def gap_by_hand(model, x, m):
    with torch.no_grad():
        with gates.sampling(model):
            ideal = sum(model(x).softmax(-1) for _ in range(m)) / m
        return kl_div(model(x).log_softmax(-1), ideal, reduction="batchmean")


def in_plain_pytorch(model, x, m):
    dropouts = [layer for layer in model.modules() if isinstance(layer, torch.nn.Dropout)]
    with torch.no_grad():
        standard = model(x).softmax(-1)
        for layer in dropouts:
            layer.train()
        ideal = torch.stack([model(x).softmax(-1) for _ in range(m)]).mean(0)
        for layer in dropouts:
            layer.eval()
    return kl_div(standard.log(), ideal, reduction="batchmean")


def in_training_mode(model, x, m):
    model.train()
    with torch.no_grad():
        ideal = sum(model(x).softmax(-1) for _ in range(m)) / m
    model.eval()
    return kl(ideal, predictors.standard(model, x)).mean()


def of_a_copy_in_training_mode(model, x, m):
    trained = copy.deepcopy(model).train()
    with torch.no_grad():
        ideal = torch.stack([trained(x).softmax(-1) for _ in range(m)]).mean(0)
    return kl(ideal, predictors.standard(model, x)).mean()


def put_back_after_training_mode(model, x, m):
    saved = copy.deepcopy(model.state_dict())
    model.train()
    with torch.no_grad():
        ideal = torch.stack([model(x).softmax(-1) for _ in range(m)]).mean(0)
    model.eval().load_state_dict(saved)
    return kl(ideal, predictors.standard(model, x)).mean()


def with_rates_left_at_zero(model, x, m):
    answer = gap(model, x, m)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    return answer


def with_two_random_passes(model, x, m):
    with torch.no_grad(), gates.sampling(model):
        ideal = torch.stack([model(x).softmax(-1) for _ in range(m)]).mean(0)
        return kl(ideal, model(x).softmax(-1)).mean()


def cross_entropy(model, x, m):
    ideal = predictors.monte_carlo(model, x, m)
    return -torch.xlogy(ideal, predictors.standard(model, x)).sum(-1).mean()


def over_classes_too(model, x, m):
    return gap(model, x, m) / predictors.standard(model, x).shape[-1]


def left_in_training_mode(model, x, m):
    answer = gap(model, x, m)
    model.train()
    return answer


def layers_left_in_training_mode(model, x, m):
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.train()
    with torch.no_grad():
        ideal = sum(model(x).softmax(-1) for _ in range(m)) / m
    return kl(ideal, predictors.standard(model, x)).mean()


def mean_of_the_masks(model, x, m):
    q = predictors.standard(model, x)
    with torch.no_grad(), gates.sampling(model):
        return sum(kl(model(x).softmax(-1), q).mean() for _ in range(m)) / m


@SEEDS
@pytest.mark.parametrize(
    "answer",
    [
        gap,
        gap_by_hand,
        in_plain_pytorch,
        lambda model, x, m: gap(model, x, m).double(),
        lambda model, x, m: gap(model, x, m).item(),
        lambda model, x, m: gap(model, x, m).numpy().mean(),
    ],
)
def test_gap_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.gap(answer)
    assert "Correct" in capsys.readouterr().out


@SEEDS
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda model, x, m: None, "returns nothing yet"),
        (in_training_mode, "BatchNorm learns"),
        (left_in_training_mode, "put its mode back"),
        (layers_left_in_training_mode, "a layer of it, was left in training mode"),
        (lambda model, x, m: gap(model, x.mul_(0.5), m), "changed its argument in place"),
        (lambda model, x, m: -gap(model, x, m).item(), "sign"),
        (lambda model, x, m: kl(predictors.monte_carlo(model, x, m), predictors.standard(model, x)), "mean over"),
        (lambda model, x, m: gap(model, x, m) * len(x), "sum over"),
        (lambda model, x, m: -gap(model, x, m), "sign"),
        (
            lambda model, x, m: kl(predictors.standard(model, x), predictors.monte_carlo(model, x, m)).mean(),
            "first argument",
        ),
        (
            lambda model, x, m: kl(predictors.geometric(model, x, m), predictors.standard(model, x)).mean(),
            "average the probabilities",
        ),
        (lambda model, x, m: kl(*[predictors.standard(model, x)] * 2).mean(), "no unit was dropped"),
        (mean_of_the_masks, "take the KL of the average"),
        (lambda model, x, m: gap(model, x, 1), "with all masks"),
        (lambda model, x, m: gap(model, x, 2 * m), "with m = 1"),
        (lambda model, x, m: gap(model, x, 1000), "with m = 1"),
        (of_a_copy_in_training_mode, "statistics of `x`"),
        (put_back_after_training_mode, "statistics of `x`"),
        (with_two_random_passes, "no pass was made without dropout"),
        (cross_entropy, "this is the cross-entropy"),
        (lambda model, x, m: gap(model, x, m) / math.log(2), "this is in bits"),
        (over_classes_too, "mean over inputs and classes"),
        (with_rates_left_at_zero, "rate of a dropout layer was changed"),
    ],
)
def test_gap_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.gap(answer)


def surest(q, coverage):
    return Categorical(q).entropy().argsort()[: max(1, round(coverage * len(q)))]


def risk(q, labels, coverage):
    kept = surest(q, coverage)
    return (q[kept].argmax(-1) != labels[kept]).float().mean()


def risk_by_loop(q, labels, coverage):
    entropies = [-sum(p * p.log() for p in row).item() for row in q]
    kept = sorted(range(len(q)), key=entropies.__getitem__)[: max(1, round(coverage * len(q)))]
    return sum(int(q[i].argmax() != labels[i]) for i in kept) / len(kept)


def risk_as_a_fraction(q, labels, coverage):
    return np.float32(risk(q, labels, coverage))


@SEEDS
@pytest.mark.parametrize("answer", [risk, risk_as_a_fraction, risk_by_loop])
def test_risk_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.risk(answer)
    assert "Correct" in capsys.readouterr().out


def of_most_doubt(q, labels, coverage):
    kept = Categorical(q).entropy().argsort(descending=True)[: round(coverage * len(q))]
    return (q[kept].argmax(-1) != labels[kept]).float().mean()


def of_the_surest(q, labels, k):
    kept = Categorical(q).entropy().argsort()[:k]
    return (q[kept].argmax(-1) != labels[kept]).float().mean()


def none_left(q, labels, coverage):
    return of_the_surest(q, labels, round(coverage * len(q)))


def of_those(q, labels, order, coverage):
    return (q.argmax(-1) != labels)[order[: max(1, round(coverage * len(q)))]].double().mean()


def none_left_to_divide_by(q, labels, coverage):
    k = round(coverage * len(q))
    return (of_the_surest(q, labels, k) * k).item() / k


@SEEDS
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda q, labels, coverage: None, "returns nothing yet"),
        (lambda q, labels, coverage: (q.argmax(-1) != labels).float(), "one number"),
        (lambda q, labels, coverage: 1 - risk(q, labels, coverage), "right answers"),
        (of_most_doubt, "most doubt"),
        (lambda q, labels, coverage: 100 * risk(q, labels, coverage), "in %"),
        (
            lambda q, labels, coverage: (q.argmax(-1) != labels)[surest(q, coverage)].sum() / len(q),
            "by the number of inputs kept",
        ),
        (lambda q, labels, coverage: risk(q, labels, 1.0), "on all inputs"),
        (lambda q, labels, coverage: risk(q, labels, coverage) + 0.123, "should be"),
        (lambda q, labels, coverage: of_those(q, labels, (-q.max(-1).values).argsort(), coverage), "are ranked by"),
        (none_left, "at least one"),
        (none_left_to_divide_by, "at least one"),
        (lambda q, labels, coverage: none_left(q, labels, coverage).nan_to_num(), "at least one"),
        (lambda q, labels, coverage: of_the_surest(q, labels, max(1, int(coverage * len(q)))), "66 inputs are kept"),
        (lambda q, labels, coverage: of_the_surest(q, labels, math.ceil(coverage * len(q))), "41 inputs are kept"),
        (lambda q, labels, coverage: risk(q, labels.clamp_(1), coverage), "changed its argument in place"),
    ],
)
def test_risk_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.risk(answer)
