"""What the sliders of notebook 04 do is a pure function."""

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

from helpers import bregman
from helpers.plots import theorem_1 as plots

NAMES = ["1", "8", "9"]


@pytest.fixture
def members():
    return torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).double().mul(2).softmax(-1)


@pytest.fixture
def path():
    share = torch.linspace(0.05, 0.9, 21).double()[:, None]
    return share * torch.tensor([1.0, 0.0, 0.0]) + (1 - share) / 3


def walk(loss, step, members, path):
    J, J_prime = loss(members.mean(0), path), loss(members[:, None], path).mean(0)
    return plots.walk(step, path, J, J_prime, members, "a loss", NAMES), J, J_prime


@pytest.mark.parametrize("step", [0, 7, 20])
def test_the_walk_shows_the_gap_at_the_step(step, members, path):
    figure, J, J_prime = walk(bregman.reverse_kl, step, members, path)
    _, middle, right = figure.axes
    (bar,) = (line for line in middle.lines if list(line.get_xdata()) == [step, step])
    assert list(bar.get_ydata()) == pytest.approx([J[step].item(), J_prime[step].item()])
    assert right.get_title() == f"J - J' = {(J - J_prime)[step]:.3f}"


@pytest.mark.parametrize(("loss", "still"), [(bregman.kl, True), (bregman.reverse_kl, False)])
def test_the_gap_stays_level_for_a_bregman_loss_only(loss, still, members, path):
    figure, *_ = walk(loss, 3, members, path)
    levels = torch.as_tensor(figure.axes[2].lines[0].get_ydata())
    assert (levels.max() - levels.min() < 1e-9) == still


def test_figures_have_labelled_axes(members, path):
    objectives = {str(i): (torch.rand(5), torch.rand(5)) for i in range(6)}
    against, (walked, *_) = plots.against(objectives), walk(bregman.kl, 3, members, path)
    for figure in (against, walked):
        assert all(axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes if axis.axison)
    assert [axis.get_title() for axis in against.axes] == list(objectives)
    f = torch.stack([members, members], 1)
    shown = plots.disagreement(torch.rand(2, 8, 8), f, torch.tensor([0.25, 0.01]), NAMES)
    assert [axis.get_title() for axis in shown.axes[:2]] == ["0.250 nats", "0.010 nats"]
