"""Checks of the exercises in notebook 10."""

import copy
import math
from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from helpers import bregman, gates, predictors
from helpers.checks import call, exercise, require
from helpers.checks.tour import every_prediction

BITS = "this is in bits; use the natural logarithm."


def network_with_statistics(x: Tensor) -> tuple[nn.Sequential, dict[str, float]]:
    """A random network with six gates, and with BatchNorm, whose statistics training mode would change, and {"right": its
    gap on the inputs `x` [N, 4], a slip: what comes of it}. It is so crooked that its `candidates` are plain to tell apart."""
    while True:
        model = nn.Sequential(
            *(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)),
        ).eval()
        with torch.no_grad():
            model[1].running_mean.normal_()
            for layer in (model[0], model[4], model[6]):
                layer.weight.mul_(4)
        of, of_right = candidates(model, x)
        right, *others = of.values()
        apart = all(abs(a - b) > 0.1 * max(a, b) for a, b in combinations(others, 2))
        apart = apart and all(abs(other - right) > 0.25 * right for other in (*others, *of_right.values()))
        if right > 0.3 and apart and predictors.standard(model, x).min() > 1e-30:  # of which the ratio to it is finite
            return model, of | of_right


def candidates(model: nn.Module, x: Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """{"right": KL(ideal ‖ standard), what went wrong: what comes of it}: means over `x`, in nats; and the same of slips that
    begin with the right two predictions."""
    training = with_statistics_of(x, model)
    members, standard = every_prediction(model, x), predictors.standard(model, x)
    ideal, ideal_in_training = members.mean(0), every_prediction(training, x).mean(0)
    geometric = members.log().mean(0).softmax(-1)
    with_batch = (
        "BatchNorm took the statistics of `x` for its own: put the layers `nn.Dropout` alone into training mode."
    )
    of_each = "this is the mean of the masks' KLs: average the probabilities first, and take the KL of the average."
    pairs = {
        "right": (ideal, standard),
        "this is KL(standard ‖ ideal): the ideal predictor is the first argument.": (standard, ideal),
        "the average is that of logits; average the probabilities.": (geometric, standard),
        with_batch: (ideal_in_training, standard),
        f"{with_batch} In both predictions.": (ideal_in_training, predictors.standard(training, x)),
        of_each: (members, standard),
    }
    of = {name: bregman.kl(p, q).mean().item() for name, (p, q) in pairs.items()}
    right, entropy = of["right"], Categorical(ideal).entropy().mean().item()
    return of, {
        BITS: right / math.log(2),
        "this is the mean over inputs and classes: sum over the classes first.": right / ideal.shape[-1],
        "this is the cross-entropy; KL has the entropy of the ideal taken off.": right + entropy,
    }


def with_statistics_of(x: Tensor, model: nn.Sequential) -> nn.Sequential:
    """What `model` computes of `x` with its BatchNorm, the second layer, in training mode."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        var, mean = torch.var_mean(other[0](x), dim=0, correction=0)
    other[1].running_mean, other[1].running_var = mean, var
    return other


@exercise
def gap(function: Callable[[nn.Module, Tensor, int], Tensor]) -> None:
    """Check ``function(model, x, m)``: mean KL(ideal ‖ standard) over the inputs, a scalar."""
    x, m = torch.randn(200, 4), 1000
    model, of = network_with_statistics(x)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rates = gates.rates(model)
    standard, members = predictors.standard(model, x), every_prediction(model, x)
    of_one_mask = bregman.kl(members, standard)  # [2^6, N]
    # The input that tells masks apart best, of those where what is added to a probability inside a logarithm hardly counts.
    row = of_one_mask.std(0).masked_fill(standard.min(-1).values < 1e-5, 0).argmax()
    one, of_one_mask = x[row : row + 1], of_one_mask[:, row]
    dropping = []  # in each pass, whether gates were drawn
    watch = model[3].register_forward_hook(lambda layer, *_: dropping.append(layer.training and layer.p > 0))
    try:
        answer = call(function, model, x, m, number=True)
    finally:
        watch.remove()
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    require(
        not changed,
        f"{changed[0] if changed else ''} of the network was changed: in training mode BatchNorm learns from whatever "
        "passes through. Put the layers `nn.Dropout` alone into training mode.",
    )
    require(
        not any(module.training for module in model.modules()),
        "the network, or a layer of it, was left in training mode; put its mode back.",
    )
    require(gates.rates(model) == rates, "the rate of a dropout layer was changed; put it back.")
    require(answer.shape == (), f"expected one number, got {list(answer.shape)}: take the mean over the inputs.")
    right = of["right"]

    def near(value: float) -> bool:
        return abs(answer.item() - value) < 0.1 * abs(value)

    require(not near(right * len(x)), "this is the sum over the inputs; take their mean.")
    require(abs(answer.item()) > 1e-3 * right, "no unit was dropped: put the layers `nn.Dropout` into training mode.")
    require(not near(-right), "the sign is the wrong way round: KL is never negative.")

    def of_one(values: Tensor) -> bool:
        once = call(function, model, one, 1, number=True)
        return bool(torch.isclose(values.double(), once.double(), rtol=1e-3, atol=1e-5).any())

    require(
        near(right) or not all(dropping),
        "no pass was made without dropout: for the standard prediction put the layers `nn.Dropout` back into eval mode.",
    )
    slips = [slip for slip in of if slip != "right" and near(of[slip])]
    if slips == [BITS] and not of_one(of_one_mask / math.log(2)):
        slips = []
    require(not slips, " Or: ".join(slips))  # one network cannot tell apart what happens to be as large
    require(near(right), f"with all masks it is {right:.3f} nats, and your answer is {answer.item():.3f}.")
    for _ in range(5):  # the mean of two masks may be that of one by chance, but hardly every time
        require(
            of_one(of_one_mask),
            "with m = 1 the ideal should be the prediction under one mask, and is not: draw m masks, neither more nor fewer.",
        )
    print("Correct: your gap agrees with the enumeration of all masks, and the network is as it was.")


@exercise
def risk(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Check ``function(q, labels, coverage)``: the share of wrong answers among the surest inputs, a scalar."""
    n, ranked_otherwise = 200, [torch.zeros(())]
    while min(ranked_otherwise) == 0:  # until it makes a difference by what the inputs are ranked
        q = (torch.randn(n, 5) * torch.rand(n, 1) * 4).double().softmax(-1)
        labels = torch.where(torch.rand(n) < q.max(-1).values, q.argmax(-1), torch.randint(5, (n,)))
        order = Categorical(q).entropy().argsort()
        labels[order[0]] = (q[order[0]].argmax() + 1) % 5  # so that one input more or less always makes a difference
        wrong = (q.argmax(-1) != labels).double()
        first, second = q.topk(2).values.T
        others = {
            "the largest probability": first.argsort(descending=True),
            "the lead of the first class": (second - first).argsort(),
        }
        ranked_otherwise = [(wrong[other[:67]].sum() - wrong[order[:67]].sum()).abs() for other in others.values()]
    for coverage in (0.333, 0.202, 1.0):  # of 200 inputs the first is to be rounded up, the second down
        k = round(coverage * n)
        answer = call(function, q, labels, coverage, number=True)
        expected, surest = wrong[order[:k]].mean(), "the surest have the smallest entropy"
        require(answer.shape == (), f"expected one number, got {list(answer.shape)}.")

        def same(value: Tensor, answer: Tensor = answer) -> bool:
            return bool((answer.double() - value).abs() < 1e-6)

        right = same(expected)
        require(right or not same(1 - expected), "this is the share of right answers.")
        require(right or not same(wrong[order[-k:]].mean()), f"these are the inputs of most doubt; {surest}.")
        require(right or not same(100 * expected), "this is in %; return a share between 0 and 1.")
        require(right or not same(wrong[order[:k]].sum() / n), "divide by the number of inputs kept, not by all N.")
        require(right or not same(wrong.mean()), "this is the error on all inputs; keep the surest alone.")
        for by, other in others.items():
            require(right or not same(wrong[other[:k]].mean()), f"the inputs are ranked by {by}; {surest}.")
        for kept in (k - 1, k + 1):
            require(
                right or not same(wrong[order[:kept]].mean()),
                f"{kept} inputs are kept; {coverage:g} of {n} is {coverage * n:g}, to the nearest whole number {k}.",
            )
        require(right, f"at a coverage of {coverage:g} it should be {expected:.3f}, and is {answer.item():.3f}.")
    try:
        least = call(function, q, labels, 0.0, number=True).item()
    except ZeroDivisionError:
        least = float("nan")
    require(
        abs(least - 1) < 1e-6,
        "with a coverage of zero the surest input is still kept, as the text asks for at least one. Here it is one that is "
        f"predicted wrongly, so that the share should be 1, and is {least:g}.",
    )
    print("Correct: your risk agrees for three coverages.")
