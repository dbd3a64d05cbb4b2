"""The figures of notebook 01."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from helpers.plots import BLUE, ORANGE, PURPLE

GREY = "0.5"
SERIES = ((BLUE, "o"), (ORANGE, "s"), (PURPLE, "^"), (GREY, "D"))


def kinds(factors: Mapping[str, Tensor], axes: Mapping[str, tuple[str, str]]) -> Figure:
    """What each kind of gate multiplies by, as one picture for each.

    Parameters
    ----------
    factors : {kind: [rows, columns]}, the gates σ divided by their mean.
    axes : {kind: (what the columns are, what the rows are)}.
    """
    figure = Figure(figsize=(2.6 * len(factors) + 0.6, 2.9), layout="constrained")
    panels = figure.subplots(1, len(factors))
    for panel, (kind, factor) in zip(panels, factors.items(), strict=True):
        image = panel.imshow(factor.numpy(), cmap="cividis", vmin=0, vmax=3, aspect="auto", interpolation="nearest")
        panel.set_title(kind, fontsize=10)
        panel.set(xlabel=axes[kind][0], ylabel=axes[kind][1], xticks=[], yticks=[])
    figure.colorbar(image, ax=panels, label="factor", extend="both", ticks=[0, 1, 2, 3])
    return figure


def gradient_noise(sizes: Sequence[int], variances: Mapping[str, Sequence[float]]) -> Figure:
    """The variance that masks give to a gradient, against the size B of the mini-batch: {name: variance for each size}."""
    figure = Figure(figsize=(6.4, 3.8), layout="tight")
    axis = figure.subplots()
    for (name, values), (colour, marker) in zip(variances.items(), SERIES, strict=False):
        axis.plot(sizes, values, marker=marker, color=colour, label=name)
    start = np.mean([values[0] for values in variances.values()])
    axis.plot(sizes, start / np.array(sizes), color="0.6", linestyle="--", linewidth=1, label="∝ 1/B")
    axis.set(xscale="log", yscale="log", xticks=sizes, xticklabels=sizes, xlabel="examples in the mini-batch, B")
    axis.minorticks_off()
    axis.set_ylabel("variance of the gradient\n(sum over all weights)")
    axis.legend(frameon=False)
    axis.grid(alpha=0.25)
    return figure


def shrinkage(percent: int, rates: Sequence[int], paths: Mapping[str, Tensor], scales: Sequence[float]) -> Figure:
    """How a penalty shrinks the weights of a linear regression.

    Parameters
    ----------
    percent : the rate p that is looked at, in %; one of `rates`.
    rates : P rates in %, of which the first is 0.
    paths : {"dropout": [P, D], "sampled": [P, D], "ordinary L2": [P, D]}, the D weights at each rate.
    scales : standard deviation of each of the D features.
    """
    at, truth = list(rates).index(percent), paths["dropout"][0]
    shares = {name: (path / truth).numpy() for name, path in paths.items()}
    figure = Figure(figsize=(10, 3.9), layout="tight")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.2], sharey=True)
    places = np.arange(len(scales))
    left.bar(places - 0.2, shares["dropout"][at], 0.38, color=BLUE, label="dropout, closed form")
    left.bar(places + 0.2, shares["ordinary L2"][at], 0.38, color=ORANGE, label="ordinary L2")
    left.scatter(places - 0.2, shares["sampled"][at], color="black", marker="x", zorder=3, label="dropout, sampled")
    left.set(xlabel="standard deviation of the feature", xticks=places, xticklabels=[f"{s:g}" for s in scales])
    left.set_ylabel("weight, as a share of\nthe least-squares weight")
    left.set_title(f"p = {percent / 100:g}", fontsize=10)
    left.legend(frameon=True, fontsize=8, loc="upper right")
    for j, scale in enumerate(scales):
        names = ("dropout", "ordinary L2") if j == 0 else (None, None)
        right.plot(rates, shares["dropout"][:, j], color=BLUE, linewidth=1.5, label=names[0])
        right.plot(rates, shares["ordinary L2"][:, j], color=ORANGE, linewidth=1.5, linestyle="--", label=names[1])
        on_white = {"ha": "center", "va": "center", "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1}}
        i = len(rates) // 2 - 1  # where the lines are far apart, and the marker of one half is not
        right.annotate(f"{scale:g}", (rates[i], shares["ordinary L2"][i, j]), fontsize=9, color="0.25", **on_white)
    right.axvline(percent, color="0.6", linewidth=1)
    right.set(xlabel="rate p [%]", ylim=(-0.03, 1.25))
    right.set_title("a line for each feature; numbers: its standard deviation, at L2's", fontsize=10)
    right.legend(frameon=False, fontsize=8)
    right.grid(alpha=0.25)
    return figure


def paired(results: Mapping[str, Sequence[float]], label: str) -> Figure:
    """A measure of several ways to train, {name: one value for each repetition}; lines join the same repetition."""
    figure = Figure(figsize=(6.4, 3.6), layout="tight")
    axis = figure.subplots()
    values = np.array(list(results.values()))  # [ways, repetitions]
    axis.plot(range(len(values)), values, color="0.75", linewidth=1)
    for i, (row, (colour, marker)) in enumerate(zip(values, SERIES, strict=False)):
        axis.scatter([i] * len(row), row, color=colour, marker=marker, zorder=3)
        axis.hlines(row.mean(), i - 0.16, i + 0.16, color=colour, linewidth=3)
    axis.set(xticks=range(len(values)), xticklabels=list(results), xlabel="trained with (bar: mean)", ylabel=label)
    axis.set_xlim(-0.5, len(values) - 0.5)
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", alpha=0.25)
    return figure


def features(images: Mapping[str, Tensor], side: int = 8) -> Figure:
    """What hidden units draw, {name: [units, H, W]}: for each name the `side`² units with the largest norm, each with
    its own scale (blue adds ink, red takes it away)."""
    figure = Figure(figsize=(5.2 * len(images), 5.4), layout="constrained")
    for axis, (name, units) in zip(figure.subplots(1, len(images)), images.items(), strict=True):
        best = units[units.flatten(1).norm(dim=1).argsort(descending=True)[: side**2]]
        tiles = F.pad(best / best.abs().amax((1, 2), keepdim=True), (1, 1, 1, 1), value=float("nan"))
        h, w = tiles.shape[1:]
        grid = tiles.reshape(side, side, h, w).permute(0, 2, 1, 3).reshape(side * h, side * w)
        axis.imshow(grid.numpy(), cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
        axis.set_title(name, fontsize=11)
        axis.axis("off")
    return figure


def robustness(shares: Sequence[float], errors: Mapping[str, Sequence[float]]) -> Figure:
    """Reconstruction error when a share [%] of the hidden units is dropped: {name: error for each share}."""
    figure = Figure(figsize=(6.4, 3.4), layout="tight")
    axis = figure.subplots()
    for (name, values), (colour, marker) in zip(errors.items(), SERIES, strict=False):
        axis.plot(shares, values, marker=marker, color=colour, label=name)
    axis.set(yscale="log", xlabel="hidden units dropped at test time [%]")
    axis.set_ylabel("squared error per test image")
    axis.legend(frameon=False)
    axis.grid(alpha=0.25)
    return figure
