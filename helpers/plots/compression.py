"""The figures of notebook 08."""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers import evaluation
from helpers.plots import BLUE, COLOURS, ORANGE, PURPLE, plain_numbers

STYLES = {
    "distilled": (COLOURS["distilled"], "D", "-"),
    "distilled on training images": (BLUE, "s", ":"),
    "from labels, with dropout": (PURPLE, "o", "--"),
    "from labels, with dropout, Monte Carlo": (COLOURS["Monte Carlo"], "o", "--"),
    "from labels, without dropout": (ORANGE, "^", "-."),
}

LABELS = {"error": "test error [%]", "KL to ideal": "KL to ideal [nats]"}

Curves = Mapping[str, Mapping[int, Sequence[Mapping[str, float]]]]


def curve(axis: Axes, curves: Curves, parameters: Mapping[int, int], measure: str) -> None:
    """`measure` against the share of parameters that is left, a line with a band (one standard deviation) for each way
    to make the network, {way: {size: scores of each repetition}}, and a cross for each network that has not learned."""
    whole, lost = max(parameters.values()), []
    for name, points in curves.items():
        colour, marker, line = STYLES[name]
        values: dict[float, list[float]] = {}
        for size, found in points.items():
            share = 100 * parameters[size] / whole
            for scores in found:
                if evaluation.learned(scores):
                    values.setdefault(share, []).append(scores[measure])
                else:
                    lost.append((share, scores[measure], colour))
        mean = np.array([statistics.mean(v) for v in values.values()])
        spread = np.array([statistics.stdev(v) if len(v) > 1 else 0.0 for v in values.values()])
        axis.plot(list(values), mean, color=colour, marker=marker, linestyle=line, label=name)
        axis.fill_between(list(values), mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
    if lost:
        shares, heights, colours = zip(*lost, strict=True)
        axis.scatter(shares, heights, color=colours, marker="x", label="has not learned")
    axis.set(xscale="log", yscale="log", xlabel="parameters left [%]", ylabel=LABELS[measure])
    axis.grid(alpha=0.25)


def figure_3(
    sides: Mapping[str, tuple[Curves, Mapping[int, int]]], teacher: Mapping[str, float], measure: str = "error"
) -> Figure:
    """Fig. 3: test error, or another measure, against the share of parameters that is left.

    Parameters
    ----------
    sides : {title: (curves, {size: parameters})}.
    teacher : {predictor: `measure` of its predictions with all parameters}, drawn as lines.
    """
    figure = Figure(figsize=(5 * len(sides), 4.4), layout="constrained")
    axes = figure.subplots(1, len(sides), squeeze=False)[0]
    for axis, (title, (curves, parameters)) in zip(axes, sides.items(), strict=True):
        curve(axis, curves, parameters, measure)
        for name, value in teacher.items():
            axis.axhline(value, color=COLOURS[name], linewidth=1.2, label=f"teacher, {name}")
        plain_numbers(axis)
        axis.set_title(title)
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def choice(title: str, size: int, costs: Mapping[int, Mapping[str, float]], curves: Curves) -> Figure:
    """What a student of one size costs, in % of the largest, and what it gets wrong.

    Parameters
    ----------
    title : says which student it is.
    size : the one that is chosen.
    costs : {size: {"parameters", "multiply-adds", "time": value}}.
    curves : {way to make the network: {size: scores of each repetition}}.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    whole, chosen = costs[max(costs)], costs[size]
    formats = {"parameters": "{:,}", "multiply-adds": "{:,}", "time": "{:.2f} µs"}
    bars = left.barh(list(chosen), [100 * chosen[name] / whole[name] for name in chosen], color=COLOURS["Monte Carlo"])
    left.bar_label(bars, [formats[name].format(value) for name, value in chosen.items()], padding=4)
    left.set(xlim=(0, 130), xlabel="of the teacher's [%]", ylabel="cost of one image")
    left.invert_yaxis()
    left.set_title(title)
    parameters = {size: cost["parameters"] for size, cost in costs.items()}
    curve(right, curves, parameters, "error")
    right.axvline(100 * parameters[size] / max(parameters.values()), color="0.4", linewidth=1, linestyle=":")
    plain_numbers(right)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure
