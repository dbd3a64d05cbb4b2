"""The checks of notebook 08 accept right answers in more than one style, and name what is wrong with wrong ones."""

import pytest
import torch
from torch import nn

from helpers import networks
from helpers.checks import Unsolved
from helpers.checks import compression as checks


def by_hand(widths):
    a, b, c, d = widths
    return (75 + 1) * a + (25 * a + 1) * b + (25 * b + 1) * c + (16 * c + 1) * d + (d + 1) * 10


def by_network(widths):
    return sum(p.numel() for p in networks.Quick(widths=widths).parameters())


@pytest.mark.parametrize("answer", [by_hand, by_network])
@pytest.mark.parametrize("seed", range(3))
def test_count_accepts_right_answers(answer, seed, capsys):
    torch.manual_seed(seed)
    checks.count(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda w: None, "returns nothing yet"),
        (lambda w: [by_hand(w)], "expected a number, got list"),
        (lambda w: torch.tensor([by_hand(w)]), "expected one number"),
        (lambda w: by_hand(w) - sum(w) - 10, "biases"),
        (lambda w: by_hand(w) - 15 * w[2] * w[3], "16·c"),
        (lambda w: by_hand(w) - 50 * w[0], "three colours"),
        (lambda w: by_hand(w) - 10 * w[3] - 10, "last layer"),
        (lambda w: 145_578, "should be"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_count_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.count(answer)


def thin(first, second, kept, rows=None, bias=None, columns=None, second_bias=True):
    a, b = nn.Linear(first.in_features, len(kept)), nn.Linear(len(kept), second.out_features)
    with torch.no_grad():
        a.weight.copy_(first.weight[kept if rows is None else rows])
        a.bias.copy_(first.bias[kept if bias is None else bias])
        b.weight.copy_(second.weight[:, kept if columns is None else columns])
        if second_bias:
            b.bias.copy_(second.bias)
    return a, b


def thin_by_parameter(first, second, kept):
    a, b = nn.Linear(first.in_features, len(kept)), nn.Linear(len(kept), second.out_features)
    a.weight, a.bias = nn.Parameter(first.weight[kept]), nn.Parameter(first.bias[kept])
    b.weight, b.bias = nn.Parameter(second.weight[:, kept]), nn.Parameter(second.bias.clone())
    return [a, b]


def thin_with_the_same_bias(first, second, kept):
    a, b = thin(first, second, kept)
    b.bias = second.bias
    return a, b


def thin_with_the_same_data(first, second, kept):
    a, b = thin(first, second, kept)
    b.bias.data = second.bias.data
    return a, b


def thin_in_place(first, second, kept):
    first.weight, first.bias = nn.Parameter(first.weight[kept]), nn.Parameter(first.bias[kept])
    second.weight = nn.Parameter(second.weight[:, kept])
    return first, second


def masked_in_place(first, second, kept):
    with torch.no_grad():
        first.weight.mul_(torch.zeros(len(first.weight), 1).index_fill(0, kept, 1.0))
    return thin(first, second, kept)


def thin_without_bias(first, second, kept):
    layers = thin(first, second, kept)
    layers[0].bias = None
    return layers


def thin_without_second_bias(first, second, kept):
    layers = thin(first, second, kept)
    layers[1].bias = None
    return layers


@pytest.mark.parametrize("answer", [thin, thin_by_parameter])
def test_thinning_accepts_right_answers(answer, capsys):
    checks.thinning(answer)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda a, b, kept: None, "returns nothing yet"),
        (lambda a, b, kept: a, "two nn.Linear"),
        (lambda a, b, kept: (a, b), "A unit is a row"),
        (thin_with_the_same_bias, "shares a tensor"),
        (thin_with_the_same_data, "shares a tensor"),
        (thin_in_place, "layers that were given were changed"),
        (masked_in_place, "layers that were given were changed"),
        (thin_without_bias, "has no bias"),
        (thin_without_second_bias, "has no bias"),
        (lambda a, b, kept: thin(a, b, kept, rows=kept.flip(0)), "rows of the first"),
        (lambda a, b, kept: thin(a, b, kept, bias=kept.flip(0)), "not their biases"),
        (lambda a, b, kept: thin(a, b, kept, columns=kept.flip(0)), "columns of the second"),
        (lambda a, b, kept: thin(a, b, kept, second_bias=False), "second layer keeps its bias"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_thinning_says_what_is_wrong(answer, message, seed):
    torch.manual_seed(seed)
    with pytest.raises(Unsolved, match=message):
        checks.thinning(answer)
