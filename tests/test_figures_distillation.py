"""The figures of notebook 06 show the numbers that they are given."""

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

from helpers.plots import distillation as plots


@pytest.fixture
def cloud():
    return torch.randn(40, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_plane_holds_ideal_and_standard_and_the_largest_other_variation(cloud):
    ideal = cloud.mean(0)
    standard = ideal + torch.eye(12, dtype=torch.float64)[0] * 3
    cloud[:, 5] = ideal[5] + (cloud[:, 5] - ideal[5]) * 20
    axes = plots.plane(cloud, ideal, standard)
    torch.testing.assert_close(axes @ axes.T, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(axes @ (standard - ideal), torch.tensor([3.0, 0.0], dtype=torch.float64))
    assert axes[1, 5].abs() > 0.95


@pytest.mark.parametrize("shown", [1, 3])
def test_figure_1_shows_the_path_as_far_as_asked(cloud, shown):
    path = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.5, 0.2]])
    axis = plots.figure_1(shown, [0, 10, 100], cloud[:, :2], path).axes[0]
    assert len(axis.lines[0].get_xdata()) == shown
    assert axis.lines[1].get_xydata().tolist() == [pytest.approx(path[shown - 1].tolist())]
    assert len(axis.collections[0].get_offsets()) == 40


def test_minimisers_are_marked_where_the_curves_are_lowest():
    q = torch.arange(1, 100) / 100
    curves = {name: (q - low).square() for name, low in [("a", 0.2), ("b", 0.4), ("c", 0.6), ("d", 0.8)]}
    right = plots.minimisers(torch.rand(50), 1, curves, {"mean": 0.3}).axes[1]
    marks = [line.get_xdata()[0] for line in right.lines if line.get_marker() == "v"]
    assert marks == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_figures_have_labelled_axes(cloud):
    curves = dict.fromkeys("abcd", torch.rand(20))
    images = {name: torch.rand(3, 1, 8, 8) for name in ("train", "noise")}
    figures = [
        plots.figure_1(2, [0, 5], cloud[:, :2], cloud[:2, :2]),
        plots.minimisers(torch.rand(50), 16, curves, {"mean": 0.3}),
        plots.learning([1, 3, 9], {"a": [0.1, 0.05, 0.02], "b": [0.9, 0.3, 0.1]}, 0.06),
        plots.sources(images, {"train": 0.01, "noise": 0.05}, 0.06),
        plots.masks_per_step([1, 2, 4], [1.0, 0.5, 0.25], {"same steps": [0.3, 0.2, 0.1]}),
    ]
    for figure in figures:
        drawn = [axis for axis in figure.axes if axis.get_xlabel()]
        assert drawn and all(axis.get_ylabel() for axis in drawn)
