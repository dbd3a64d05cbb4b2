"""The figures of notebook 02."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from helpers.plots import COLOURS, MARKERS

GREY = "0.75"


def members(
    probability: Tensor, odds: Tensor, weights: Tensor, lines: Mapping[str, float], gaussian: tuple[float, float]
) -> Figure:
    """What all M gated networks say about one example, and what the predictors make of it.

    Parameters
    ----------
    probability : of one class under each mask, [M].
    odds : difference of two logits under each mask, [M].
    weights : probabilities of the masks, [M].
    lines : {name of a predictor: its probability of the class}.
    gaussian : mean and standard deviation that fast dropout has for `odds`.
    """
    figure = Figure(figsize=(10, 3.6), layout="tight")
    left, right = figure.subplots(1, 2)
    left.hist(probability.numpy(), bins=40, range=(0, 1), weights=weights.numpy(), color=GREY, label="masks")
    for (name, q), style in zip(lines.items(), ("-", "--", ":", "-."), strict=False):
        left.axvline(q, color=COLOURS[name], linestyle=style, linewidth=2, label=name)
    left.set(xlabel="probability of the class", ylabel="share of the masks", yscale="log", xlim=(-0.02, 1.02))
    left.legend(fontsize=8, loc="upper center")

    right.hist(odds.numpy(), bins=80, weights=weights.numpy(), density=True, color=GREY, label="masks")
    z, (mean, sd) = np.linspace(odds.min().item(), odds.max().item(), 400), gaussian
    density = np.exp(-(((z - mean) / sd) ** 2) / 2) / (sd * np.sqrt(2 * np.pi))
    right.plot(z, density, color=COLOURS["fast dropout"], linewidth=2, label="fast dropout's Gaussian")
    right.axvline(0, color="0.4", linewidth=1)
    right.set(xlabel="logit of the class minus runner-up's [nats]", ylabel="density [1/nats]")
    right.legend(frameon=False, fontsize=8)
    return figure


def law(errors: Tensor, sd: float) -> Figure:
    """The 1/√m law: errors [R, m] of the running mean of R Monte Carlo runs after 1, 2, …, m masks, where one mask has
    standard deviation `sd`."""
    runs, masks = errors.shape
    steps = np.arange(1, masks + 1)
    figure = Figure(figsize=(10, 3.6), layout="tight")
    left, right = figure.subplots(1, 2)
    band = 1.96 * sd / np.sqrt(steps)
    left.fill_between(steps, -band, band, color="0.88", label="95 % band ± 1.96 s/√m")
    left.plot(steps, errors[:12].T.numpy(), color=COLOURS["Monte Carlo"], linewidth=0.8)
    left.axhline(0, color=COLOURS["ideal"], linewidth=1.4, label="ideal")
    left.set(xscale="log", xlim=(1, masks), ylim=(-2.2 * sd, 2.2 * sd), xlabel="number of masks m")
    left.set(ylabel="error of the probability")
    left.legend(frameon=False, fontsize=8)
    shown = np.unique(np.geomspace(1, masks, 16).astype(int))
    rms = errors.square().mean(0).sqrt().numpy()[shown - 1]
    right.plot(steps, sd / np.sqrt(steps), color=COLOURS["ideal"], linewidth=1.4, label="s/√m, s by enumeration")
    right.plot(shown, rms, "o", color=COLOURS["Monte Carlo"], label=f"root mean square of {runs} runs")
    right.set(xscale="log", yscale="log", xlabel="number of masks m", ylabel="error of the probability")
    right.set_ylim(10 ** np.floor(np.log10(sd / np.sqrt(masks))), 1)
    right.legend(frameon=False, fontsize=8)
    right.grid(alpha=0.25)
    return figure


def enough(error: Tensor, nll: Tensor, standard: tuple[float, float]) -> Figure:
    """Test error [%] and negative log-likelihood [nats] of R Monte Carlo runs after 1, 2, …, m masks, [R, m] each, beside
    those of the standard prediction."""
    figure = Figure(figsize=(10, 3.4), layout="tight")
    names = ("test error [%]", "NLL [nats]")
    for axis, values, line, name in zip(figure.subplots(1, 2), (error, nll), standard, names, strict=True):
        steps = np.arange(1, values.shape[1] + 1)
        mean, sd = values.mean(0).numpy(), values.std(0).numpy()
        axis.axvspan(10, 20, color="0.92", label="10 to 20 masks")
        axis.fill_between(steps, mean - sd, mean + sd, color=COLOURS["Monte Carlo"], alpha=0.3)
        axis.plot(steps, mean, color=COLOURS["Monte Carlo"], label=f"Monte Carlo, {len(values)} runs: mean ± sd")
        axis.axhline(line, color=COLOURS["standard"], linestyle="--", label="standard")
        axis.set(xscale="log", xlim=(1, len(steps)), xlabel="number of masks m", ylabel=name)
        axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=8)
    return figure


def price(
    costs: Mapping[str, Sequence[float]], distances: Mapping[str, Sequence[float]], masks: Sequence[int]
) -> Figure:
    """Cost [ms per example] and distance to the ideal [nats] of each predictor: {name: [one value]}, or one value for
    each number of masks in `masks`."""
    figure = Figure(figsize=(7, 4.2), layout="tight")
    axis = figure.subplots()
    for name, cost in costs.items():
        axis.plot(cost, distances[name], color=COLOURS[name], marker=MARKERS[name], markersize=8, label=name)
    for m, x, y in zip(masks, costs["Monte Carlo"], distances["Monte Carlo"], strict=True):
        axis.annotate(f"m = {m}", (x, y), (6, 5), textcoords="offset points", fontsize=8)
    axis.margins(0.12)
    axis.set(xscale="log", yscale="log", xlabel="time [ms per example]", ylabel="KL(ideal ‖ prediction) [nats]")
    axis.grid(alpha=0.25, which="both")
    axis.legend(frameon=False, fontsize=8)
    return figure


def pooling(p: float, values: Tensor, weights: Tensor, unpooled: Tensor, rates: Tensor, means: Tensor) -> Figure:
    """The maximum of a window whose units were dropped and rescaled.

    Parameters
    ----------
    p : the rate.
    values, weights : that maximum under each of the 2^n masks, and the probabilities of the masks, [2^n].
    unpooled : the units of the window, [n].
    rates, means : rates [T], and the mean of the maximum at each, [T].
    """
    figure = Figure(figsize=(10, 3.6), layout="tight")
    left, right = figure.subplots(1, 2)
    levels, which = np.unique(values.numpy().round(9), return_inverse=True)
    shares = np.bincount(which, weights.numpy())
    top, mean = unpooled.max().item(), (weights @ values).item()
    left.vlines(levels, 0, shares, color=COLOURS["Monte Carlo"], linewidth=5, label="after dropping")
    left.axvline(mean, color=COLOURS["ideal"], linewidth=2, label=f"their mean, {mean:.2f}")
    left.axvline(top, color=COLOURS["standard"], linestyle="--", linewidth=2, label=f"weight scaling, {top:.2f}")
    left.set(xlabel="largest unit of the window", ylabel="probability", ylim=(0, 1), title=f"rate {p:.1f}")
    left.set_xlim(-0.3, max(4 * top, levels.max() + 0.3))
    left.legend(frameon=False, fontsize=8)
    right.plot(rates.numpy(), means.numpy(), color=COLOURS["ideal"], label="dropout, then pooling")
    right.axhline(top, color=COLOURS["standard"], linestyle="--", label="pooling, then dropout; weight scaling of both")
    right.plot(p, mean, "o", color=COLOURS["ideal"])
    right.set(xlabel="rate p", ylabel="mean of the largest unit", xlim=(0, 1))
    right.set_ylim(0, 1.05 * unpooled.clamp_min(0).sum().item())
    right.legend(frameon=False, fontsize=8)
    right.grid(alpha=0.25)
    return figure
