"""How good a prediction is: error, negative log-likelihood, calibration, and the distance to the ideal predictor.

The metrics come from torchmetrics and scikit-learn, which are imported where they are used.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers import bregman

BINS = 15  # of confidence, for the calibration error


def scores(q: Tensor, labels: Tensor, ideal: Tensor) -> dict[str, float]:
    """Four numbers, all better when lower.

    Parameters
    ----------
    q : predicted probabilities [N, K].
    labels : classes [N], int64.
    ideal : probabilities [N, K] of the ideal predictor, or of Monte Carlo with many masks in its place.

    Returns
    -------
    {"error": share of wrong predictions in %, "NLL": mean negative log-likelihood in nats, "ECE": expected
    calibration error over 15 bins of equal width in % (Guo et al. 2017), "KL to ideal": mean KL(ideal ‖ q) in nats}

    Raises
    ------
    ValueError : if there are no examples, if `q` or `ideal` are no probabilities, but logits, say, if their shapes differ,
        or if a label is no class.
    """
    require_probabilities("q", q)
    require_probabilities("ideal", ideal)
    if q.shape != ideal.shape:
        raise ValueError(f"`q` is {list(q.shape)} and `ideal` {list(ideal.shape)}; both must be [N, K]")
    if labels.shape != q.shape[:1]:
        raise ValueError(f"expected a label for each of the {len(q)} predictions, got {list(labels.shape)}")
    if labels.dtype != torch.int64 or labels.min() < 0 or labels.max() >= q.shape[-1]:
        raise ValueError(
            f"labels must be whole numbers from 0 to {q.shape[-1] - 1} of type int64; got {labels.dtype} from {labels.min()} "
            f"to {labels.max()}"
        )
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

    classes, at_most_1 = q.shape[-1], q.clamp(0, 1)  # torchmetrics takes what is an ulp above 1 for logits
    return {
        "error": 100 * (1 - multiclass_accuracy(q, labels, classes, average="micro").item()),
        "NLL": F.nll_loss(q.log(), labels).item(),
        "ECE": 100 * multiclass_calibration_error(at_most_1, labels, classes, n_bins=BINS).item(),
        "KL to ideal": bregman.kl(ideal, q).mean().item(),
    }


def require_probabilities(name: str, q: Tensor) -> None:
    """Raise ValueError unless `q` is [N, K] and its rows are distributions over classes."""
    if q.ndim != 2 or not len(q):
        raise ValueError(f"`{name}` is {list(q.shape)}; expected probabilities [N, K] of at least one example")
    sums = q.sum(-1)
    if not ((q >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)):
        raise ValueError(
            f"`{name}` has rows that are no distributions over classes: numbers from 0 to 1 that sum to one. Of logits take "
            "predictors.softmax first."
        )


def standard_error(error: float, n: int) -> float:
    """How far an error [%] that was measured on `n` examples moves by the choice of these examples, in percentage points."""
    share = error / 100
    return 100 * (share * (1 - share) / n) ** 0.5


def learned(found: Mapping[str, float], classes: int = 10) -> bool:
    """Whether a network that has been `found` to have these `scores` does better than one that gives every input the same
    answer: whether it is wrong less often than that, by a percentage point or more, if all classes are equally frequent."""
    return found["error"] <= 100 * (1 - 1 / classes) - 1


def table(predictions: Mapping[str, Tensor], passes: Mapping[str, int], labels: Tensor, ideal: Tensor):
    """A pandas table: a row per predictor, with its cost in passes through the network and its `scores`.

    Parameters
    ----------
    predictions : {name: probabilities [N, K]}.
    passes : {name: passes through the network per example}.
    labels, ideal : as in `scores`.
    """
    import pandas as pd

    rows = {name: {"passes": passes[name], **scores(q, labels, ideal)} for name, q in predictions.items()}
    units = {"error": "error [%]", "NLL": "NLL [nats]", "ECE": "ECE [%]", "KL to ideal": "KL(ideal ‖ ·) [nats]"}
    return pd.DataFrame.from_dict(rows, orient="index").rename(columns=units)
