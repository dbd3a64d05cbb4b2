"""Algorithm 1: dropout training (Rota Bulò et al. 2016, section 2)."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers import checkpoints, gates
from helpers.batches import Shuffled
from helpers.inputs import device_of, require_finite
from helpers.precision import mixed_precision
from helpers.predictors import full_precision, standard
from helpers.seeding import seeded
from helpers.sgd import LearningRate, descend


def train(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    epochs: int = 30,
    lr: LearningRate = 1e-3,
    batch_size: int = 64,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    perturb: Callable[[Tensor], Tensor] | None = None,
    autocast: torch.dtype | None = None,
    seed: int = 0,
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> nn.Module:
    """Fit `model` to labelled examples by Algorithm 1: each example of each mini-batch is seen through gates of
    its own, and the loss is KL(label ‖ prediction), which for one-hot labels is the cross-entropy.

    Parameters
    ----------
    model : network returning logits [N, K], changed in place. It need not have dropout in it.
    inputs : [N, ...], on any device; images may be uint8 if `perturb` makes of them what the network sees.
    labels : class indices [N], int64.
    epochs : times that every example is seen.
    lr : learning rate: a number, used for two thirds of the epochs and then divided by ten, or {epoch: rate}.
    batch_size : m in Algorithm 1.
    momentum, weight_decay : of SGD; `weight_decay` is λ in the penalty λ/2 ‖Θ‖².
    perturb : from a batch [n, ...] to the batch that the network sees, called in each step on the network's device
        (for example `datasets.mirror`), and before the first one on a single example.
    autocast : type in which the network computes, such as `torch.bfloat16`: about half the time. Parameters, loss and
        updates stay in float32. Default, and for bfloat16 where the device has no instructions: float32 throughout.
    seed : of the order of the examples, the gates and those perturbations that draw from PyTorch; the global random state
        is left alone.
    progress : whether to show a progress bar with loss and learning rate.
    checkpoint : file to write after each epoch. If it exists, training continues from it, to the same weights.

    Returns
    -------
    `model`, in eval mode.

    Raises
    ------
    ValueError : for inputs that are empty, not finite, or do not match the labels; for labels outside 0..K-1; for
        a checkpoint that is damaged or belongs to another run.
    FloatingPointError : if the loss diverges.
    """
    require_examples(model, inputs, labels, perturb)
    device = device_of(model)
    drawing = gates.drawing(model)

    def objective(batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = (part.to(device) for part in batch)
        if perturb is not None:
            x = perturb(x)
        with drawing, mixed_precision(device, autocast):
            logits = model(x)  # in training mode: σ is sampled inside
        return F.cross_entropy(full_precision(logits), y)

    descend(
        model,
        Shuffled(inputs, labels, batch_size=batch_size),
        objective,
        epochs=epochs,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        seed=seed,
        device=device,
        begin=lambda _: model.train(),
        title="training",
        progress=progress,
        checkpoint=checkpoint,
        settings=lambda: {
            "batch_size": batch_size,
            "network": checkpoints.layers(model),
            "rates": gates.rates(model),
            "perturb": checkpoints.describe(perturb),
            "autocast": str(autocast),
            "data": checkpoints.fingerprint([inputs, labels]),
        },
    )
    model.eval()
    return model


def require_examples(
    model: nn.Module, inputs: Tensor, labels: Tensor, perturb: Callable[[Tensor], Tensor] | None
) -> None:
    """
    Raises
    ------
    ValueError : if there are no `inputs`, one is not finite, or `labels` are not a class of `model` for each of them.
    """
    require_finite(inputs)
    device, n = device_of(model), len(inputs)
    with seeded(0, device):
        first = inputs[:1].to(device, copy=True)  # `perturb` may work in place
        classes = standard(model, first if perturb is None else perturb(first)).shape[-1]
    if labels.shape != (n,):
        raise ValueError(f"expected labels [{n}], one per input, got {list(labels.shape)}")
    if labels.dtype != torch.int64 or labels.min() < 0 or labels.max() >= classes:
        found = labels.to(torch.float64)
        raise ValueError(
            f"labels must be whole numbers from 0 to {classes - 1} of type int64, as the network has {classes} outputs; "
            f"got {labels.dtype} from {found.min():g} to {found.max():g}"
        )
