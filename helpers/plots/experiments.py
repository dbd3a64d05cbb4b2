"""The figures of notebook 07."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from helpers.plots import COLOURS, MARKERS, plain_numbers


def pooling(rate: float, values: Tensor, before: Mapping[float, float]) -> Figure:
    """What max pooling makes of one window of units, with dropout in front of it and behind it.

    Parameters
    ----------
    rate : the rate that is marked.
    values : of the units in the window, before dropout, [n].
    before : {rate: mean of the pooled value when the units are dropped and rescaled before they are pooled}.
    """
    figure = Figure(figsize=(10, 3.5), layout="tight")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.3])
    ordered = values.sort(descending=True).values.numpy()
    chance = (1 - rate) * rate ** np.arange(len(ordered))  # that all larger ones are dropped, and this one is kept
    left.bar(range(1, len(ordered) + 1), chance, color=COLOURS["Monte Carlo"])
    left.set(xlabel="unit, from the largest on", ylabel="chance that it is the maximum", ylim=(0, 1))
    left.set_title(f"Which unit wins at a rate of {rate:g}?")

    highest = ordered[0]
    right.plot(
        list(before), list(before.values()), color=COLOURS["ideal"], label="mean over masks, dropout before pooling"
    )
    right.axhline(highest, color=COLOURS["standard"], linestyle="--", label="weight scaling")
    right.plot(rate, before[rate], marker="o", markersize=9, color=COLOURS["ideal"])
    right.annotate(
        f"× {before[rate] / highest:.2f}", (rate, before[rate]), xytext=(-8, 8), textcoords="offset points", ha="right"
    )
    right.set(xlabel="rate p", ylabel="pooled value", ylim=(0, 1.1 * max(before.values())))
    right.set_title("What leaves the pool on average")
    right.legend(frameon=False, loc="lower left")
    return figure


def by_masks(curves: Mapping[str, Mapping[int, Sequence[Mapping[str, float]]]], title: str) -> Figure:
    """Fig. 2: error and distance to the ideal against the number of masks.

    Parameters
    ----------
    curves : {predictor: {passes: scores of each repetition}}. A predictor that needs one pass is a line across.
    title : the row's name.
    """
    figure = Figure(figsize=(10, 3.8), layout="tight")
    axes = figure.subplots(1, 2)
    for axis, measure, label in zip(
        axes, ("error", "KL to ideal"), ("test error [%]", "KL(ideal ‖ prediction) [nats]"), strict=True
    ):
        masks = list(curves["Monte Carlo"])
        for name, points in curves.items():
            values = [torch.tensor([scores[measure] for scores in points[m]], dtype=torch.float64) for m in points]
            mean = np.array([v.mean() for v in values])
            spread = np.array([v.std() if len(v) > 1 else 0.0 for v in values])
            if len(points) == 1:
                above = {"linestyle": "--", "zorder": 2.6} if name == "standard" else {}  # where both are the same
                axis.axhline(mean[0], color=COLOURS[name], linewidth=1.6, label=name, **above)
                axis.axhspan(mean[0] - spread[0], mean[0] + spread[0], color=COLOURS[name], alpha=0.2, linewidth=0)
            else:
                axis.plot(masks, mean, color=COLOURS[name], marker=MARKERS[name], label=name)
                axis.fill_between(masks, mean - spread, mean + spread, color=COLOURS[name], alpha=0.25, linewidth=0)
        axis.set(xscale="log", xlabel="passes per image (masks m)", ylabel=label)
        axis.set_xticks(masks, [str(m) for m in masks])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
        axis.set_title(title)
    axes[1].set_yscale("log")
    plain_numbers(axes[1])
    axes[0].legend(frameon=False)
    return figure


def against_paper(cells: Sequence[tuple[str, str, float, float]], epochs: Mapping[str, str]) -> Figure:
    """Our errors and the paper's: a line for each predictor of a row, from the published error to ours.

    Parameters
    ----------
    cells : one line for each (row, predictor, published error [%], ours [%]), row after row.
    epochs : {row: "26 of 260"} for rows whose schedule was shorter than the paper's, which say so.
    """
    rows, names = (list(dict.fromkeys(cell[i] for cell in cells)) for i in (0, 1))
    figure = Figure(figsize=(7, 0.8 + 0.75 * len(rows)), layout="tight")
    axis = figure.subplots()
    for row, name, published, ours in cells:
        height = rows.index(row) + 0.25 * (names.index(name) - (len(names) - 1) / 2)
        axis.plot([published, ours], [height, height], color=COLOURS[name], linewidth=1)
        axis.plot(published, height, color=COLOURS[name], marker=MARKERS[name], markerfacecolor="white")
        axis.plot(ours, height, color=COLOURS[name], marker=MARKERS[name])
    for name in names:
        axis.plot([], [], color=COLOURS[name], marker=MARKERS[name], linestyle="", label=name)
    axis.plot([], [], color="0.4", marker="o", markerfacecolor="white", linestyle="", label="the same, published")
    axis.set(xscale="log", ylim=(len(rows) - 0.5, -0.5), xlabel="test error [%]")
    axis.set_yticks(range(len(rows)), [f"{row}\n({epochs[row]} epochs)" if row in epochs else row for row in rows])
    plain_numbers(axis)
    axis.legend(frameon=False, loc="upper right")
    axis.grid(axis="x", alpha=0.25)
    return figure
