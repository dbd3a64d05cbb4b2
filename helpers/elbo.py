"""The evidence lower bound, and training that raises it (Molchanov et al. 2017, eqs. 2 to 6)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers import checkpoints, gates, variational
from helpers.batches import Shuffled
from helpers.inputs import device_of
from helpers.predictors import in_batches
from helpers.seeding import seeded
from helpers.sgd import descend
from helpers.training import require_examples
from helpers.variational import total_kl


def maximise(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    epochs: int = 200,
    lr: float = 1e-3,
    batch_size: int = 100,
    warm_up: tuple[int, int] = (5, 20),
    kl: Callable[[Tensor], Tensor] = variational.kl,
    perturb: Callable[[Tensor], Tensor] | None = None,
    begin: Callable[[int], None] | None = None,
    compile: bool = False,
    seed: int = 0,
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> nn.Module:
    """Fit the posterior of a variational `model` by raising its evidence lower bound with Adam (eq. 6):

        N/M Σ log p(y | x, w) - β KL(q ‖ p),   one sampled w for each of the M examples of a mini-batch.

    Parameters
    ----------
    model : network with variational layers (`variational.variational`) that returns logits [N, K], changed in place.
    inputs : [N, ...]; images may be uint8 if `perturb` makes of them what the network sees.
    labels : class indices [N], int64.
    epochs : times that every example is seen.
    lr : Adam's learning rate, which falls to zero in equal steps, one each epoch.
    batch_size : M.
    warm_up : β is 0 in all epochs before the first of these numbers, rises in equal steps, and is 1 from the second on.
        Raised at once, the divergence removes weights before they have learned anything.
    kl : from log α to the divergence of each weight.
    perturb : from a batch [n, ...] to the batch that the network sees.
    begin : called with the number of each epoch, counted from 0, before it.
    compile : whether to compile the divergence, which takes some ten seconds and a C++ compiler. With millions of weights
        it is then more than twice as fast, and all of training half as fast again.
    seed : of the order of the examples, the noise and the perturbations; the global random state is left alone.
    progress, checkpoint : as in `training.train`.

    Returns
    -------
    `model`, in eval mode.

    Raises
    ------
    ValueError : if `model` has no variational layer; for inputs that are empty, not finite, or do not match the labels;
        for labels outside 0..K-1; for a checkpoint that is damaged or belongs to another run.
    FloatingPointError : if the bound is no longer finite.
    """
    total_kl(model, kl)  # a model without a divergence is refused before anything else
    require_examples(model, inputs, labels, perturb)
    device, n = device_of(model), len(inputs)
    divergence = torch.compile(total_kl) if compile else total_kl
    beta = 0.0

    def next_epoch(epoch: int) -> None:
        nonlocal beta
        model.train()
        beta = kl_weight(epoch, warm_up)
        if begin is not None:
            begin(epoch)

    def objective(batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = (part.to(device) for part in batch)
        logits = model(x if perturb is None else perturb(x))
        return F.cross_entropy(logits, y) + (beta / n * divergence(model, kl) if beta else 0.0)

    descend(
        model,
        Shuffled(inputs, labels, batch_size=batch_size),
        objective,
        epochs=epochs,
        lr={epoch: lr * (1 - epoch / epochs) for epoch in range(epochs)},
        optimizer=partial(torch.optim.Adam, fused=True),
        begin=next_epoch,
        seed=seed,
        device=device,
        title="raising the bound",
        progress=progress,
        checkpoint=checkpoint,
        settings=lambda: {
            "batch_size": batch_size,
            "warm_up": list(warm_up),
            "kl": checkpoints.describe(kl),
            "perturb": checkpoints.describe(perturb),
            "network": checkpoints.layers(model),
            "rates": gates.rates(model),
            "data": checkpoints.fingerprint([inputs, labels]),
        },
    )
    model.eval()
    return model


def kl_weight(epoch: int, warm_up: tuple[int, int]) -> float:
    """β of an epoch, counted from 0: zero before the first number of `warm_up`, one from the second on."""
    start, end = warm_up
    return min(1.0, max(0.0, (epoch + 1 - start) / max(1, end - start)))


def bound(
    model: nn.Module, inputs: Tensor, labels: Tensor, kl: Callable[[Tensor], Tensor] = variational.kl, seed: int = 0
) -> float:
    """An estimate of the evidence lower bound [nats] of all N examples together, from one sample of w for each (eq. 6).

    Parameters
    ----------
    model : variational network returning logits [N, K]; its modes are left as they were.
    inputs : [N, ...].
    labels : class indices [N], int64.
    """
    with gates.sampling(model), seeded(seed, device_of(model)):
        log_p = in_batches(lambda x: model(x).log_softmax(-1), model, inputs, 1000)
    return (-F.nll_loss(log_p, labels, reduction="sum") - total_kl(model, kl).detach()).item()
