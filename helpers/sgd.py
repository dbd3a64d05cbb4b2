"""The loop that Algorithms 1 and 2 have in common: mini-batch gradient descent that can be watched and resumed.

Each epoch draws its random numbers (the order of the examples, the gates, the perturbations) from a seed made
of the run's seed and the epoch's number. A run that stops and resumes at the last checkpoint therefore sees
the very numbers that it would have seen, with no random state to store.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from operator import index
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers import checkpoints, gates
from helpers.inputs import require_positive
from helpers.seeding import derived, seeded

LearningRate = float | Mapping[int, float]

STEPS_BETWEEN_LOOKS = 20  # reading the loss waits for the device, so it is not read in every step


def schedule(lr: LearningRate, epochs: int) -> dict[int, float]:
    """{epoch: the learning rate from that epoch on}.

    A mapping stands for itself. A number stands for the paper's two stages: that rate for two thirds of the
    epochs (20 of 30, 200 of 300), then a tenth of it.

    Raises
    ------
    ValueError : if a rate is not positive and finite, or no rate is given for epoch 0.
    TypeError : if `lr` is a list.
    """
    if isinstance(lr, list | tuple):
        raise TypeError(f"a learning rate is a number or {{epoch: rate from then on}}, not {lr!r}")
    stages = lr if isinstance(lr, Mapping) else {0: lr, max(1, epochs * 2 // 3): lr / 10}
    stages = {int(start): float(rate) for start, rate in stages.items()}
    if 0 not in stages or not all(0 < rate < math.inf for rate in stages.values()):
        raise ValueError(f"learning rates must be positive and finite and start at epoch 0, not {lr!r}")
    return stages


def descend(
    model: nn.Module,
    batches: Iterable[Any],
    objective: Callable[[Any], Tensor],
    *,
    epochs: int,
    lr: LearningRate,
    seed: int,
    device: torch.device,
    title: str,
    progress: bool = True,
    checkpoint: str | Path | None = None,
    settings: Callable[[], dict] = dict,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    begin: Callable[[int], None] | None = None,
    **hyperparameters: float,
) -> None:
    """Minimise the mean of `objective` over `batches`, by default by SGD, changing `model` in place. Afterwards its modules are
    in the modes in which they were.

    Parameters
    ----------
    batches : iterated once per epoch, with the random numbers of that epoch.
    objective : from a batch to the scalar to be lowered.
    epochs, lr : see `schedule`.
    title : what the progress bar says is going on. It also shows the loss (a running mean) and the rate.
    checkpoint : file written after every epoch and, when it exists already, continued from.
    settings : called if there is a `checkpoint`; whatever, beside the arguments above, makes this run what it is.
    optimizer, hyperparameters : how to descend; of SGD `momentum`, and `weight_decay`, λ in the penalty λ/2 ‖Ω‖².
    begin : called with the number of each epoch, counted from 0, before its first batch.

    Raises
    ------
    FloatingPointError : if the loss is no longer finite. No checkpoint is written from such a state.
    ValueError : if there are no batches or no parameters, `epochs` < 1, `seed` is no whole number from 0 on, or the checkpoint
        is damaged or belongs to another run.
    OSError : if the checkpoint cannot be read or written.
    """
    # NumPy's numbers as Python's: a checkpoint that holds others cannot be read.
    epochs, hyperparameters = index(epochs), {name: float(value) for name, value in hyperparameters.items()}
    require_positive("epochs", epochs)
    if seed is None or index(seed) < 0:
        raise ValueError(f"seed is a whole number from 0 on, so that a run can be repeated, not {seed!r}")
    rates = schedule(lr, epochs)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(
            f"no parameter of the {type(model).__name__} can be trained; model.requires_grad_() lets all of them"
        )
    if coarse := {p.dtype for p in parameters} & {torch.float16, torch.bfloat16}:
        warnings.warn(
            f"the {type(model).__name__} is trained in {' and '.join(map(str, coarse))}, in which small steps are rounded "
            "away: convert the networks with .float() and pass autocast instead, and convert the result.",
            stacklevel=3,
        )
    descent = optimizer(parameters, lr=rates[0], **hyperparameters)
    path, identity, first = None, {}, 0
    if checkpoint is not None:
        path = Path(checkpoint).expanduser()
        identity = checkpoints.plain(
            {
                "epochs": epochs,
                "lr": rates,
                **hyperparameters,
                "seed": seed,
                "parameters": {n: list(v.shape) for n, v in model.state_dict().items() if isinstance(v, Tensor)},
                "trained": [name for name, p in model.named_parameters() if p.requires_grad],
                **settings(),
            }
        )
        if state := checkpoints.load(path, identity, device):
            model.load_state_dict(state["model"])
            first = state["epoch"]
            if first < epochs:
                descent.load_state_dict(state["optimizer"])
        checkpoints.require_writable(path)

    steps = length(batches)
    total, done = (None, 0) if steps is None else (epochs * steps, first * steps)
    with (
        gates.modes_put_back(model),  # also where this is interrupted
        tqdm(total=total, initial=done, desc=title, unit="step", leave=False, disable=not progress) as bar,
    ):
        for epoch in range(first, epochs):
            rate = rates[max(start for start in rates if start <= epoch)]
            for group in descent.param_groups:
                group["lr"] = rate
            if begin is not None:
                begin(epoch)
            shown, step = None, None
            with torch.enable_grad(), seeded(derived(seed, epoch), device):
                for step, batch in enumerate(batches):
                    loss = objective(batch)
                    descent.zero_grad()
                    loss.backward()
                    descent.step()
                    if step % STEPS_BETWEEN_LOOKS == 0:
                        value = finite(loss, epoch, step, rate)
                        shown = value if shown is None else 0.8 * shown + 0.2 * value
                        bar.set_postfix_str(f"epoch {epoch + 1}/{epochs}, loss={shown:.4f}, lr={rate:g}", refresh=False)
                    bar.update()
            if step is None:
                why = (
                    "they can be gone through only once"
                    if epoch > first
                    else "the data set is empty, or smaller than one batch"
                )
                raise ValueError(f"there was no batch in epoch {epoch + 1}: {why}")
            if name := not_finite(model):  # after the last steps, whose losses nobody looked at
                raise FloatingPointError(f"{name!r} became infinite or NaN in epoch {epoch + 1}: {advice(rate)}")
            if path is not None:
                state = {"epoch": epoch + 1, "model": model.state_dict()}
                if epoch + 1 < epochs:  # its momentum is half of the file, and a finished run needs it no more
                    state["optimizer"] = descent.state_dict()
                checkpoints.save(path, identity, state)


def length(batches: Iterable[Any]) -> int | None:
    """Batches per epoch, or ``None`` for a stream that does not know."""
    try:
        return len(batches)
    except TypeError:
        return None


def not_finite(model: nn.Module) -> str | None:
    """The name of a parameter of `model`, or of a statistic of a BatchNorm in it, that holds NaN or infinity, if there is
    one. Other buffers may: masks of attention are made of infinities."""
    statistics = [
        (f"{name}.{key}".lstrip("."), value)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.modules.batchnorm._NormBase)
        for key, value in layer.named_buffers(recurse=False)
    ]
    values = [*model.named_parameters(), *statistics]
    return next((name for name, value in values if not value.isfinite().all()), None)


def finite(loss: Tensor, epoch: int, step: int, rate: float) -> float:
    value = loss.item()
    if math.isfinite(value):
        return value
    if epoch == step == 0:
        raise FloatingPointError(
            f"the loss is {value} in the first step, before any weight was changed: look for extreme values in the inputs, "
            "and whether the loss is made for what the network returns."
        )
    raise FloatingPointError(f"the loss became {value} in epoch {epoch + 1}, step {step + 1}: {advice(rate)}")


def advice(rate: float) -> str:
    return (
        f"the learning rate {rate:g} is probably too large for this network. Lower it, or look for extreme values in the "
        "inputs."
    )
