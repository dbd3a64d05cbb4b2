"""From a gated network f_{Θ,σ} to one prediction: what to do about the gates at test time.

Every predictor takes a network that returns logits [N, K] and inputs [N, ...], and returns probabilities
[N, K] on the inputs' device. The network's modes, parameters and buffers are left as they were, and no
gradient is recorded. `output` turns what the network returns into the predictions that are averaged; it is
the softmax unless the network already returns probabilities, or is a regression (``output=lambda z: z``).
Inputs are worked through `batch_size` examples at a time: a small batch stays in the processor's cache.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from helpers import gates, moments
from helpers.seeding import seeded

Output = Callable[[Tensor], Tensor]

BATCH = 64
MAX_GATES = 20


def softmax(logits: Tensor) -> Tensor:
    """Probabilities from logits: [..., K] -> [..., K]."""
    return logits.softmax(-1)


def standard(model: nn.Module, x: Tensor, *, output: Output = softmax, batch_size: int = BATCH) -> Tensor:
    """Weight scaling: one deterministic pass (Rota Bulò et al. 2016, section 3.1).

    The gates are inverted, so the weights are already scaled and this is the network in eval mode.

    Parameters
    ----------
    model : network returning logits [N, K]; it need not have dropout in it.
    x : inputs [N, ...].

    Returns
    -------
    Probabilities [N, K].

    Raises
    ------
    ValueError : if `x` is empty or holds NaN or infinity.
    """
    with gates.deterministic(model):
        return in_batches(lambda batch: output(model(batch)), model, x, batch_size)


def monte_carlo(
    model: nn.Module,
    x: Tensor,
    m: int = 100,
    seed: int | None = None,
    *,
    output: Output = softmax,
    batch_size: int = BATCH,
) -> Tensor:
    """Monte Carlo dropout: the mean of `m` gated passes (Rota Bulò et al. 2016, eq. 4).

    Each example gets masks of its own in each pass. The mean is accumulated: memory does not grow with `m`. Of an
    `nn.Sequential`, what comes before the first dropout layer runs once, not `m` times.

    Parameters
    ----------
    model : network with dropout in it, returning logits [N, K].
    x : inputs [N, ...].
    m : number of masks; the error falls as 1/√m.
    seed : makes the masks repeatable (on one machine, for one `batch_size`), leaving PyTorch's global random
        state alone; ``None`` draws from that state.

    Returns
    -------
    Probabilities [N, K].

    Raises
    ------
    ValueError : if `model` has no stochastic layer, `m` < 1, or `x` is empty or holds NaN or infinity.
    """

    prefix, gated = gates.split(model)

    def mean(batch: Tensor) -> Tensor:
        h = prefix(batch)
        return running_sum(lambda: output(gated(h.clone())), m) / m

    require_positive("the number of masks m", m)
    with gates.sampling(model), seeded(seed, device_of(model)):
        return in_batches(mean, model, x, batch_size)


def geometric(
    model: nn.Module,
    x: Tensor,
    m: int = 100,
    seed: int | None = None,
    *,
    output: Output = softmax,
    batch_size: int = BATCH,
) -> Tensor:
    """The renormalised geometric mean of `m` gated passes (Goodfellow et al. 2016, eqs. 7.54 and 7.55).

    Parameters, returns, raises: as `monte_carlo`.
    """

    prefix, gated = gates.split(model)

    def mean(batch: Tensor) -> Tensor:
        h = prefix(batch)
        return (running_sum(lambda: log(output, gated(h.clone())), m) / m).softmax(-1)  # exp, and divided by its sum

    require_positive("the number of masks m", m)
    with gates.sampling(model), seeded(seed, device_of(model)):
        return in_batches(mean, model, x, batch_size)


def exact(
    model: nn.Module,
    x: Tensor,
    mean: str = "arithmetic",
    *,
    output: Output = softmax,
    batch_size: int = 2**14,
) -> Tensor:
    """The ideal predictor itself: all 2^n masks, each weighted by its probability (Rota Bulò et al. 2016, eq. 3).

    Parameters
    ----------
    model : network whose stochastic layers are `nn.Dropout`, `nn.Dropout1d/2d/3d` and `DropConnect`, with at most
        `MAX_GATES` gates (units, channels or connections) in all, at any rates, returning logits [N, K].
    x : inputs [N, ...].
    mean : "arithmetic" for the ideal predictor E_σ[f_{Θ,σ}(x)], or "geometric" for the renormalised
        geometric mean exp E_σ[log f_{Θ,σ}(x)] / Z (Goodfellow et al. 2016, eqs. 7.54 and 7.55).
    batch_size : pairs of an example and a mask that go through the network together.

    Returns
    -------
    Probabilities [N, K]. The sum over masks is taken in float64.

    Raises
    ------
    ValueError : if there are no gates or too many, if one layer is used twice in a pass, if `mean` is
        neither of the two, or if `x` is empty or holds NaN or infinity.
    TypeError : if the gates of a stochastic layer cannot be set (attention and recurrent layers).
    """
    if mean not in ("arithmetic", "geometric"):
        raise ValueError(f'mean is "arithmetic" or "geometric", not {mean!r}')
    require_finite(x)
    layers = gates.require_stochastic_layers(model)
    shapes = gates.gate_shapes(model, x[:1].to(device_of(model)))
    n = sum(shape.numel() for shape in shapes.values())
    if n > MAX_GATES:
        raise ValueError(
            f"{n} gates form 2^{n} masks, too many to enumerate (the limit is {MAX_GATES} gates): "
            "use monte_carlo with a large m, or a smaller network."
        )
    transform = output if mean == "arithmetic" else partial(log, output)
    prefix, gated = gates.split(model)

    def expectation(batch: Tensor) -> Tensor:
        with gates.deterministic(model):
            h = prefix(batch)
        total, chunk = 0.0, max(1, batch_size // len(batch))
        for start in range(0, 2**n, chunk):
            masks, weights = gates.enumerated(layers, shapes, start, min(start + chunk, 2**n))
            masks = {name: mask.repeat_interleave(len(batch), 0) for name, mask in masks.items()}
            with gates.fixed(model, masks):
                f = transform(gated(h.repeat(len(weights), *[1] * (h.ndim - 1))))
            f_by_mask = f.reshape(len(weights), len(batch), *f.shape[1:]).double()
            total = total + torch.tensordot(weights.to(f.device), f_by_mask, 1)
        return (total if mean == "arithmetic" else total.softmax(-1)).to(f.dtype)

    return in_batches(expectation, model, x, batch_size)


def fast_dropout(model: nn.Module, x: Tensor, *, batch_size: int = BATCH) -> Tensor:
    """Fast dropout: one pass that carries the mean and variance of every unit (Wang & Manning 2013).

    What enters a unit is taken for Gaussian and the units of a layer for independent; the softmax of the Gaussian logits
    is averaged over a few fixed points. See `helpers.moments`.

    Parameters
    ----------
    model : `nn.Sequential` that ends in `nn.Linear` and returns logits [N, K]; after its first gate it may have
        `nn.Linear`, `nn.Conv2d`, `nn.Dropout`, `nn.ReLU` and `nn.Flatten`.
    x : inputs [N, ...].

    Returns
    -------
    Probabilities [N, K].

    Raises
    ------
    TypeError : for any other layer after the first gate.
    ValueError : if `model` has no stochastic layer, or `x` is empty or holds NaN or infinity.
    """
    with gates.deterministic(model):
        return in_batches(
            lambda batch: moments.expected_softmax(*moments.logit_moments(model, batch)), model, x, batch_size
        )


def running_sum(draw: Callable[[], Tensor], m: int) -> Tensor:
    """The sum of `m` draws, of which no two are kept."""
    total = draw()
    for _ in range(m - 1):
        total = total + draw()
    return total


def log(output: Output, logits: Tensor) -> Tensor:
    """log(output(logits)), which for the softmax never underflows."""
    return logits.log_softmax(-1) if output is softmax else output(logits).log()


def in_batches(predict: Output, model: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    """`predict` of each `batch_size` rows of `x` on the model's device; the results as one tensor, on x's."""
    require_finite(x)
    device = device_of(model)
    with torch.no_grad():
        # Copies, since a network may work in place on what it is given.
        results = [predict(batch.to(device, copy=True)).to(x.device) for batch in x.split(batch_size)]
    return torch.cat(results)


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of `model` are; the CPU for a model without parameters."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def require_finite(x: Tensor) -> None:
    if len(x) == 0:
        raise ValueError("there are no examples: the first dimension of the inputs is 0")
    if x.is_floating_point() and not x.isfinite().all():
        bad = (~x.isfinite()).flatten(1).any(1).sum() if x.ndim > 1 else (~x.isfinite()).sum()
        raise ValueError(f"{bad} of the {len(x)} inputs hold NaN or infinity; remove or repair them first")


def require_positive(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name} must be at least 1, not {count}")
