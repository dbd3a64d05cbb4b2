"""Checks of the exercises in notebook 08."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from helpers.checks import call, exercise, require
from helpers.networks import Quick, parameter_count


@exercise
def count(function: Callable[[Sequence[int]], int]) -> None:
    """Check ``function(widths)``: the number of parameters of Quick with `widths` (a, b, c, d) and ten classes."""
    a, b, c, d = widths = tuple(int(w) for w in torch.randint(3, 60, (4,)))
    answer = call(function, widths, number=True)
    require(answer.shape == (), f"expected one number, got a tensor of shape {list(answer.shape)}.")
    answer = answer.item()
    truth = parameter_count(Quick(widths=widths))
    biases = a + b + c + d + 10
    require(answer != truth - biases, "the biases are missing: each unit of a layer has one.")
    require(
        answer != truth - 15 * c * d,
        "fc1 sees every position of the last map: 4 × 4 of them, so that it has 16·c inputs.",
    )
    require(
        answer != truth - 25 * 3 * a + 25 * a,
        "the first convolution sees three colours; each of its filters has 3·5·5 weights.",
    )
    require(answer != truth - (10 * d + 10), "the last layer, from d units to ten classes, is missing.")
    require(answer == truth, f"for widths {widths} it should be {truth:,}, and is {answer:,.0f}.")
    print("Correct: your count agrees with the network's, for widths drawn at random.")


def alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two layers have the same parameters."""
    these, those = one.state_dict(), other.state_dict()
    return these.keys() == those.keys() and all(torch.equal(these[name], those[name]) for name in these)


@exercise
def thinning(function: Callable[[nn.Linear, nn.Linear, Tensor], tuple[nn.Linear, nn.Linear]]) -> None:
    """Check ``function(first, second, kept)``: the two layers after only the units `kept` remain between them."""
    n_in, hidden, n_out, remain = 5, 8, 3, 4
    kept = torch.randperm(hidden)[:remain].sort().values
    first, second, x = nn.Linear(n_in, hidden), nn.Linear(hidden, n_out), torch.randn(7, n_in)
    given = copy.deepcopy((first, second))
    answer = function(*given, kept.clone())
    require(answer is not None and answer is not ..., "the function returns nothing yet; return both layers.")
    require(
        isinstance(answer, tuple | list) and len(answer) == 2 and all(isinstance(layer, nn.Linear) for layer in answer),
        "return two nn.Linear layers, (first, second).",
    )
    require(
        all(map(alike, given, (first, second))),
        "the layers that were given were changed; leave them as they are, and make two new ones.",
    )
    a, b = answer
    require(
        a.weight.shape == (remain, n_in) and b.weight.shape == (n_out, remain),
        f"expected weights {[remain, n_in]} and {[n_out, remain]}, got {list(a.weight.shape)} and {list(b.weight.shape)}. "
        "A unit is a row of the layer that makes it, and a column of the layer that uses it.",
    )
    require(
        a.bias is not None and b.bias is not None,
        "a layer has no bias; both layers have one before, and after (leave `bias=False` away).",
    )
    with torch.no_grad():
        mask = torch.zeros(hidden).index_fill(0, kept, 1.0)
        expected = second(first(x).relu() * mask)
        got = b(a(x).relu())
        require(
            torch.equal(a.weight, first.weight[kept]),
            "the rows of the first layer are not those of the units that are kept.",
        )
        require(torch.equal(a.bias, first.bias[kept]), "the units keep their weights, but not their biases.")
        require(
            torch.equal(b.weight, second.weight[:, kept]),
            "the columns of the second layer are not those of the units that are kept.",
        )
        require(torch.allclose(got, expected, atol=1e-5), "the second layer keeps its bias: its units all remain.")
        for parameter in (*a.parameters(), *b.parameters()):
            parameter.add_(1)
    require(
        all(map(alike, given, (first, second))),
        "a new layer shares a tensor with one that was given, so that training it would change both; copy what is kept.",
    )
    print("Correct: the thinned layers compute what the others do with the missing units at zero.")
