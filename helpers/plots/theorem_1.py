"""The figures of notebook 04."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from helpers.plots import BLUE, COLOURS, VERMILLION, simplex

OUTSIDE, INSIDE = BLUE, VERMILLION  # the mean over masks outside the loss (J') and inside it (J)


def against(objectives: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """J' against J, a point for each of many students: {name of a loss: (J [Q], J' [Q])}. Where the gap knows no student,
    the points lie on a line parallel to the diagonal."""
    columns = -(-len(objectives) // 2)
    figure = Figure(figsize=(3.3 * columns, 6), layout="tight")
    for axis, (name, (J, J_prime)) in zip(figure.subplots(2, columns).flatten(), objectives.items(), strict=True):
        low, high = min(J.min(), J_prime.min()).item(), max(J.max(), J_prime.max()).item()
        room = 0.04 * (high - low)
        ends = (low - room, high + room)
        axis.fill_between(ends, [ends[0]] * 2, ends, color="0.92", label="J' < J")
        axis.plot(ends, ends, color="0.6", linewidth=1, linestyle="--", label="J' = J")
        axis.scatter(J.numpy(), J_prime.numpy(), s=9, color=OUTSIDE, label="a student")
        axis.set(xlim=ends, ylim=ends, xlabel="J", ylabel="J'", aspect="equal")
        axis.set_title(name, fontsize=10)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def disagreement(images: Tensor, f: Tensor, information: Tensor, names: Sequence[str]) -> Figure:
    """Images [N, H, W], below each what all masks say about it, f [M, N, 3], and how much the masks tell about the label,
    [N] in nats."""
    figure = Figure(figsize=(1.75 * len(images), 3.4), layout="constrained")
    axes = figure.subplots(2, len(images), height_ratios=[1, 1.5])
    for i, image in enumerate(images):
        axes[0, i].imshow(image.numpy(), cmap="gray_r")
        axes[0, i].axis("off")
        axes[0, i].set_title(f"{information[i]:.3f} nats", fontsize=10)
        simplex.triangle(axes[1, i], names)
        members = simplex.place(f[:, i])
        axes[1, i].scatter(*members, s=9, color=COLOURS["Monte Carlo"], alpha=0.25, linewidth=0, label="a mask")
        mean = simplex.place(f[:, i].mean(0))
        axes[1, i].scatter(*mean, marker="+", s=110, linewidth=2, color=COLOURS["ideal"], label="mean of all masks")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, markerscale=1.3)
    return figure


def walk(
    step: int, path: Tensor, J: Tensor, J_prime: Tensor, members: Tensor, title: str, names: Sequence[str]
) -> Figure:
    """A student on a straight path through the triangle, its two objectives there, and the gap between them.

    Parameters
    ----------
    step : where on the path the student is, 0 to G - 1.
    path : the student's distributions, [G, 3].
    J, J_prime : the objectives at each, [G].
    members : what the masks say, [M, 3].
    title : name of the loss.
    names : of the three classes.
    """
    figure = Figure(figsize=(10.5, 3.7), layout="tight")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1.2, 1.2])
    simplex.triangle(left, names)
    dots = {"s": 9, "color": COLOURS["Monte Carlo"], "alpha": 0.25, "linewidth": 0}
    left.scatter(*simplex.place(members), **dots)
    left.plot(*simplex.place(path), color="0.4", linewidth=1)
    left.scatter(*simplex.place(members.mean(0)), marker="+", s=130, linewidth=2, color=COLOURS["ideal"])
    left.scatter(*simplex.place(path[step]), s=60, color=COLOURS["distilled"], zorder=3)
    left.set_title(f"{title}: q (green), mean (+)", fontsize=10)

    steps = range(len(path))
    for values, name, colour in ((J_prime, "J'", OUTSIDE), (J, "J", INSIDE)):
        middle.plot(steps, values.numpy(), color=colour, linewidth=2, label=name)
        lowest = values.argmin().item()
        middle.plot(
            lowest, values[lowest].item(), marker="v", markersize=9, color=colour, label=f"lowest point of {name}"
        )
    middle.plot([step, step], [J[step].item(), J_prime[step].item()], color=COLOURS["distilled"], linewidth=3)
    middle.set(xlabel="step on the path", ylabel="loss", ylim=(None, 1.1 * J_prime.max().item()))
    middle.legend(frameon=False, fontsize=8)

    gap = J - J_prime
    right.plot(steps, gap.numpy(), color="0.2", linewidth=2)
    right.plot(step, gap[step].item(), "o", markersize=8, color=COLOURS["distilled"])
    right.set(xlabel="step on the path", ylabel="J - J'", ylim=(1.6 * gap.min().item(), -0.2 * gap.min().item()))
    right.axhline(0, color="0.7", linewidth=1)
    right.set_title(f"J - J' = {gap[step].item():.3f}", fontsize=10)
    return figure
