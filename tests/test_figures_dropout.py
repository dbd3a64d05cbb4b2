"""The figures of notebook 01 show the numbers that they are given."""

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

from helpers.plots import dropout as plots

RATES, SCALES = [0, 30, 60], [0.5, 2.0]


@pytest.fixture
def paths():
    dropout = torch.tensor([[2.0, 4.0], [1.4, 2.8], [0.8, 1.6]])
    return {"dropout": dropout, "sampled": dropout + 0.1, "ordinary L2": dropout / 2}


@pytest.mark.parametrize(("percent", "shares"), [(0, [1.0, 1.0]), (30, [0.7, 0.7]), (60, [0.4, 0.4])])
def test_shrinkage_shows_the_weights_at_the_rate_as_shares(paths, percent, shares):
    left, right = plots.shrinkage(percent, RATES, paths, SCALES).axes
    heights = [bar.get_height() for bar in left.patches]
    assert heights == pytest.approx(shares + [share / 2 for share in shares])
    assert right.lines[-1].get_xdata()[0] == percent


def test_features_shows_the_units_of_largest_norm():
    units = torch.rand(20, 3, 3) / 100
    units[7] = 1.0
    (axis,) = plots.features({"a": units, "b": units}, side=2).axes[:1]
    shown = torch.from_numpy(axis.images[0].get_array().filled(0))
    assert shown.shape == (10, 10)
    assert (shown[1:4, 1:4] == 1).all()


def test_paired_marks_every_repetition_and_the_mean():
    axis = plots.paired({"a": [1.0, 3.0], "b": [2.0, 2.0]}, "loss").axes[0]
    points = [tuple(point) for marks in axis.collections for point in marks.get_offsets().tolist()]
    assert {(0.0, 1.0), (0.0, 3.0), (1.0, 2.0)} <= set(points)


def test_figures_have_labelled_axes(paths):
    figures = [
        plots.kinds(
            {"units": torch.ones(4, 4), "other": torch.zeros(4, 4)}, {"units": ("a", "b"), "other": ("c", "d")}
        ),
        plots.gradient_noise([1, 4, 16], {"own": [1.0, 0.25, 0.06], "shared": [1.0, 0.6, 0.5]}),
        plots.shrinkage(30, RATES, paths, SCALES),
        plots.paired({"a": [1.0, 3.0], "b": [2.0, 2.0]}, "loss"),
        plots.robustness([0, 50], {"a": [1.0, 2.0], "b": [1.5, 1.7]}),
    ]
    for figure in figures:
        drawn = [axis for axis in figure.axes if axis.axison]
        assert all(axis.get_xlabel() or axis.get_ylabel() for axis in drawn)
        assert any(axis.get_ylabel() for axis in drawn)
    assert len({colour for colour, _ in plots.SERIES}) == len(plots.SERIES)
