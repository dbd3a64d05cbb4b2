"""The triangle of all distributions over three classes, for notebooks 04 and 05."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

CORNERS = np.array([[0, 0], [1, 0], [0.5, 3**0.5 / 2]])


def place(p: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Where distributions [..., 3] lie in the plane: horizontal and vertical positions, [...] each."""
    x, y = np.moveaxis(p.cpu().numpy() @ CORNERS, -1, 0)
    return x, y


def triangle(axis: Axes, names: Sequence[str]) -> None:
    """The edges, and at each corner the name of the class that is certain there."""
    axis.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, color="0.3", linewidth=1)
    places = [("right", "top"), ("left", "top"), ("center", "bottom")]
    for (x, y), name, (across, up) in zip(CORNERS, names, places, strict=True):
        axis.text(x, y, name, ha=across, va=up, fontsize=9)
    axis.set(aspect="equal", xlim=(-0.1, 1.1), ylim=(-0.1, 0.97))
    axis.axis("off")


def terrain(axis: Axes, grid: Tensor, height: Tensor) -> None:
    """Level lines of a function with values `height` [G] at the distributions `grid` [G, 3]: dark is low. A level is for a
    share of the grid, so that the lowest ground shows however steep the rest is."""
    x, y = place(grid)
    values = height.cpu().numpy()
    axis.tricontourf(x, y, np.argsort(np.argsort(values)), levels=12, cmap="Greys_r", alpha=0.7)
