"""What a reader sees: one function per figure, from tensors to a Matplotlib figure; a module for each notebook.

The figures do not pass through pyplot, so that nothing is shown twice and nothing has to be closed.

Each predictor has one colour everywhere, from the palette of Okabe and Ito, which colour-blind readers can tell apart.
"""

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
COLOURS = {
    "standard": VERMILLION,
    "Monte Carlo": SKY,
    "distilled": GREEN,
    "geometric": PURPLE,
    "fast dropout": BLUE,
    "ideal": BLACK,
}
MARKERS = {
    "standard": "s",
    "Monte Carlo": "o",
    "distilled": "D",
    "geometric": "^",
    "fast dropout": "v",
    "ideal": "_",
}


def plain_numbers(axis: Axes) -> None:
    """2, 5 and 10 along logarithmic axes in place of powers of ten; small ones in between where there is room."""
    for ticks, (low, high) in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
        if ticks.get_scale() != "log":
            continue
        ticks.set_major_formatter("{x:g}")
        if ticks is axis.yaxis and high / low < 8:
            ticks.set_minor_locator(LogLocator(subs=(1.5, *range(2, 10))))
        ticks.set_minor_formatter("{x:g}" if high / low < 20 else two_and_five)
    axis.tick_params(which="minor", labelsize=9)


def two_and_five(value: float, _: int) -> str:
    """The text of a tick at 2 or 5 times a power of ten, none for the others."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""
