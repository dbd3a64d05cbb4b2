"""What a slider does is a pure function; the widget only calls it."""

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

from matplotlib.figure import Figure

from helpers import widgets
from helpers.plots import COLOURS
from helpers.plots import tour as plots


@pytest.fixture
def gated():
    return torch.randn(50, 10, generator=torch.Generator().manual_seed(0)).mul(2).softmax(-1)


@pytest.fixture
def lines(gated):
    return {"standard": gated[0], "distilled": gated[1], "ideal": gated.mean(0)}


def test_the_reliability_diagram_by_hand():
    """Two bins of two examples each, by confidence: of the less sure one is right, of the surer both."""
    sure = torch.tensor([0.9, 0.6, 0.8, 0.7])
    axis = Figure().subplots()
    plots.reliability(axis, {"standard": torch.stack([sure, 1 - sure], -1)}, torch.tensor([0, 1, 0, 0]), bins=2)
    (bars,) = axis.containers
    assert bars.lines[0].get_xdata() == pytest.approx([0.65, 0.85])
    assert list(bars.lines[0].get_ydata()) == [0.5, 1.0]


def test_an_error_bar_is_the_standard_error_of_the_share_by_hand():
    """Of four examples three are right: 0.75 ± √(0.75 · 0.25 / 4)."""
    sure, error = torch.tensor([0.9, 0.6, 0.8, 0.7]), 0.2165
    axis = Figure().subplots()
    plots.reliability(axis, {"standard": torch.stack([sure, 1 - sure], -1)}, torch.tensor([0, 1, 0, 0]), bins=1)
    _, _, (bar,) = axis.containers[0].lines
    assert bar.get_segments()[0][:, 1] == pytest.approx([0.75 - error, 0.75 + error], abs=1e-4)


@pytest.mark.parametrize("m", [1, 7, 50])
def test_settling_shows_the_mean_of_the_first_m_masks(gated, lines, m):
    bars = plots.settling(m, gated, lines, label=3).axes[0].patches
    shown = torch.tensor([bar.get_height() for bar in bars])
    assert torch.allclose(shown.double(), gated[:m].double().mean(0))


def test_settling_keeps_the_other_predictors_where_they_are(gated, lines):
    def levels(m):
        followed = plots.settling(m, gated, lines, label=3).axes[1].lines
        return {line.get_label(): line.get_ydata()[0] for line in followed if line.get_label() in lines}

    assert levels(1) == levels(50)
    assert levels(1) == {name: pytest.approx(q[3].item()) for name, q in lines.items()}


def test_the_slider_redraws_with_its_value():
    drawn = []

    def draw(m):
        drawn.append(m)
        return matplotlib.figure.Figure()

    box = widgets.slider_figure(draw, steps=[1, 2, 5], value=2, label="masks m")
    box.children[0].value = 5
    assert drawn == [2, 5]


def test_figures_have_labelled_axes_with_one_colour_per_predictor(gated, lines):
    labels = gated.argmax(-1)
    images = torch.rand(50, 1, 8, 8)
    predictions = {name: gated for name in lines}
    figures = [
        plots.summary(dict.fromkeys(lines, 0.1), predictions, labels),
        plots.settling(5, gated, lines, 3),
        plots.disagreements(images[:3], labels[:3], {name: q[:3] for name, q in predictions.items()}),
        plots.ensemble(images[0], gated, shown=4),
    ]
    for figure in figures:
        drawn = [axis for axis in figure.axes if axis.axison]
        assert all(axis.get_xlabel() for axis in drawn)
        assert any(axis.get_ylabel() for axis in drawn)
    assert len(set(COLOURS.values())) == len(COLOURS)
