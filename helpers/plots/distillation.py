"""The figures of notebook 06."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from torch import Tensor

from helpers.plots import BLACK, BLUE, COLOURS, ORANGE, PURPLE, plain_numbers

GATED = COLOURS["Monte Carlo"]
LINES = ((BLUE, "-"), (ORANGE, "--"), (PURPLE, "-."), (BLACK, ":"))


def plane(gated: Tensor, ideal: Tensor, standard: Tensor) -> Tensor:
    """Two orthonormal directions [2, D] in the space of predictions: from the ideal to the standard one, and, among
    those at right angles to it, the one along which gated networks vary most (their first principal component).

    Parameters
    ----------
    gated : predictions of M gated networks, each as one vector [M, D].
    ideal, standard : [D].
    """
    first = (standard - ideal) / (standard - ideal).norm()
    rest = gated - ideal
    rest = rest - (rest @ first)[:, None] * first
    return torch.stack([first, torch.linalg.svd(rest, full_matrices=False).Vh[0]])


def figure_1(shown: int, steps: Sequence[int], gated: Tensor, path: Tensor) -> Figure:
    """Figure 1 of Rota Bulò et al. (2016), drawn from data: predictors as points in a plane with the ideal at its origin.

    Parameters
    ----------
    shown : how many points of the student's path to draw, 1 to P.
    steps : the step at which each of the P points was recorded; the first is 0.
    gated : coordinates [M, 2] of the gated networks.
    path : coordinates [P, 2] of the student; it starts at the standard prediction.
    """
    figure = Figure(figsize=(7.2, 5.2), layout="tight")
    axis = figure.subplots()
    axis.scatter(*gated.T.numpy(), s=12, color=GATED, alpha=0.5, linewidths=0, label=f"{len(gated):,} gated networks")
    axis.plot(*path[:shown].T.numpy(), color=COLOURS["distilled"], marker=".", linewidth=1.4)
    student = {"color": COLOURS["distilled"], "marker": "D", "markeredgecolor": "white"}
    axis.plot(*path[shown - 1].numpy(), **student, label=f"student, step {steps[shown - 1]:,}")
    axis.plot(*path[0].numpy(), color=COLOURS["standard"], marker="s", markersize=8, linestyle="", label="standard")
    cross = {"marker": "+", "markersize": 22, "markeredgewidth": 2, "linestyle": "", "zorder": 1.9}  # under the student
    axis.plot(0, 0, color=COLOURS["ideal"], **cross, label="ideal")
    axis.set(xlabel="from ideal to standard [probability]", ylabel="where the gated networks vary most [probability]")
    axis.legend(frameon=False, fontsize=9)
    axis.grid(alpha=0.25)
    return figure


def minimisers(predictions: Tensor, samples: int, curves: Mapping[str, Tensor], targets: Mapping[str, float]) -> Figure:
    """Where each loss has its minimum, for one example of a problem with two classes.

    Parameters
    ----------
    predictions : probabilities [R] of one class, each the mean of `samples` gated networks.
    curves : {loss: J'(q) [G]} on G values of q, evenly spaced inside (0, 1).
    targets : {name of a mean: its value}, drawn as vertical lines.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.5])
    left.hist(predictions.numpy(), bins=30, range=(0, 1), density=True, color=GATED)
    name = "one gated network" if samples == 1 else f"the mean of {samples} gated networks"
    left.set(xlabel=f"probability by {name}", ylabel="density", xlim=(0, 1))
    values = sorted(targets.values())
    low, high = max(0, values[0] - 0.15), min(1, values[-1] + 0.15)
    for (loss, curve), (colour, style), size in zip(curves.items(), LINES, (14, 7, 14, 7), strict=True):
        q = np.arange(1, len(curve) + 1) / (len(curve) + 1)
        height = (curve - curve.min()).numpy()
        height = height / height[(q >= low) & (q <= high)].max()
        right.plot(q, height, color=colour, linestyle=style, label=loss)
        right.plot(q[height.argmin()], 0, color=colour, marker="v", markersize=size, clip_on=False, zorder=4)
    for (target, value), place in zip(targets.items(), (1.02, 1.08, 1.14), strict=False):
        up_to_its_name = {"transform": right.get_xaxis_transform(), "clip_on": False}
        right.plot([value, value], [0, place], color="0.7", linewidth=1, zorder=0, **up_to_its_name)
        beside = {"xycoords": ("data", "axes fraction"), "ha": "right", "va": "center"}
        right.annotate(f"{target} ", (value, place), fontsize=8, **beside)
    right.set(xlabel="the student's probability q", ylabel="J'(q) above its minimum, scaled")
    right.set(xlim=(low, high), ylim=(0, 1))
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=len(curves), frameon=False)
    return figure


def learning(epochs: Sequence[int], distances: Mapping[str, Sequence[float]], standard: float) -> Figure:
    """Distance to the ideal [nats] after some numbers of epochs: {name of a start: distance for each}."""
    figure = Figure(figsize=(6.4, 3.6), layout="tight")
    axis = figure.subplots()
    for (name, values), (colour, _), marker in zip(distances.items(), LINES, "os^D", strict=False):
        axis.plot(epochs, values, color=colour, marker=marker, label=name)
    axis.axhline(standard, color=COLOURS["standard"], linestyle="--", linewidth=1.2, label="standard")
    axis.set(xscale="log", yscale="log", xticks=epochs, xticklabels=epochs, xlabel="epochs of distillation")
    axis.minorticks_off()
    axis.set_ylabel("KL(ideal ‖ student) [nats]")
    axis.legend(frameon=False)
    axis.grid(alpha=0.25)
    return figure


def sources(images: Mapping[str, Tensor], distances: Mapping[str, float], standard: float) -> Figure:
    """Kinds of S: a few images [n, 1, H, W] of each, and how far from the ideal [nats] each leads."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.3])
    count = min(len(batch) for batch in images.values())
    grid = left.subplots(len(images), count)
    for row, (name, batch) in zip(grid, images.items(), strict=True):
        for axis, image in zip(row, batch, strict=False):
            axis.imshow(image[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    axis = right.subplots()
    bars = axis.barh(list(distances), list(distances.values()), color=COLOURS["distilled"])
    axis.bar_label(bars, fmt="%.4f", padding=-40, color="white")
    axis.axvline(standard, color=COLOURS["standard"], linestyle="--", linewidth=1.2, label="standard")
    axis.invert_yaxis()
    axis.set(xlabel="KL(ideal ‖ student) [nats]", ylabel="S", xlim=(0, 1.35 * max(standard, *distances.values())))
    axis.legend(frameon=False, loc="upper right")
    return figure


def masks_per_step(
    samples: Sequence[int], variances: Sequence[float], distances: Mapping[str, Sequence[float]]
) -> Figure:
    """What averaging over several masks in a step changes: the gradient's variance, and the distance to the ideal [nats]
    under each of several budgets, {name: distance for each number of masks}."""
    figure = Figure(figsize=(10, 3.5), layout="tight")
    left, right = figure.subplots(1, 2)
    left.plot(samples, variances, color=GATED, marker="o", label="measured")
    left.plot(samples, variances[0] / np.array(samples), color="0.5", linestyle="--", linewidth=1, label="∝ 1/m")
    left.set(yscale="log", ylabel="variance of the gradient\n(sum over all weights)")
    plain_numbers(left)
    for (name, values), (colour, _), marker in zip(distances.items(), LINES, "os^D", strict=False):
        right.plot(samples, values, color=colour, marker=marker, label=name)
    right.set(ylabel="KL(ideal ‖ student) [nats]", ylim=(0, None))
    for axis in (left, right):
        axis.set(xscale="log", xticks=samples, xticklabels=samples, xlabel="masks for each example and step, m")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.legend(frameon=False)
        axis.grid(alpha=0.25)
    return figure
