"""The figures of notebook 05."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from helpers.bregman import Bregman
from helpers.plots import BLUE, COLOURS, GREEN, VERMILLION, simplex


def gap(loss: Bregman, name: str, y_hat: float, y: float = 0.75, ends: tuple[float, float] = (0.01, 0.99)) -> Figure:
    """A divergence of numbers as the gap between φ and its tangent at ŷ (left), and as a function of y (right).

    Parameters
    ----------
    loss : divergence whose domain holds the interval between `ends`.
    name : of φ, for the title.
    y_hat : where the tangent touches.
    y : where the gap is marked.
    """
    points = torch.linspace(*ends, 200, dtype=torch.float64)[:, None]
    here, there = points.new_tensor([y_hat]), points.new_tensor([y])
    phi, slope = loss.phi(points), loss.grad_phi(here)
    tangent = lambda at: (loss.phi(here) + (at - here) * slope).squeeze(-1)
    divergence = loss(there, here).item()
    figure = Figure(figsize=(10, 3.7), layout="tight")
    left, right = figure.subplots(1, 2)
    left.plot(points, phi, color=BLUE, linewidth=2, label="φ")
    left.plot(points, tangent(points), color=VERMILLION, linewidth=1.6, linestyle="--", label="its tangent at ŷ")
    left.plot(y_hat, loss.phi(here), "o", color=VERMILLION)
    low, high = tangent(there).item(), loss.phi(there).item()
    left.plot([y, y], [low, high], color=GREEN, linewidth=4, solid_capstyle="butt", label=f"ℓ(y, ŷ) = {divergence:.3f}")
    room = 0.15 * (phi.max() - phi.min()).item()  # the tangent may leave, φ stays
    left.set(xlabel="y", ylabel="φ(y)", ylim=(phi.min().item() - 3 * room, phi.max().item() + room))
    left.set_title(f"φ: {name}, ŷ = {y_hat:g}, y = {y:g}")
    left.legend(frameon=False, fontsize=9)

    forward, backward = loss(points, here), loss(here, points)
    right.plot(points, forward, color=GREEN, linewidth=2, label=f"ℓ(y, {y_hat:g}): convex in y")
    right.plot(
        points, backward, color="0.6", linewidth=1.4, linestyle=":", label=f"ℓ({y_hat:g}, ŷ): arguments exchanged"
    )
    right.plot(y, divergence, "o", color=GREEN)
    right.plot(y_hat, 0, "o", color=VERMILLION)
    right.set(xlabel="y (or ŷ)", ylabel="loss", ylim=(-0.05 * forward.max().item(), 1.2 * forward.max().item()))
    right.legend(frameon=False, fontsize=9)
    return figure


def landscapes(
    grid: Tensor, heights: Mapping[str, Tensor], outcomes: Tensor, weights: Tensor, names: Sequence[str]
) -> Figure:
    """E ℓ(Y, q) for every q in the triangle and several losses, with its lowest point beside the mean of Y.

    Parameters
    ----------
    grid : distributions q, [G, 3].
    heights : {name of a loss: E ℓ(Y, q), [G]}.
    outcomes, weights : the values of Y and their probabilities, [M, 3] and [M].
    names : of the three classes.
    """
    columns = 4
    rows = -(-len(heights) // columns)
    figure = Figure(figsize=(2.75 * columns, 2.6 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (name, height) in zip(axes, heights.items(), strict=False):
        simplex.triangle(axis, names)
        simplex.terrain(axis, grid, height)
        axis.scatter(
            *simplex.place(outcomes), s=150 * weights.numpy(), color=COLOURS["Monte Carlo"], label="values of Y"
        )
        mean, best = weights @ outcomes, grid[height.argmin()]
        axis.scatter(*simplex.place(mean), marker="+", s=130, color=VERMILLION, linewidth=2.5, label="mean of Y")
        style = {"marker": "o", "s": 75, "facecolor": "none", "edgecolor": GREEN, "linewidth": 2.2}
        axis.scatter(*simplex.place(best), **style, label="best constant q")
        axis.set_title(name, fontsize=10)
    for axis in axes[len(heights) :]:
        axis.axis("off")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def between(temperatures: Sequence[float], distances: Mapping[str, Sequence[float]]) -> Figure:
    """How far the best constant of KL at temperature T is from several means: {name of a mean: one distance per T}."""
    figure = Figure(figsize=(6.4, 3.4), layout="tight")
    axis = figure.subplots()
    colours, lines = (COLOURS["ideal"], COLOURS["geometric"]), ("-", "--")
    for (name, values), colour, line in zip(distances.items(), colours, lines, strict=True):
        axis.plot(temperatures, np.asarray(values), line, marker="o", color=colour, label=f"to the {name}")
    axis.set(xscale="log", xlabel="temperature T", ylabel="total variation distance", ylim=(-0.005, None))
    axis.legend(frameon=False)
    axis.grid(alpha=0.25)
    return figure
