"""What the figures of notebook 10 show are the numbers that they are given."""

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

from helpers.plots import your_network as plots

ANGLES = [0, 60, 120]
CURVES = {
    "ideal": [0.2, 1.4, 1.5],
    "standard": [0.1, 1.0, 1.1],
    "distilled": [0.2, 1.5, 1.6],
    "mutual information": [0.1, 0.4, 0.5],
}


@pytest.mark.parametrize("kinds", [["digits"], ["digits", "patches"]])
def test_the_curves_of_doubt_are_shares_of_inputs(kinds):
    torch.manual_seed(0)
    entropies = {
        kind: {name: torch.rand(50) for name in ("ideal", "standard", "distilled", "mutual information")}
        for kind in kinds
    }
    figure = plots.doubts(entropies)
    assert [axis.get_title() for axis in figure.axes] == kinds
    for axis, kind in zip(figure.axes, kinds, strict=True):
        lines = {line.get_label(): line for line in axis.lines}
        assert set(lines) == {"ideal", "standard", "distilled"}
        x, share = lines["distilled"].get_data()
        values = entropies[kind]["distilled"].double().numpy()
        for at in (10, 30):
            assert share[at] == pytest.approx((values <= x[at] + 1e-12).mean())


@pytest.mark.parametrize("degrees", ANGLES)
def test_turning_marks_the_angle_and_shows_what_is_said(degrees):
    said = {name: torch.rand(10).softmax(-1) for name in ("standard", "distilled", "ideal")}
    figure = plots.turning(degrees, torch.rand(1, 28, 28), said, ANGLES, CURVES)
    left, middle, right = figure.axes
    assert f"{degrees}°" in left.get_title()
    points = {collection.get_label(): collection.get_offsets() for collection in middle.collections}
    for name, q in said.items():
        assert points[name][:, 1].tolist() == pytest.approx(q.tolist())
    assert [line for line in right.lines if list(line.get_xdata()) == [degrees, degrees]]
    curves = {line.get_label(): list(line.get_ydata()) for line in right.lines}
    assert curves["entropy, student"] == CURVES["distilled"]
    assert curves["mutual information, ensemble"] == CURVES["mutual information"]
