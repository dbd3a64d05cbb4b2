"""The figures show what they were given; several sliders redraw with all of their values."""

from io import BytesIO

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

from helpers import widgets
from helpers.plots import COLOURS
from helpers.plots import weight_scaling as plots

T = 5
CURVES = {"ideal": torch.linspace(0.1, 0.5, T), "geometric": torch.full((T,), 0.3), "standard": torch.full((T,), 0.7)}


@pytest.fixture
def figures():
    x, members = torch.linspace(-1, 1, T), torch.rand(3, T)
    distances = {kind: torch.arange(24.0).reshape(3, 4, 2) for kind in ("ReLU", "linear")}
    return {
        "densities": plots.densities(x, members, CURVES),
        "rectified": plots.rectified(x, x.square(), x.square()),
        "growth": plots.growth(
            {"hidden layers": ([0, 1, 2, 3], distances), "rate p": ([0.1, 0.3, 0.5, 0.7], distances)}
        ),
        "slices": plots.slices(x, {"linear": (members, CURVES), "ReLU": (members, CURVES)}, "rate 0.5"),
    }


def test_axes_are_labelled(figures):
    for name, figure in figures.items():
        assert all(axis.get_xlabel() for axis in figure.axes)
        assert figure.axes[0].get_ylabel(), name
        figure.savefig(BytesIO())


@pytest.mark.parametrize("name", ["densities", "slices"])
def test_each_predictor_is_drawn_in_its_colour(figures, name):
    for axis in figures[name].axes:
        drawn = {line.get_label(): line for line in axis.lines if line.get_label() in CURVES}
        assert {label: line.get_color() for label, line in drawn.items()} == {label: COLOURS[label] for label in CURVES}
        assert list(drawn["ideal"].get_ydata()) == CURVES["ideal"].tolist()


def test_growth_shows_means_over_the_networks(figures):
    axis = figures["growth"].axes[0]
    (line,) = [bars.lines[0] for bars in axis.containers if bars.get_label() == "ReLU network, from ideal"]
    assert list(line.get_ydata()) == [8, 10, 12, 14]
    assert len(axis.containers) == 4


def test_sliders_redraw_with_all_their_values():
    drawn = []

    def draw(rate, scale):
        drawn.append((rate, scale))
        return matplotlib.figure.Figure()

    box = widgets.sliders_figure(draw, {"rate p": ([0.1, 0.5], 0.5), "scale": ([1, 2, 3], 1)})
    rate, scale, _ = box.children
    assert (rate.description, scale.description) == ("rate p", "scale")
    scale.value = 3
    rate.value = 0.1
    assert drawn == [(0.5, 1), (0.5, 3), (0.1, 3)]
