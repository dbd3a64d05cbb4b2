"""The figures show what they were given."""

from io import BytesIO

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

from helpers.plots import COLOURS
from helpers.plots import inference as plots


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def window():
    """Units, values of their maximum under 4 masks, and the masks' probabilities at rate 1/2."""
    return torch.tensor([1.0, 0.5]), torch.tensor([0.0, 1.0, 2.0, 2.0]), torch.full((4,), 0.25)


@pytest.fixture
def figures(window):
    unpooled, values, weights = window
    f = torch.rand(64, generator=generator())
    rates = torch.linspace(0.1, 0.9, 5)
    lines = {"ideal": 0.5, "standard": 0.9, "geometric": 0.8, "fast dropout": 0.4}
    costs = {"standard": [1.0], "Monte Carlo": [2.0, 20.0], "geometric": [2.0, 20.0], "fast dropout": [5.0]}
    return {
        "members": plots.members(f, f - 0.5, torch.full((64,), 1 / 64), lines, (0.0, 0.3)),
        "law": plots.law(torch.randn(20, 50, generator=generator()), 1.0),
        "enough": plots.enough(torch.rand(3, 30), torch.rand(3, 30), (0.5, 0.5)),
        "price": plots.price(costs, costs, [1, 10]),
        "pooling": plots.pooling(0.5, values, weights, unpooled, rates, 1 + 0.5 * rates),
    }


def test_axes_are_labelled(figures):
    for figure in figures.values():
        assert all(axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes)
        figure.savefig(BytesIO())


def test_members_has_a_line_in_its_colour_for_each_predictor(figures):
    left, right = figures["members"].axes
    drawn = {line.get_label(): (line.get_xdata()[0], line.get_color()) for line in left.lines}
    assert drawn["standard"] == (0.9, COLOURS["standard"])
    assert len(drawn) == 4
    assert sum(patch.get_height() for patch in left.patches) == pytest.approx(1)
    area = sum(patch.get_height() * patch.get_width() for patch in right.patches)
    assert area == pytest.approx(1)


def test_the_law_falls_as_one_over_the_root(figures):
    line = next(line for line in figures["law"].axes[1].lines if "enumeration" in line.get_label())
    assert line.get_ydata()[24] == pytest.approx(1 / 5)


def test_price_says_how_many_masks_each_point_has(figures):
    assert [text.get_text() for text in figures["price"].axes[0].texts] == ["m = 1", "m = 10"]


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_pooling_shows_the_mean_and_what_weight_scaling_says(window, p):
    unpooled, values, weights = window
    rates = torch.linspace(0.1, 0.9, 5)
    left, right = plots.pooling(p, values, weights, unpooled, rates, rates).axes
    assert {line.get_xdata()[0] for line in left.lines} == {1.25, 1.0}
    assert left.get_title() == f"rate {p}"
    (point,) = [line for line in right.lines if line.get_marker() == "o"]
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (p, 1.25)
