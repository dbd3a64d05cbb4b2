"""The figures of notebook 09 show the numbers that they are given."""

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

from helpers import variational
from helpers.plots import variational_dropout as plots

A = torch.linspace(-8, 8, 33, dtype=torch.float64)


def figure_1():
    curves = {"sampled": variational.kl(A), "14": variational.kl(A), "cubic": variational.kl_cubic(A)}
    return plots.figure_1(A, {**curves, "bound": variational.kl_bound(A)}, variational.kl_exact(A))


def figure_3():
    history = {"epoch": [0, 1, 2], "bound": [-3.0, -2.0, -1.5], "kept": [1.0, 0.5, 0.1]}
    return plots.figure_3({"multiplicative": history, "additive": history})


CURVE = {3.0: {"error": 4.0, "kept": 50}, 5.0: {"error": 3.0, "kept": 90}}


def pruning(threshold=3.0):
    rates = {"1": torch.randn(4, 5), "3": torch.randn(2, 4)}
    return plots.pruning(threshold, rates, CURVE)


def meeting():
    point = {"parameters": 100, "multiply-adds": 90, "error": 3.0}
    return plots.meeting({name: [point, {**point, "parameters": 200}] for name in plots.WAYS})


def test_figure_1_shows_minus_the_divergence_and_the_distance_from_it():
    left, right = figure_1().axes
    shown = {line.get_label(): line.get_ydata() for line in left.lines}
    assert shown["exact"] == pytest.approx(-variational.kl_exact(A).numpy())
    distance = next(line.get_ydata() for line in right.lines if line.get_label() == "14")
    assert distance.max() == pytest.approx(0.0094, abs=2e-4)


@pytest.mark.parametrize("threshold", [3.0, 5.0])
def test_pruning_marks_the_threshold_that_is_chosen(threshold):
    left, right = pruning(threshold).axes
    (mark,) = [line for line in right.lines if line.get_marker() == "s"]
    assert mark.get_xydata().tolist() == [[CURVE[threshold]["kept"], CURVE[threshold]["error"]]]
    assert left.patches[-1].get_x() == threshold


def test_rates_are_black_from_the_threshold_on():
    log_alpha = torch.tensor([[[-3.0, 9.0], [5.0, 0.0]]] * 10)
    figure = plots.figure_2(torch.rand(2, 2), log_alpha, threshold=5.0)
    shown = [image for axis in figure.axes for image in axis.get_images()][1]
    assert shown.get_array().max() == shown.get_clim()[1] == 5.0
    assert shown.get_cmap()(shown.norm(5.0))[:3] == (0.0, 0.0, 0.0)


def test_masks_are_black_where_a_weight_remains():
    masks = {"conv1": torch.rand(8, 1, 3, 3) < 0.5, "conv2": torch.rand(6, 8, 3, 3) < 0.5}
    axes = plots.figure_4(masks).axes
    assert len(axes) == 2 * 6
    shown = axes[7].get_images()[0].get_array()
    assert torch.equal(torch.tensor(shown) == 1, masks["conv2"][1, 0])


def test_figures_have_labelled_axes():
    variances = {name: [1.0, 2.0] for name in "abcd"}
    truth = torch.tensor([1.0, 0.0])
    figures = [
        figure_1(),
        plots.gradient_variance([-2, 2], variances),
        plots.coefficients(truth, dict.fromkeys("abcd", truth)),
        figure_3(),
        pruning(),
        plots.connections(torch.rand(5, 5)),
        meeting(),
    ]
    for figure in figures:
        drawn = [axis for axis in figure.axes if axis.get_xlabel()]
        assert drawn
        assert any(axis.get_ylabel() for axis in drawn)
