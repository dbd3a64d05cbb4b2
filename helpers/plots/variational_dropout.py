"""The figures of notebook 09."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from helpers.plots import BLACK, BLUE, COLOURS, GREEN, ORANGE, PURPLE, SKY, VERMILLION, plain_numbers

LAYERS = (BLUE, ORANGE, GREEN, PURPLE, SKY)


def figure_1(log_alpha: Tensor, curves: Mapping[str, Tensor], exact: Tensor) -> Figure:
    """Fig. 1: -KL of one weight against its log α, and how far approximations are from the exact value.

    Parameters
    ----------
    log_alpha : [A].
    curves : {name: divergences [A]}, of which the first is shown as points (it is sampled).
    exact : divergences [A].
    """
    figure = Figure(figsize=(10, 3.9), layout="tight")
    left, right = figure.subplots(1, 2)
    a = log_alpha.numpy()
    left.plot(a, -exact.numpy(), color=BLACK, linewidth=4, alpha=0.25, label="exact")
    styles = zip(curves.items(), (BLACK, VERMILLION, BLUE, GREEN), (".", "-", "--", "-."), strict=True)
    for (name, values), colour, style in styles:
        values = values.numpy()
        sampled = style == "."
        shown = {"marker": "o", "markersize": 3, "linestyle": ""} if sampled else {"linestyle": style}
        left.plot(a, -values, color=colour, label=name, **shown)
        right.plot(a, np.abs(values - exact.numpy()).clip(1e-7), color=colour, label=name, **shown)
    left.axvline(0, color="0.7", linewidth=1)
    left.set(xlabel="log α", ylabel="-KL(q ‖ p) of a weight [nats]", ylim=(-exact.max().item() - 0.3, 1.2))
    left.legend(frameon=False, fontsize=8)
    right.set(xlabel="log α", ylabel="distance from the exact value [nats]", yscale="log", ylim=(1e-6, 10))
    right.grid(alpha=0.25)
    return figure


def gradient_variance(log_alpha: Sequence[float], variances: Mapping[str, Sequence[float]]) -> Figure:
    """Variance of the stochastic gradient by θ against log α, for several ways to draw the noise."""
    figure = Figure(figsize=(6.5, 3.9), layout="tight")
    axis = figure.subplots()
    for (name, values), colour, marker in zip(
        variances.items(), (VERMILLION, ORANGE, BLUE, GREEN), "s^oD", strict=True
    ):
        axis.plot(log_alpha, values, color=colour, marker=marker, label=name)
    axis.set(xlabel="log α of all weights", ylabel="variance of the gradient with respect to θ", yscale="log")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    return figure


def coefficients(truth: Tensor, found: Mapping[str, Tensor]) -> Figure:
    """Coefficients [D] of a linear regression by several methods, beside the true ones."""
    figure = Figure(figsize=(10, 3.4), layout="tight")
    axis = figure.subplots()
    d = np.arange(len(truth))
    axis.bar(d, truth.numpy(), width=0.9, color="0.88", label="truth")
    for i, ((name, theta), colour, marker) in enumerate(
        zip(found.items(), (ORANGE, PURPLE, BLUE, GREEN), "s^oD", strict=True)
    ):
        axis.plot(
            d - 0.24 + 0.16 * i, theta.numpy(), color=colour, marker=marker, linestyle="", label=name, markersize=5
        )
    axis.axhline(0, color="0.4", linewidth=0.8)
    axis.set(xlabel="feature", ylabel="coefficient", xticks=d)
    axis.legend(frameon=False, ncols=5, fontsize=9)
    return figure


def figure_2(image: Tensor, log_alpha: Tensor, threshold: float) -> Figure:
    """Fig. 2: an example [H, W], and the learned rates of each class's weights [K, H, W] as images, black where removed."""
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    axes = figure.subplots(2, 6).flatten()
    axes[0].imshow(image.numpy(), cmap="gray_r")
    axes[0].set_title("an input", fontsize=9)
    for k, axis in zip(range(len(log_alpha)), axes[1:], strict=False):
        shown = axis.imshow(log_alpha[k].clamp_max(threshold).numpy(), cmap="gray_r", vmin=-4, vmax=threshold)
        axis.set_title(f"rates of class {k}", fontsize=9)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    for axis in axes[1 + len(log_alpha) :]:
        axis.remove()
    figure.colorbar(shown, ax=axes[: 1 + len(log_alpha)].tolist(), label="log α", shrink=0.8)
    return figure


def figure_3(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Fig. 3: the bound [nats per example] and the share of weights that remain, over training, in two parametrisations.

    Parameters
    ----------
    histories : {parametrisation: {"epoch", "bound", "kept": values}}.
    """
    figure = Figure(figsize=(10, 3.7), layout="tight")
    left, right = figure.subplots(1, 2)
    for (name, history), colour, style in zip(histories.items(), (VERMILLION, BLUE), ("--", "-"), strict=True):
        left.plot(history["epoch"], history["bound"], color=colour, linestyle=style, label=name)
        right.plot(history["epoch"], history["kept"], color=colour, linestyle=style, label=name)
    last = [history["bound"][-1] for history in histories.values()]
    left.set(xlabel="epoch", ylabel="evidence lower bound [nats per example]", ylim=(4 * min(last), 0))
    right.set(xlabel="epoch", ylabel="1 - sparsity: share of weights kept", yscale="log")
    left.legend(frameon=False)
    for axis in (left, right):
        axis.grid(alpha=0.25)
    return figure


def pruning(threshold: float, log_alpha: Mapping[str, Tensor], curve: Mapping[float, Mapping[str, float]]) -> Figure:
    """What a threshold of log α removes, and what that does to the error.

    Parameters
    ----------
    threshold : the one that is chosen.
    log_alpha : {layer: values of its weights}.
    curve : {threshold: {"error": [%], "kept": weights}}.
    """
    figure = Figure(figsize=(10, 3.7), layout="tight")
    left, right = figure.subplots(1, 2)
    values = [a.flatten().numpy() for a in log_alpha.values()]
    outline = {"bins": np.linspace(-8, 8, 49), "histtype": "step", "linewidth": 1.6}
    for layer, colour, style, a in zip(log_alpha, LAYERS, ("-", "--", ":", "-.", "-"), values, strict=False):
        left.hist(a, **outline, color=colour, linestyle=style, label=layer)
    left.axvspan(threshold, 8, color="0.5", alpha=0.3, linewidth=0, label="removed")
    left.set(xlabel="log α", ylabel="weights", yscale="log", xlim=(-8, 8))
    left.legend(frameon=False, fontsize=8, loc="upper left")
    kept, error = ([point[name] for point in curve.values()] for name in ("kept", "error"))
    right.plot(kept, error, color=BLUE, marker="o")
    chosen = curve[threshold]
    right.plot(chosen["kept"], chosen["error"], color=VERMILLION, marker="s", markersize=10)
    right.set(xlabel="weights kept", ylabel="test error [%]", xscale="log", ylim=(0, 1.1 * max(error)))
    plain_numbers(right)
    right.set_title(
        f"log α < {threshold:g} keeps {chosen['kept']:,} weights, error {chosen['error']:.1f} %", fontsize=10
    )
    right.grid(alpha=0.25)
    return figure


def figure_4(masks: Mapping[str, Tensor], shown: int = 16) -> Figure:
    """Fig. 4: which weights remain in the first channel of the first filters of each convolution ({name: [out, in, h, w]}),
    black where one does."""
    columns = min(shown, min(len(mask) for mask in masks.values()))
    figure = Figure(figsize=(10, 0.9 * len(masks) + 0.2), layout="tight")
    axes = figure.subplots(len(masks), columns, squeeze=False)
    for row, (name, mask) in zip(axes, masks.items(), strict=True):
        for axis, kernel in zip(row, mask[:, 0].double(), strict=False):
            axis.imshow(kernel.numpy(), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    return figure


def connections(counts: Tensor) -> Figure:
    """How many connections each pixel [H, W] of the input has left."""
    figure = Figure(figsize=(4.2, 3.4), layout="tight")
    axis = figure.subplots()
    shown = axis.imshow(counts.numpy(), cmap="gray_r")
    axis.set(xticks=[], yticks=[], xlabel="column of pixels", ylabel="row of pixels")
    figure.colorbar(shown, label="weights kept")
    return figure


WAYS = {
    "distilled from binary dropout": (COLOURS["distilled"], "D", "--"),
    "distilled from the posterior": (BLUE, "o", "-"),
    "pruned posterior": (PURPLE, "^", "-"),
    "posterior, standard": (COLOURS["standard"], "s", ""),
}


def meeting(points: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Error against what is stored, and against arithmetic.

    Parameters
    ----------
    points : {way to make the network: [{"parameters", "multiply-adds", "error": value}]}, ways as in `WAYS`.
    """
    figure = Figure(figsize=(10, 3.9), layout="tight")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (cost, label) in zip(
        axes, {"parameters": "parameters stored", "multiply-adds": "multiply-adds for one image"}.items(), strict=True
    ):
        for name, found in points.items():
            colour, marker, line = WAYS[name]
            x, y = [point[cost] for point in found], [point["error"] for point in found]
            axis.plot(x, y, color=colour, marker=marker, linestyle=line, label=name, markersize=6)
        axis.set(xlabel=label, xscale="log", yscale="log")
        plain_numbers(axis)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("test error [%]")
    axes[1].legend(frameon=False, fontsize=8)
    return figure
