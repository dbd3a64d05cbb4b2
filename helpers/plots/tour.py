"""The figures of notebook 00."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from helpers.plots import COLOURS, MARKERS


def ensemble(image: Tensor, gated: Tensor, shown: int = 6) -> Figure:
    """One image [1, H, W], what the first few of many gated networks [M, K] say about it, and the mean of all M."""
    total, mean, gated = len(gated), gated.mean(0), gated[:shown]
    figure = Figure(figsize=(1.55 * (len(gated) + 2), 1.9), layout="tight")
    axes = figure.subplots(1, len(gated) + 2)
    axes[0].imshow(image[0].cpu().numpy(), cmap="gray_r")
    axes[0].axis("off")
    axes[0].set_title("input", fontsize=9)
    panels = [(f"mask {i + 1}", f, COLOURS["Monte Carlo"]) for i, f in enumerate(gated)]
    for axis, (title, f, colour) in zip(axes[1:], [*panels, (f"mean of {total}", mean, COLOURS["ideal"])], strict=True):
        axis.bar(range(len(f)), f.cpu().numpy(), color=colour)
        axis.set(ylim=(0, 1), xticks=range(0, len(f), 3), yticks=[0, 0.5, 1], xlabel="class")
        axis.set_title(title, fontsize=9)
        if axis is not axes[1]:
            axis.set_yticklabels([])
    axes[1].set_ylabel("probability")
    return figure


def disagreements(images: Tensor, labels: Tensor, predictions: Mapping[str, Tensor]) -> Figure:
    """Images [N, 1, H, W] and, under each, the probabilities that the predictors ({name: [N, K]}) give the classes."""
    n, classes = len(images), next(iter(predictions.values())).shape[-1]
    figure = Figure(figsize=(1.9 * n, 3.5), layout="tight")
    axes = figure.subplots(2, n, height_ratios=[1, 1.4], squeeze=False)
    for i in range(n):
        axes[0, i].imshow(images[i, 0].cpu().numpy(), cmap="gray_r")
        axes[0, i].set_title(f"a {labels[i]}", fontsize=10)
        axes[0, i].axis("off")
        compare(axes[1, i], {name: q[i] for name, q in predictions.items()}, classes)
        if i:
            axes[1, i].set(yticklabels=[], ylabel=None)
    handles, names = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=len(names), frameon=False)
    figure.get_layout_engine().set(rect=(0, 0.07, 1, 1))
    return figure


def compare(axis: Axes, predictions: Mapping[str, Tensor], classes: int) -> None:
    """One marker per predictor and class: {name: probabilities [K]}."""
    for offset, (name, q) in zip((-0.25, 0, 0.25, 0), predictions.items(), strict=False):
        x = np.arange(classes) + (0 if name == "ideal" else offset)
        size = 90 if name == "ideal" else 16
        axis.scatter(x, q.cpu().numpy(), s=size, marker=MARKERS[name], color=COLOURS[name], label=name, zorder=3)
    axis.set(xlim=(-0.6, classes - 0.4), ylim=(-0.04, 1.04), xlabel="class", ylabel="probability")
    axis.set_xticks(range(0, classes, 3))
    axis.grid(alpha=0.25)


def summary(distance: Mapping[str, float], predictions: Mapping[str, Tensor], labels: Tensor) -> Figure:
    """The result in one picture: each predictor's distance to the ideal [nats], and its reliability diagram.

    Parameters
    ----------
    distance : {name: mean KL(ideal ‖ q)}.
    predictions : {name: probabilities [N, K]}.
    labels : [N].
    """
    figure = Figure(figsize=(10, 3.9), layout="tight")
    left, right = figure.subplots(1, 2)
    bars = left.barh(list(distance), list(distance.values()), color=[COLOURS[name] for name in distance])
    left.bar_label(bars, fmt="%.4f", padding=4)
    left.invert_yaxis()
    left.set(xlabel="KL(ideal ‖ prediction) [nats]", ylabel="predictor", xlim=(0, 1.2 * max(distance.values())))
    left.set_title("How far from the ensemble's average?")
    reliability(right, predictions, labels)
    right.set_title("Does it know how sure it is?")
    return figure


def reliability(axis: Axes, predictions: Mapping[str, Tensor], labels: Tensor, bins: int = 8) -> None:
    """The share of right answers against confidence for each predictor ({name: [N, K]}), in bins with equally many
    examples, with the standard error of each share. A calibrated predictor follows the diagonal."""
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="calibrated")
    for name, q in predictions.items():
        confidence, answer = q.max(-1)
        order = confidence.argsort()
        right = (answer == labels)[order].double().tensor_split(bins)
        x = torch.stack([part.mean() for part in confidence[order].tensor_split(bins)])
        y = torch.stack([part.mean() for part in right])
        error = (y * (1 - y) / torch.tensor([len(part) for part in right])).sqrt()
        x, y, error = x.numpy(), y.numpy(), error.numpy()
        axis.errorbar(x, y, error, color=COLOURS[name], marker=MARKERS[name], markersize=5, capsize=2, label=name)
    low = min(0.95, min(q.max(-1).values.quantile(0.02).item() for q in predictions.values()))
    axis.set(xlim=(low, 1.005), ylim=(low, 1.02), xlabel="confidence (largest probability)")
    axis.set_ylabel("share of right answers")
    axis.legend(frameon=False)
    axis.grid(alpha=0.25)


def settling(m: int, gated: Tensor, lines: Mapping[str, Tensor], label: int) -> Figure:
    """How the mean of m gated predictions nears the ideal.

    Parameters
    ----------
    m : number of masks averaged so far, 1 to M.
    gated : probabilities [M, K] of one example under M masks.
    lines : {"standard", "distilled", "ideal": probabilities [K]}, which do not depend on m.
    label : the class whose probability is followed on the right.
    """
    lines = {name: q.cpu().numpy() for name, q in lines.items()}
    gated = gated.double().cpu().numpy()
    masks, classes = gated.shape
    steps = np.arange(1, masks + 1)
    means = gated.cumsum(0) / steps[:, None]
    blue = COLOURS["Monte Carlo"]
    figure = Figure(figsize=(10, 3.6), layout="tight")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.25])

    left.bar(range(classes), means[m - 1], color=blue, label=f"mean of {m} mask{'s' * (m > 1)}")
    for name, q in lines.items():
        size = 160 if name == "ideal" else 22
        left.scatter(range(classes), q, s=size, marker=MARKERS[name], color=COLOURS[name], label=name)
    left.set(xlabel="class", ylabel="probability", ylim=(0, 1), xticks=range(classes))
    left.legend(frameon=False, fontsize=8)

    centre, spread = lines["ideal"][label], 1.96 * gated[:, label].std(ddof=1) / np.sqrt(steps)
    right.fill_between(steps, centre - spread, centre + spread, color="0.9", label="95 % band, ∝ 1/√m")
    right.plot(steps, means[:, label], color=blue, linewidth=1, alpha=0.5)
    right.plot(steps[:m], means[:m, label], color=blue, linewidth=2, label="Monte Carlo")
    right.plot(m, means[m - 1, label], marker="o", color=blue)
    for (name, q), style in zip(lines.items(), ("--", "-.", "-"), strict=True):
        right.axhline(q[label], color=COLOURS[name], linestyle=style, linewidth=1.4, label=name)
    right.set(xscale="log", xlim=(1, masks), ylim=(0, 1), xlabel="number of masks m")
    right.set_ylabel(f"probability of class {label}")
    right.legend(frameon=False, fontsize=8, ncols=2)
    return figure
