"""What the sliders of notebook 05 do is a pure function."""

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")

from helpers import bregman
from helpers.plots import bregman_losses as plots
from helpers.plots import simplex


@pytest.mark.parametrize("loss", [bregman.squared_euclidean, bregman.kl, bregman.itakura_saito], ids=repr)
@pytest.mark.parametrize("y_hat", [0.05, 0.4, 0.95])
def test_the_bar_is_as_high_as_the_divergence(loss, y_hat):
    left = plots.gap(loss, "φ", y_hat, y=0.75).axes[0]
    (bar,) = (line for line in left.lines if len(line.get_xdata()) == 2)
    low, high = bar.get_ydata()
    assert high - low == pytest.approx(loss(torch.tensor([0.75]).double(), torch.tensor([y_hat]).double()).item())


def test_the_tangent_touches_phi_and_stays_below():
    phi, tangent = (line.get_ydata() for line in plots.gap(bregman.kl, "φ", 0.3).axes[0].lines[:2])
    gap = np.asarray(phi) - np.asarray(tangent)
    assert gap.min() >= -1e-12 and gap.min() < 1e-4


def test_corners_of_the_triangle_are_certain_classes():
    x, y = simplex.place(torch.eye(3))
    np.testing.assert_allclose(np.stack([x, y], -1), simplex.CORNERS)
    assert simplex.place(torch.full((3,), 1 / 3))[0] == pytest.approx(0.5)


def test_figures_have_labelled_axes_and_mark_mean_and_best_constant():
    grid = torch.tensor([(i, j, 10 - i - j) for i in range(1, 10) for j in range(1, 10 - i)]).double() / 10
    heights = {name: torch.rand(len(grid)) for name in "abcde"}
    weights = torch.tensor([0.25, 0.75]).double()
    landscapes = plots.landscapes(grid, heights, grid[:2], weights, ["A", "B", "C"])
    for axis, (name, height) in zip(landscapes.axes, heights.items(), strict=False):
        assert axis.get_title() == name
        offsets = {c.get_label(): c.get_offsets()[0] for c in axis.collections if "_" not in c.get_label()}
        np.testing.assert_allclose(offsets["mean of Y"], np.ravel(simplex.place(weights @ grid[:2])))
        np.testing.assert_allclose(offsets["best constant q"], np.ravel(simplex.place(grid[height.argmin()])))
    between = plots.between([1, 2, 4], {"arithmetic mean": [0, 0.1, 0.2], "geometric mean": [0.2, 0.1, 0]})
    for figure in (between, plots.gap(bregman.kl, "φ", 0.3)):
        assert all(axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes)
