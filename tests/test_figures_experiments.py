"""The figures of notebooks 07 and 08 show the numbers that they are given."""

import math

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

from helpers.experiments import declared, records
from helpers.plots import compression, experiments

SCORES = ("error", "KL to ideal")


def scores(*values):
    return [dict.fromkeys(SCORES, value) for value in values]


def test_pooling_marks_the_rate_and_gives_each_unit_its_chance():
    figure = experiments.pooling(0.5, torch.tensor([1.0, 3.0, 2.0]), {0.0: 3.0, 0.5: 4.0})
    left, right = figure.axes
    assert [bar.get_height() for bar in left.patches] == [0.5, 0.25, 0.125]
    assert "× 1.33" in [text.get_text() for text in right.texts]


def test_figure_2_has_a_band_of_one_standard_deviation():
    curves = {
        "standard": {1: scores(2.0)},
        "distilled": {1: scores(1.0, 1.0)},
        "Monte Carlo": {1: scores(3.0, 5.0), 10: scores(1.0, 3.0)},
    }
    figure = experiments.by_masks(curves, "A row")
    line = next(line for line in figure.axes[0].lines if line.get_label() == "Monte Carlo")
    assert list(line.get_ydata()) == [4.0, 2.0]
    band = figure.axes[0].collections[-1].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(4 + math.sqrt(2))
    assert band.min() == pytest.approx(2 - math.sqrt(2))


def test_every_cell_is_a_line_from_the_published_error_to_ours():
    cells = [("A", "standard", 1.0, 2.0), ("A", "distilled", 3.0, 4.0)]
    axis = experiments.against_paper(cells, {}).axes[0]
    ends = [tuple(line.get_xdata()) for line in axis.lines]
    assert {(1.0, 2.0), (3.0, 4.0)} <= set(ends)


def test_a_row_of_fewer_epochs_says_so():
    cells = [("A", "standard", 1.0, 2.0), ("B", "standard", 3.0, 4.0)]
    axis = experiments.against_paper(cells, {"B": "2 of 20"}).axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["A", "B\n(2 of 20 epochs)"]


CURVES = {"distilled": {8: scores(1.0, 2.0), 4: scores(3.0)}, "from labels, with dropout": {8: scores(2.0)}}


def test_figure_3_has_parameters_in_per_cent():
    figure = compression.figure_3({"left": (CURVES, {8: 200, 4: 50})}, {"standard": 1.7})
    line = figure.axes[0].lines[0]
    assert list(line.get_xdata()) == [100.0, 25.0]
    assert list(line.get_ydata()) == [1.5, 3.0]
    assert list(figure.axes[0].lines[-1].get_ydata()) == [1.7, 1.7]


def test_figure_3_has_a_cross_for_a_network_that_has_not_learned_and_its_line_is_that_of_the_others():
    curves = {"distilled": {8: scores(1.0), 4: scores(90.0, 3.0, 5.0), 2: scores(90.0)}}
    axis = compression.figure_3({"left": (curves, {8: 200, 4: 50, 2: 20})}, {}).axes[0]
    assert list(axis.lines[0].get_xdata()) == [100.0, 25.0]
    assert list(axis.lines[0].get_ydata()) == [1.0, 4.0]
    crosses = next(c for c in axis.collections if c.get_label() == "has not learned")
    assert crosses.get_offsets().tolist() == [[25.0, 90.0], [10.0, 90.0]]


def test_figure_3_has_a_style_for_every_curve_that_is_declared():
    runs = [run for side in records.SIDES for run in declared.figure_3(side, "full", 1)]
    curves = {curve for run in runs for curve in records.curves_of(run)}
    assert len(curves) == 5 and curves == set(compression.STYLES)


def test_the_choice_shows_costs_as_shares_of_the_largest():
    costs = {8: {"parameters": 200, "time": 10.0}, 4: {"parameters": 50, "time": 5.0}}
    figure = compression.choice("four units", 4, costs, CURVES)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [25.0, 50.0]
    assert "5.00 µs" in [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("figure", ["figure 3", "choice", "pooling"])
def test_axes_have_labels(figure):
    made = {
        "figure 3": lambda: compression.figure_3({"left": (CURVES, {8: 200, 4: 50})}, {}, "KL to ideal"),
        "choice": lambda: compression.choice("all units", 8, {8: {"parameters": 2}, 4: {"parameters": 1}}, CURVES),
        "pooling": lambda: experiments.pooling(0.5, torch.ones(3), {0.5: 1.0}),
    }[figure]()
    made.canvas.draw()
    assert all(axis.get_xlabel() and axis.get_ylabel() for axis in made.axes)
