"""Fast dropout: the mean and variance of every unit over all masks, in one pass (Wang & Manning 2013).

What enters a unit is a sum of many independently gated terms, so it is nearly Gaussian, and two numbers say all about
it. They go through each layer in closed form, exactly

    dropout + linear   where the inputs are independent of each other, whatever their distribution;
    ReLU               where its input is Gaussian;

and approximately elsewhere: units of one layer, which share the gates below them, are treated as independent.
"""

import math
from collections.abc import Iterator
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from helpers import gates
from helpers.functional import is_modified

Moments = tuple[Tensor, Tensor]

# What PyTorch puts before a layer to compute its weight, pruned or normalised, from other parameters.
OF_WEIGHTS = (prune.BasePruningMethod, SpectralNorm, WeightNorm)

FAR = 40.0  # standard deviations from zero at which the density underflows, also in float64


def logit_moments(model: nn.Module, x: Tensor) -> Moments:
    """Mean and covariance over all masks of the logits of `model` (Wang & Manning 2013, section 3).

    All logits share the gates of the layer below them. Their covariance is kept, since the softmax depends on their
    differences alone.

    Parameters
    ----------
    model : `nn.Sequential` that ends in `nn.Linear`. Before the first gate any layer may stand, after it `nn.Linear`,
        `nn.Conv2d`, `nn.Dropout`, `nn.ReLU` and `nn.Flatten`.
    x : inputs [N, ...], known exactly.

    Returns
    -------
    mean [N, K], covariance [N, K, K].

    Raises
    ------
    TypeError : for any other layer after the first gate, by its name.
    ValueError : if `model` has no stochastic layer.
    """
    gates.require_stochastic_layers(model)
    *hidden, (last_name, last) = unnested(model)
    mean, var = x, None
    for name, layer in hidden:
        if var is None and not any(map(gates.is_stochastic, layer.modules())):
            mean = layer(mean)
        else:
            mean, var = through(name, layer, mean, torch.zeros_like(mean) if var is None else var)
    if type(last).forward is not nn.Linear.forward or is_modified(last, but=OF_WEIGHTS):
        raise no_closed_form(last_name, last)
    logits = last(mean)  # first, as in `through`
    return logits, (last.weight * var.unsqueeze(-2)) @ last.weight.T


def through(name: str, layer: nn.Module, mean: Tensor, var: Tensor) -> Moments:
    """Means and variances [N, ...] of what leaves `layer`, from those of what enters it."""
    if is_modified(layer, but=OF_WEIGHTS):  # what is called may make anything of a mean, and nothing of a variance
        raise no_closed_form(name, layer)
    match type(layer).forward:  # rather than its type: subclasses may add something, such as gates
        # Variances go through the same layer with squared weights and no bias. The mean goes first: it is what computes
        # the weight of a layer that is pruned or normalised.
        case nn.Linear.forward:
            return layer(mean), F.linear(var, layer.weight.square())
        case nn.Conv2d.forward:
            return layer(mean), layer._conv_forward(var, layer.weight.square(), None)
        case nn.Dropout.forward:
            return dropped(mean, var, layer.p)
        case nn.ReLU.forward:
            return rectified(mean, var)
        case nn.Flatten.forward | nn.Identity.forward:
            return layer(mean), layer(var)
    raise no_closed_form(name, layer)


def no_closed_form(name: str, layer: nn.Module) -> TypeError:
    which = f"{name!r}, {type(layer).__name__}" if name else type(layer).__name__
    return TypeError(
        f"fast dropout has no closed form for {which}. It takes an nn.Sequential that ends in nn.Linear and has, after "
        "its first gate, nothing but nn.Linear, nn.Conv2d, nn.Dropout, nn.ReLU and nn.Flatten, or subclasses of these that "
        "inherit forward, without hooks: a forward of their own, or a hook, may compute anything. Use monte_carlo instead."
    )


def dropped(mean: Tensor, var: Tensor, p: float) -> Moments:
    """Moments of x σ / (1 - p) with a gate σ that is 0 with probability p: [...] -> [...], [...]."""
    if p == 1:
        return torch.zeros_like(mean), torch.zeros_like(var)
    return mean, (var + p * mean.square()) / (1 - p)  # E[x²]/(1 - p) - E[x]²


def rectified(mean: Tensor, var: Tensor) -> Moments:
    """Moments of max(0, z) for z ~ N(mean, var): [...] -> [...], [...] (Wang & Manning 2013, section 4)."""
    s = var.clamp_min(torch.finfo(var.dtype).tiny).sqrt()
    u = (mean / s).clamp(-FAR, FAR)
    above, below = torch.special.ndtr(u), torch.special.ndtr(-u)
    density = (-u.square() / 2).exp() / math.sqrt(2 * math.pi)
    # E[max(0, z)²] - E[max(0, z)]² in units of s², in an order that does not subtract large numbers from each other.
    share = above + u.square() * above * below + u * density * (below - above) - density.square()
    return (mean * above + s * density).clamp_min(0), var * share.clamp_min(0)


def expected_softmax(mean: Tensor, covariance: Tensor) -> Tensor:
    """E[softmax(z)] for Gaussian z, as the mean over a few fixed points instead of random ones.

    Closed forms that shrink the logits, like sigmoid(d) -> sigmoid(d / √(1 + π/8 Var d)) for two classes (MacKay 1992),
    do little for ten: with equal means, they leave equal probabilities where the class that varies most should gain.
    Here 2n normal points are evenly spread and come in pairs ε, -ε with E[ε εᵀ] = 1, so that what is linear, quadratic
    or cubic in z has its exact mean: the answer is exact to third order in the deviations of z.

    Parameters
    ----------
    mean : [N, K].
    covariance : [N, K, K], which may be singular.

    Returns
    -------
    Probabilities [N, K], in float32 at least.
    """
    dtype = torch.promote_types(mean.dtype, torch.float32)  # there are no eigenvectors in half precision
    mean, covariance = mean.to(dtype), covariance.to(dtype)
    variances, directions = torch.linalg.eigh(covariance)
    root = directions * variances.clamp_min(0).sqrt().unsqueeze(-2)
    z = mean.unsqueeze(-2) + normal_points(mean.shape[-1]).to(mean) @ root.mT
    return z.softmax(-1).mean(-2)


@cache
def normal_points(k: int) -> Tensor:
    """2n points [2n, k], float64, with mean 0 and covariance 1: a Sobol sequence turned normal, and its mirror image;
    n is 64, or 2k for many classes."""
    n = max(64, 2 * k)
    uniform = torch.quasirandom.SobolEngine(k).draw(n + 1, dtype=torch.float64)[1:]  # the first is 0, a normal's -∞
    half = torch.special.ndtri(uniform)
    whiten = torch.linalg.cholesky(half.T @ half / n)
    half = torch.linalg.solve_triangular(whiten.T, half, upper=True, left=False)
    return torch.cat([half, -half])


def unnested(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Names and layers of an `nn.Sequential` in order, with the layers of sequences inside it in their place, unless they are
    modified."""
    if type(model).forward is not nn.Sequential.forward or is_modified(model):
        yield name, model
        return
    for child, layer in model._modules.items():  # named_children() leaves out the second use of a layer
        yield from unnested(layer, f"{name}.{child}" if name else child)
