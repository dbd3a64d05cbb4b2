"""From a gated network f_{Θ,σ} to one prediction: what to do about the gates at test time.

Every predictor takes a network that returns logits [N, K] and inputs [N, ...], and returns probabilities [N, K] on the
inputs' device. Examples come first in both, and classes last: a network that makes T predictions of each example
returns [N, T, K], and a recurrent one is made with ``batch_first=True``. The network's modes, parameters and buffers
are left as they were (but for what its own code changes in eval mode), and no gradient is recorded. While a predictor
works, the network is not for other threads. `output` turns what the network returns into the predictions that are
averaged; it is the softmax unless the network already returns probabilities, or is a regression
(``output=lambda z: z``). Inputs are worked through `batch_size` examples at a time: a small batch stays in the
processor's cache. A network of several inputs gets them as a tuple of tensors, for ``model(a, b)``, or as a dictionary,
for ``model(name=a, other=b)``. Inputs of another type of number than the network computes with are a TypeError, and so
is a network that returns no tensor, unless `output` takes one out of what it returns. Predictions that are not one for
each example are a ValueError. Where those of Monte Carlo depend on how the examples are split into batches, a UserWarning
tells.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from helpers import gates, moments, prefix, thinned
from helpers.draws import require_draws
from helpers.folding import same
from helpers.halves import whole
from helpers.inputs import Inputs, call, device_of, each, parts, require_finite, require_positive, size, split
from helpers.seeding import seeded

Output = Callable[[Tensor], Tensor]

EXAMPLES_APART = (
    "Examples are taken from the first dimension: recurrent layers and transformers need batch_first=True, and a graph is one "
    "example, x[None]."
)
BATCH = 64
MAX_GATES = 20
FEW_CLASSES = 50


def softmax(logits: Tensor) -> Tensor:
    """Probabilities from logits: [..., K] -> [..., K].

    Written out for few classes, where PyTorch's own takes four times as long on a processor.
    """
    if logits.shape[-1] > FEW_CLASSES:
        return logits.softmax(-1)
    e = (logits - logits.detach().amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def standard(model: nn.Module, x: Tensor, *, output: Output = softmax, batch_size: int = BATCH) -> Tensor:
    """Weight scaling: one deterministic pass (Rota Bulò et al. 2016, section 3.1).

    The gates are inverted, so the weights are already scaled and this is the network in eval mode. (One that calls
    `F.dropout` without `self.training` drops in eval mode, too: what it returns is one of its gated passes.)

    Parameters
    ----------
    model : network returning logits [N, K]; it need not have dropout in it.
    x : inputs [N, ...].

    Returns
    -------
    Probabilities [N, K].

    Raises
    ------
    ValueError : if `x` is empty or holds NaN or infinity, or `output` is the softmax and `model` returns no logits.
    """

    def predict(batch: Inputs) -> Tensor:
        z = call(model, batch)
        require_logits(z, output)
        return full_precision(output(full_precision(z)))

    with gates.deterministic(model), explained(model, x):
        return in_batches(predict, model, x, batch_size)


def monte_carlo(
    model: nn.Module,
    x: Tensor,
    m: int = 100,
    seed: int | None = None,
    *,
    output: Output = softmax,
    batch_size: int = BATCH,
    shared_masks: bool = False,
) -> Tensor:
    """Monte Carlo dropout: the mean of `m` gated passes (Rota Bulò et al. 2016, eq. 4).

    Each example gets masks of its own in each pass. The mean is accumulated: memory does not grow with `m`. What no gate
    reaches in the network runs once, not `m` times, and where the rest is small, several masks share a pass
    (`helpers.halves`). To find out, each call tries the network, and a copy of it, on two examples: many examples in one
    call take far less time than one by one.

    Parameters
    ----------
    model : network with dropout in it, returning logits [N, K].
    x : inputs [N, ...].
    m : number of masks; the error falls as 1/√m.
    seed : makes masks that PyTorch draws repeatable (on one machine, for one `batch_size`), leaving its global random
        state alone; ``None`` draws from that state.
    shared_masks : one mask per pass for all examples, so that dropped units need not be computed (`helpers.thinned`); for
        networks that after their first gate have nothing but `nn.Dropout`, `nn.Linear` and activations. For each example
        alone the average has the same distribution. But the examples' errors are no longer independent: they are all
        off in the same direction, and what is averaged over examples keeps the error of `m` masks, however many they are.

    Returns
    -------
    Probabilities [N, K].

    Raises
    ------
    ValueError : if `model` has no stochastic layer, or code that might drop and never does; if `m` < 1; if `x` is empty
        or holds NaN or infinity; if `output` is the softmax and `model` returns no logits.
    TypeError : if masks cannot be shared in `model`.
    """
    if shared_masks:
        return over_thinned_networks(model, x, m, seed, output, batch_size)
    return over_masks(model, x, m, seed, output, batch_size, transform=output)


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

    Parameters, returns, raises: as `monte_carlo`; and a ValueError if `output` returns no distributions over classes.
    """
    log_output = partial(log, output)
    return over_masks(model, x, m, seed, output, batch_size, transform=log_output, finish=softmax)


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
    ValueError : if there are no gates or too many, if one layer is used twice in a pass, if what becomes of an example
        depends on the others in its batch; if `mean` is neither of the two, if `x` is empty or holds NaN or infinity; if
        `output` is the softmax and `model` returns no logits, or `mean` is "geometric" and `output` returns no
        distributions over classes.
    TypeError : if the gates of a stochastic layer cannot be set (attention and recurrent layers).
    """
    if mean not in ("arithmetic", "geometric"):
        raise ValueError(f'mean is "arithmetic" or "geometric", not {mean!r}')
    require_finite(x)
    layers = gates.require_stochastic_layers(model)
    with explained(model, x):
        shapes = gates.gate_shapes(model, first_batch(model, x, 1))
    n = sum(shape.numel() for shape in shapes.values())
    if n > MAX_GATES:
        raise ValueError(
            f"{n} gates form 2^{n} masks, too many to enumerate (the limit is {MAX_GATES} gates): "
            "use monte_carlo with a large m, or a smaller network."
        )
    transform = output if mean == "arithmetic" else partial(log, output)
    with gates.sampling(model):
        halves = prefix.halved(model, first_batch(model, x, 1))
    require_rows_apart(model, x, shapes, output)
    if not halves.folds:
        halves = whole(model)

    def expectation(batch: Inputs) -> Tensor:
        with gates.deterministic(model):
            values = halves.before(batch)
        total, chunk, rows = 0.0, max(1, batch_size // size(batch)), size(batch)
        for start in range(0, 2**n, chunk):
            masks, weights = gates.enumerated(layers, shapes, start, min(start + chunk, 2**n))
            masks = {name: mask.repeat_interleave(rows, 0) for name, mask in masks.items()}
            with gates.fixed(model, masks):
                z = halves.after(*halves.copies(values, len(weights)))
            if start == 0:
                require_logits(z, output)
            f = transform(full_precision(z))
            f_by_mask = f.reshape(len(weights), rows, *f.shape[1:]).double()
            total = total + torch.tensordot(weights.to(f.device), f_by_mask, 1)
        return (total if mean == "arithmetic" else total.softmax(-1)).to(f.dtype)

    return in_batches(expectation, model, x, min(batch_size, BATCH))


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
    ValueError : if `model` has no stochastic layer or returns no logits, or `x` is empty or holds NaN or infinity.
    """

    def predict(batch: Tensor) -> Tensor:
        mean, covariance = moments.logit_moments(model, batch)
        if mean.shape[-1] == 1:
            raise ValueError(
                "the network returns one number per example, and fast_dropout averages a softmax: use monte_carlo with "
                "output=torch.sigmoid."
            )
        require_logits(mean, softmax)
        return moments.expected_softmax(mean, covariance)

    with gates.deterministic(model), explained(model, x):
        return in_batches(predict, model, x, batch_size)


def over_masks(
    model: nn.Module,
    x: Inputs,
    m: int,
    seed: int | None,
    output: Output,
    batch_size: int,
    *,
    transform: Output,
    finish: Output = lambda mean: mean,
) -> Tensor:
    """`finish` of the mean over `m` masks of `transform`, summed up pass by pass."""
    require_positive("the number of masks m", m)
    require_finite(x)
    first = first_batch(model, x, batch_size)
    with gates.sampling(model), seeded(seed, device_of(model)), explained(model, x):
        require_draws(model, first, partial(predictions, output))
        if size(x) > batch_size and mixes(model, x):
            warnings.warn(
                f"What {type(model).__name__} makes of an example depends on the others in its batch, and {batch_size} at a time "
                f"are in one. {EXAMPLES_APART} Where it is meant to be so, pass all in one batch, with batch_size=len(x).",
                stacklevel=3,
            )
        halves = prefix.halved(model, first)

        def mean(batch: Inputs) -> Tensor:
            values, n, total = halves.before(batch), size(batch), None
            for masks in halves.rounds(values, m):
                z = halves.passes(values, masks)
                if total is None:
                    require_logits(z, output)
                q = full_precision(transform(full_precision(z)))
                if total is None:
                    require_examples_first(q, masks * n)
                added = q.unflatten(0, (masks, n)).sum(0)
                total = added if total is None else total + added
            return finish(total / m)

        return in_batches(mean, model, x, batch_size)


def over_thinned_networks(
    model: nn.Module, x: Inputs, m: int, seed: int | None, output: Output, batch_size: int
) -> Tensor:
    """The mean over `m` masks of `output`, each of which all examples meet."""
    require_positive("the number of masks m", m)
    require_finite(x)
    with gates.sampling(model), seeded(seed, device_of(model)), explained(model, x):
        halves = prefix.halved(model, first_batch(model, x, batch_size))
        thinned.require_thinnable(halves.layers)
        h = in_batches(lambda batch: halves.before(batch)[0], model, x, batch_size).to(device_of(model))
        with torch.no_grad():
            passes = thinned.passes(halves.layers, h)
            first = next(passes)
            require_logits(first, output)
            total = full_precision(output(full_precision(first)))
            for z in islice(passes, m - 1):
                total = total + full_precision(output(full_precision(z)))
    return (total / m).to(parts(x)[0].device)


def require_rows_apart(model: nn.Module, x: Inputs, shapes: Mapping[str, torch.Size], output: Output) -> None:
    """Raise ValueError if what `model` makes of an example under one mask depends on what else is in the batch."""
    two = first_batch(model, x, 2)
    masks = {name: torch.stack([torch.zeros(shape), torch.ones(shape)]) for name, shape in shapes.items()}

    def under(*pairs: tuple[int, int]) -> Tensor:
        examples, chosen = map(list, zip(*pairs, strict=True))
        with gates.fixed(model, {name: mask[chosen] for name, mask in masks.items()}), torch.no_grad():
            q = predictions(output, call(model, each(lambda part: part[examples], two)))
            require_examples_first(q, len(examples))
            return q

    first, last = (0, 0), (size(two) - 1, 1)  # example and mask
    if not same(under(first, last), torch.cat([under(first), under(last)])):
        raise ValueError(
            f"what {type(model).__name__} makes of an example depends on the rest of its batch, as with a BatchNorm that keeps "
            "no statistics, so that its masks cannot be taken one by one. Use monte_carlo with a large m."
        )


def log(output: Output, logits: Tensor) -> Tensor:
    """log(output(logits)), which for the softmax never underflows.

    Raises
    ------
    ValueError : if `output` returns anything but distributions over two classes or more: no geometric mean of other
        numbers can be renormalised.
    """
    if output is softmax:
        return logits.log_softmax(-1)
    q = output(logits)
    if q.ndim < 2 or q.shape[-1] == 1 or not sums_to_one(q, -1):
        raise ValueError(
            f"the geometric mean is renormalised over the classes, and `output` returns {list(q.shape)} that do not sum to "
            "one over two classes or more. Of a sigmoid take both: lambda z: torch.cat([z.sigmoid(), (-z).sigmoid()], -1)."
        )
    return q.log()


def sums_to_one(q: Tensor, dim: int) -> bool:
    return bool(((q.sum(dim) - 1).abs() < 0.01).all())  # as near as bfloat16 comes


def in_batches(predict: Callable[[Inputs], Tensor], model: nn.Module, x: Inputs, batch_size: int) -> Tensor:
    """`predict` of each `batch_size` rows of `x` on the model's device; the results as one tensor, on x's."""
    require_finite(x)
    device, home = device_of(model), parts(x)[0].device
    with torch.no_grad():
        # Copies, since a network may work in place on what it is given.
        batches = (each(lambda part: part.to(device, copy=True), batch) for batch in split(x, batch_size))
        found = []
        for batch in batches:
            q = predict(batch)
            require_examples_first(q, size(batch))
            found.append(q.to(home))
        return torch.cat(found)


def mixes(model: nn.Module, x: Inputs) -> bool:
    """Whether what `model` makes of an example without gates depends on the other in a batch of two."""
    last, device = size(x) - 1, device_of(model)

    def second_of(*rows: int) -> list[Tensor]:
        pair = each(lambda part: part[list(rows)].to(device), x)
        with torch.no_grad(), gates.deterministic(model), gates.uncompiled(), seeded(0, device):
            found = tree_leaves(call(model, pair))
        return [part[1] for part in found if isinstance(part, Tensor) and part.ndim and len(part) == 2]

    with suppress(Exception):  # the passes that are wanted will say what is wrong, if they fail too
        return not same(second_of(0, last), second_of(last, last))
    return False


def first_batch(model: nn.Module, x: Inputs, batch_size: int) -> Inputs:
    """A copy of the first examples of `x`, on the device of `model`, which may work in place on it."""
    return each(lambda part: part.to(device_of(model), copy=True), next(split(x, batch_size)))


def full_precision(z: Any) -> Any:
    """A tensor as float32 if it is coarser, so that a mean over many masks is no coarser than one of them. Whatever else a
    network returns stays as it is, for `output` to take the tensor out of it."""
    return z.float() if isinstance(z, Tensor) and z.dtype in (torch.float16, torch.bfloat16) else z


def require_logits(z: Any, output: Output) -> None:
    """
    Raises
    ------
    TypeError : if `output` is the softmax and `z` no tensor.
    ValueError : if `output` is the softmax and `z` [N, K] can be no logits: probabilities already, one number each, or
        images, whose classes are not in the last dimension.
    """
    if output is not softmax:
        return
    if not isinstance(z, Tensor) or not z.is_floating_point():
        kind = z.dtype if isinstance(z, Tensor) else type(z).__name__
        raise TypeError(
            f"the network returns a {kind}, not logits [N, K]: say with `output` where they are in it, for example "
            "output=lambda found: predictors.softmax(found['logits'])."
        )
    if z.ndim < 2 or z.shape[-1] == 1:
        alone = " If `x` is one example, give it the first dimension of a batch: x[None]." if z.ndim < 2 else ""
        raise ValueError(
            "the network returns one number per example, of which the softmax is always 1: pass output=torch.sigmoid and "
            f"a loss for that (output=lambda p: p if it ends in a sigmoid), or output=lambda z: z for a regression.{alone}"
        )
    if z.ndim > 3:
        raise ValueError(
            f"the network returns {list(z.shape)}, of which the softmax would be taken over the last dimension: say with "
            "`output` where the classes are, for example output=lambda z: predictors.softmax(z.movedim(1, -1))."
        )
    # What bfloat16 may be off by, a single row of logits is by chance: of one row the sum has to be as near as rounding leaves it.
    coarse = (0.5 if z.numel() == z.shape[-1] else 2) * torch.finfo(z.dtype).eps
    rounding = max(coarse, 20 * torch.finfo(torch.float32).eps)
    if (z >= 0).all() and ((z.float().sum(-1) - 1).abs() < rounding).all():
        raise ValueError(
            "the network returns probabilities (numbers that are not negative and sum to one) where logits are expected, "
            "so that the softmax would be taken twice: pass output=lambda p: p."
        )


def require_examples_first(q: Tensor, n: int) -> None:
    """Raise ValueError unless predictions `q` have `n` rows, one for each example."""
    if q.ndim == 0 or len(q) != n:
        raise ValueError(
            f"the network's predictions of some examples are {list(q.shape)}, and the first dimension has to be the examples, "
            "there as in the inputs: recurrent layers and transformers need batch_first=True, and neither .view(-1, K) nor "
            ".squeeze() may take that dimension away (.squeeze(-1) does not)."
        )


def predictions(output: Output, z: Any) -> Tensor:
    """`output` of what a network returns, after `require_logits`."""
    require_logits(z, output)
    return output(z)


@contextmanager
def explained(model: nn.Module, x: Inputs) -> Iterator[None]:
    """Says so where inputs of one type of number failed in a network of another, or a network wants more inputs."""
    try:
        yield
    except TypeError as error:
        if "missing" in str(error) and "positional argument" in str(error):
            error.add_note(
                "A network of several inputs gets them as a tuple or a dictionary of tensors; from a DataLoader or Dataset as "
                "((a, b),) or {'name': a, 'other': b}, since of (a, b) the second, if it has one number per example, is taken "
                "for labels."
            )
        raise
    except RuntimeError as error:
        known = {parameter.dtype for parameter in model.parameters()}
        found = {part.dtype for part in parts(x)} - known
        of_types = "type" in str(error)  # other numbers may be right, for an embedding say, and fail for another reason
        if known and found and of_types:
            names = [", ".join(sorted(str(dtype) for dtype in dtypes)) for dtypes in (found, known)]
            raise TypeError(
                f"the inputs are {names[0]} and the network's parameters {names[1]}; convert one of them, "
                "for example with x.float()"
            ) from error
        raise
