"""The figures of notebook 03."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from helpers.plots import COLOURS

GREY = "0.75"
STYLES = {"ideal": "-", "geometric": "-", "standard": "--"}


def densities(y: Tensor, members: Tensor, curves: Mapping[str, Tensor]) -> Figure:
    """Predictive densities over a target y [T]: a few of the gated networks' [m, T], and those of the predictors."""
    figure = Figure(figsize=(7.5, 3.6), layout="tight")
    axis = figure.subplots()
    name_once = [f"{len(members)} of the masks"] + [None] * (len(members) - 1)
    axis.plot(y.numpy(), members.T.numpy(), color=GREY, linewidth=0.8, label=name_once)
    for name, density in curves.items():
        axis.plot(y.numpy(), density.numpy(), color=COLOURS[name], linestyle=STYLES[name], linewidth=2.2, label=name)
    axis.set(xlabel="target y", ylabel="predictive density [1/unit of y]")
    axis.set_ylim(0, 1.25 * max(density.max().item() for density in curves.values()))
    axis.legend(frameon=False, fontsize=9)
    return figure


def rectified(rates: Tensor, gap: Tensor, gaussian: Tensor) -> Figure:
    """What weight scaling misses of a ReLU's mean at each rate [T]: by enumeration, and for a Gaussian input."""
    figure = Figure(figsize=(6, 3.4), layout="tight")
    axis = figure.subplots()
    axis.plot(rates.numpy(), gap.numpy(), "o", color=COLOURS["ideal"], label="by enumeration")
    axis.plot(rates.numpy(), gaussian.numpy(), color=COLOURS["fast dropout"], label="for a Gaussian of that variance")
    axis.set(xlabel="rate p", ylabel="E[ReLU(z)] - ReLU(E[z])", xlim=(0, 1), ylim=(0, None))
    axis.legend(frameon=False, fontsize=9)
    axis.grid(alpha=0.25)
    return figure


def growth(sweeps: Mapping[str, tuple[list[float], Mapping[str, Tensor]]]) -> Figure:
    """How far weight scaling is from the two means.

    Parameters
    ----------
    sweeps : {what is varied: (its T values, {"ReLU" or "linear": distances [networks, T, 2] to the ideal predictor and to
        the geometric mean, in nats})}.
    """
    figure = Figure(figsize=(11, 3.7), layout="tight")
    axes = figure.subplots(1, len(sweeps), squeeze=False)[0]
    for axis, (varied, (values, distances)) in zip(axes, sweeps.items(), strict=True):
        for kind, marker, style in (("ReLU", "o", "-"), ("linear", "s", "--")):
            mean, error = distances[kind].mean(0), distances[kind].std(0) / len(distances[kind]) ** 0.5
            for column, name in enumerate(("ideal", "geometric")):
                axis.errorbar(
                    values,
                    mean[:, column].numpy(),
                    error[:, column].numpy(),
                    color=COLOURS[name],
                    marker=marker,
                    linestyle=style,
                    markersize=5,
                    capsize=2,
                    label=f"{kind} network, from {name}",
                )
        axis.set(xlabel=varied, xticks=values, ylim=(-0.03 * axis.get_ylim()[1], None))
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("KL(mean ‖ standard) [nats]")
    axes[-1].legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def slices(x: Tensor, networks: Mapping[str, tuple[Tensor, Mapping[str, Tensor]]], title: str) -> Figure:
    """Predictions along a line of inputs x [T]: {network: (probabilities of a class from a few members [m, T], {predictor:
    [T]})}."""
    figure = Figure(figsize=(10, 3.8), layout="tight")
    for axis, (name, (members, curves)) in zip(figure.subplots(1, len(networks)), networks.items(), strict=True):
        along(axis, x, members, curves)
        axis.set_title(f"{name} network, {title}", fontsize=10)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def along(axis: Axes, x: Tensor, members: Tensor, curves: Mapping[str, Tensor]) -> None:
    """One panel of `slices`."""
    axis.plot(x.numpy(), members.T.numpy(), color=GREY, linewidth=0.5, alpha=0.6)
    for name, q in curves.items():
        axis.plot(x.numpy(), q.numpy(), color=COLOURS[name], linestyle=STYLES[name], linewidth=2.2, label=name)
    axis.set(xlabel="input x", ylabel="probability of class 1", ylim=(-0.02, 1.02), yticks=np.linspace(0, 1, 5))
