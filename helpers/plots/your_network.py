"""The figures of notebook 10."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from helpers.plots import COLOURS
from helpers.plots.tour import compare

STYLES = {"ideal": "-", "standard": "--", "distilled": "-."}


def doubts(entropies: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """For each kind of input, the share of inputs whose predictive entropy is below a value, by predictor.

    Parameters
    ----------
    entropies : {kind of input: {"ideal", "standard", "distilled": entropies [N] in nats}}.
    """
    figure = Figure(figsize=(3.6 * len(entropies), 3.3), layout="tight")
    axes = figure.subplots(1, len(entropies), sharey=True, squeeze=False)[0]
    for axis, (kind, found) in zip(axes, entropies.items(), strict=True):
        for name, style in STYLES.items():
            axis.ecdf(found[name].cpu().numpy(), color=COLOURS[name], linestyle=style, linewidth=1.8, label=name)
        axis.set(title=kind, xlabel="entropy of the prediction [nats]", xlim=(-0.03, np.log(10)))
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("share of the inputs below")
    axes[0].legend(frameon=False, loc="lower right")
    return figure


def turning(
    degrees: int,
    image: Tensor,
    predictions: Mapping[str, Tensor],
    angles: Sequence[int],
    curves: Mapping[str, Sequence[float]],
) -> Figure:
    """A turned digit, what is said of it, and how doubt grows with the angle.

    Parameters
    ----------
    degrees : the angle shown.
    image : the digit at that angle, [1, H, W].
    predictions : {"standard", "distilled", "ideal": probabilities [K]} of it.
    angles : all angles, A of them.
    curves : {"ideal", "standard", "distilled": mean entropies, "mutual information": its mean}, A of each, in nats.
    """
    figure = Figure(figsize=(10.5, 3.3), layout="tight")
    left, middle, right = figure.subplots(1, 3, width_ratios=[0.6, 1.2, 1.2])
    left.imshow(image[0].cpu().numpy(), cmap="gray_r")
    left.set_title(f"turned by {degrees}°", fontsize=10)
    left.axis("off")
    compare(middle, predictions, len(predictions["ideal"]))
    middle.legend(frameon=False, fontsize=8)
    for name, style in STYLES.items():
        label = "entropy, " + {"ideal": "ensemble", "distilled": "student"}.get(name, name)
        right.plot(angles, curves[name], color=COLOURS[name], linestyle=style, linewidth=1.8, label=label)
    label = "mutual information, ensemble"
    right.plot(angles, curves["mutual information"], color=COLOURS["ideal"], linestyle=":", linewidth=1.8, label=label)
    right.axvline(degrees, color="0.6", linewidth=1)
    right.set(xlabel="angle [degrees]", ylabel="mean over digits [nats]", xticks=angles)
    right.set_ylim(0, 1.75 * max(map(max, curves.values())))
    right.legend(frameon=False, fontsize=8, loc="upper left")
    right.grid(alpha=0.25)
    return figure
