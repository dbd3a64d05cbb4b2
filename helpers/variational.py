"""Sparse variational dropout: a dropout rate for every weight, learned; what it wants dropped can be removed for good.

Each weight w has a Gaussian posterior q(w) = N(θ, σ²) in place of a value. Its rate is α = σ² / θ²: the variance of
Gaussian dropout's multiplicative noise, p / (1 - p) for a gate of rate p. The prior is uniform on a logarithmic scale.

Source: Molchanov, Ashukha, Vetrov 2017, "Variational Dropout Sparsifies Deep Neural Networks".
"""

import copy
import math
import warnings
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.functional import is_modified
from helpers.masks import laid_out_like

LIMIT = 8.0  # log α is clipped to ±8: beyond that the divergence is flat or its approximation has nothing to say
THRESHOLD = 3.0  # of log α, from which on a weight is removed: 95 of 100 times a gate of that rate would drop it
SMALL = 1e-8  # added to the variance of a sum, whose square root has no derivative at zero

# ---- the divergence -------------------------------------------------------------------------------------------------


def kl(log_alpha: Tensor) -> Tensor:
    """KL(q(w) ‖ p(w)) of each weight from its log α, in nats: positive, and zero in the limit α → ∞ (eq. 14).

    With the published constants it is within 0.01 of the true value for any α.
    """
    k1, k2, k3 = 0.63576, 1.87320, 1.48695
    return k1 * torch.sigmoid(-k2 - k3 * log_alpha) + 0.5 * F.softplus(-log_alpha)


def kl_cubic(log_alpha: Tensor) -> Tensor:
    """The approximation of Kingma, Salimans and Welling 2015 for α ≤ 1, on the scale of `kl`."""
    c1, c2, c3 = 1.16145124, -1.50204118, 0.58629921
    alpha = log_alpha.exp()
    return LEVEL - 0.5 * log_alpha - c1 * alpha - c2 * alpha**2 - c3 * alpha**3


def kl_bound(log_alpha: Tensor) -> Tensor:
    """What Kingma, Salimans and Welling 2015 offer besides, the upper bound -½ log α, on the scale of `kl`.

    It leaves out E log|ε| of eq. 13, and is a bound as long as that is negative: up to log α = 0.88.
    """
    return LEVEL - 0.5 * log_alpha


def kl_exact(log_alpha: Tensor) -> Tensor:
    """The true divergence, to about 1e-10, in float64: slow, and without a gradient.

    ε²/α with ε ~ N(1, α) has the noncentral χ² law, a Poisson mixture of χ² laws with 2j + 1 degrees of freedom:
    E log(ε²/α) = log 2 + Σ_j Poisson(j; 1/(2α)) ψ(j + ½). Only a window of j about the mixture's mean has any weight.
    """
    mean = 0.5 * torch.exp(-log_alpha.detach().double())[..., None]
    window = math.ceil(10 * math.sqrt(mean.max().item()) + 60)
    j = (mean.floor() + torch.arange(-window, window + 1, device=mean.device)).clamp_min(-1)
    weight = torch.where(j >= 0, torch.exp(j * mean.log() - mean - torch.lgamma(j + 1)), 0.0)
    return 0.5 * (weight * torch.digamma(j.clamp_min(0) + 0.5)).sum(-1) + 0.5 * math.log(2) + LEVEL


# The constant of eq. 13 with which the true divergence vanishes as α → ∞: half of Euler's γ + log 2.
LEVEL = 0.5 * (0.57721566490153286 + math.log(2))

# ---- the layers -----------------------------------------------------------------------------------------------------


class Variational(nn.Module):
    """What variational layers share: weights with a posterior N(θ, σ²), parametrised by θ and log σ² (eq. 12).

    In training mode it draws what comes out of the sum instead of the weights that go into it (eqs. 17 and 18): the mean
    and variance are those of sampled weights, and every example has noise of its own. In eval mode the weights are θ.

    Parameters
    ----------
    layer : the plain layer that it takes the place of. Its weight becomes θ; weight and bias are shared with it.
    log_sigma2 : first value of log σ², for all weights.

    Attributes
    ----------
    weight, log_sigma2 : θ and log σ² of each weight; `bias` has no noise.
    noisy : whether there is noise in training mode; `gates.remove` sets it to False.
    """

    def __init__(self, layer: nn.Module, log_sigma2: float = -10.0):
        super().__init__()
        self.weight, self.bias, self.noisy = layer.weight, layer.bias, True
        self.log_sigma2 = nn.Parameter(torch.full_like(layer.weight, log_sigma2))
        self.train(layer.training)

    @property
    def log_alpha(self) -> Tensor:
        """log α = log σ² - log θ² of each weight, clipped to ±`LIMIT`."""
        tiny = torch.finfo(self.weight.dtype).tiny  # where θ = 0: α is at its limit and has no gradient
        return (self.log_sigma2 - 2 * self.weight.abs().clamp_min(tiny).log()).clamp(-LIMIT, LIMIT)

    @property
    def sigma2(self) -> Tensor:
        return self.log_sigma2.exp()

    def forward(self, input: Tensor) -> Tensor:
        mean = self.through(input, self.weight, self.bias)
        if not (self.training and self.noisy):
            return mean
        variance = self.through(input.square(), self.sigma2, None)
        # Drawn as one row: with channels last in memory, as convolutions have them, randn_like takes ten times as long.
        noise = torch.randn(mean.numel(), dtype=mean.dtype, device=mean.device)
        return mean + (variance + SMALL).sqrt() * laid_out_like(mean, noise)

    def through(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The plain layer with these weights."""
        raise NotImplementedError

    def plain(self) -> nn.Module:
        """A plain layer with the weights θ, which shares no memory with this one."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{' × '.join(map(str, self.weight.shape))}, bias={self.bias is not None}"


class Linear(Variational):
    """`nn.Linear` with a posterior over its weights. It maps [..., in_features] to [..., out_features]."""

    def through(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(input, weight, bias)

    def plain(self) -> nn.Linear:
        out_features, in_features = self.weight.shape
        return with_parameters(nn.Linear(in_features, out_features, self.bias is not None), self)


class MultiplicativeLinear(Linear):
    """`Linear` in Kingma's older parametrisation by θ and log α, in which θ scales the noise (eq. 11).

    Parameters
    ----------
    largest : where log α is clipped above; 0 stands for their restriction to α ≤ 1.
    """

    def __init__(self, layer: nn.Linear, log_alpha: float = -4.0, largest: float = LIMIT):
        super().__init__(layer)
        del self.log_sigma2
        self.free_log_alpha, self.largest = nn.Parameter(torch.full_like(layer.weight, log_alpha)), largest

    @property
    def log_alpha(self) -> Tensor:
        return self.free_log_alpha.clamp(-LIMIT, self.largest)

    @property
    def sigma2(self) -> Tensor:
        return self.log_alpha.exp() * self.weight.square()


class Conv2d(Variational):
    """`nn.Conv2d` with a posterior over its weights; it pads with zeros. It maps [N, C, H, W] to [N, C', H', W'].

    The noise of different positions is independent, although they share their weights (eq. 18 keeps the diagonal alone
    of their covariance).

    Raises
    ------
    ValueError : if `layer` pads with something else.
    """

    def __init__(self, layer: nn.Conv2d, log_sigma2: float = -10.0):
        super().__init__(layer, log_sigma2)
        if layer.padding_mode != "zeros":
            raise ValueError(f"a variational convolution pads with zeros, and this one has {layer.padding_mode!r}")
        self.geometry = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}

    def through(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(input, weight, bias, **self.geometry)

    def plain(self) -> nn.Conv2d:
        channels, (out_channels, _, *kernel) = self.weight.shape[1] * self.geometry["groups"], self.weight.shape
        layer = nn.Conv2d(channels, out_channels, tuple(kernel), bias=self.bias is not None, **self.geometry)
        return with_parameters(layer, self)


def with_parameters(layer: nn.Module, source: Variational) -> nn.Module:
    """`layer` with a copy of θ and of the bias of `source`, and its mode."""
    layer.to(source.weight).train(source.training)
    with torch.no_grad():
        layer.weight.copy_(source.weight)
        if source.bias is not None:
            layer.bias.copy_(source.bias)
    return layer


# ---- networks -------------------------------------------------------------------------------------------------------

Kinds = Mapping[type[nn.Module], Callable[[nn.Module], Variational]]
KINDS: Kinds = {nn.Linear: Linear, nn.Conv2d: Conv2d}
PLAIN = tuple(KINDS)


def variational(model: nn.Module, kinds: Kinds = KINDS) -> nn.Module:
    """A copy of `model` with variational layers; its weights are the means θ.

    Parameters
    ----------
    model : any network that holds `nn.Linear` or `nn.Conv2d`. Other layers, dropout too, stay what they are.
    kinds : {plain layer: what makes a variational one of it}. `{nn.Linear: Linear}` leaves convolutions alone.

    Raises
    ------
    ValueError : if there is nothing in `model` to make variational, or if what is has a hook, or a forward that was put in
        place of its own, or computes its weight (as pruning and the older `weight_norm` do), or shares a parameter with
        another layer.
    """

    def change(layer: nn.Module) -> nn.Module:
        if type(layer) not in kinds:
            return layer
        require_plain(layer)
        return kinds[type(layer)](copy.deepcopy(layer))

    made = with_layers(model, change)
    if not layers(made):
        names = " or ".join(f"nn.{kind.__name__}" for kind in kinds)
        raise ValueError(f"{type(model).__name__} has no {names} in it: there is nothing to make variational")
    return made


def require_plain(layer: nn.Module) -> None:
    """Raise ValueError if `layer` is more than its parameters: a variational one would know nothing of the rest."""
    if is_modified(layer) or not isinstance(layer.weight, nn.Parameter):
        raise ValueError(
            f"{layer} has a hook or a forward put in place of its own, or computes its weight from other parameters. Make it "
            "a plain layer first: torch.nn.utils.prune.remove, torch.nn.utils.remove_weight_norm, the handle's remove(), or "
            "del layer.forward."
        )


def with_layers(model: nn.Module, change: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A copy of `model` with `change` applied to every layer in it; one that is used twice stays one layer.

    Raises
    ------
    ValueError : if a layer that changes shares a parameter with another one; the copy would not.
    """
    changed = {id(layer): new for layer in model.modules() if (new := change(layer)) is not layer}
    holders: dict[nn.Parameter, dict[str, nn.Module]] = {}
    for name, layer in model.named_modules():
        for parameter in layer.parameters(recurse=False):
            holders.setdefault(parameter, {})[name] = layer
    for tied in holders.values():
        if len(tied) > 1 and any(id(layer) in changed for layer in tied.values()):
            raise ValueError(
                f"the layers {list(tied)} share a parameter, and would not after the change. Give each its own first: "
                "layer.weight = nn.Parameter(layer.weight.detach().clone())"
            )
    return copy.deepcopy(model, changed)  # which takes what is there already for the copy


def layers(model: nn.Module) -> dict[str, Variational]:
    """{name: layer} of the variational layers of `model`."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Variational)}


def total_kl(model: nn.Module, kl: Callable[[Tensor], Tensor] = kl) -> Tensor:
    """KL(q ‖ p) of all weights of `model` together, in nats.

    Raises
    ------
    ValueError : if `model` has no variational layer.
    """
    if not (found := layers(model)):
        raise ValueError(f"{type(model).__name__} has no variational layer; make some with variational.variational")
    return sum(kl(layer.log_alpha).sum() for layer in found.values())


# ---- sparsity -------------------------------------------------------------------------------------------------------


def kept(model: nn.Module, threshold: float = THRESHOLD) -> dict[str, Tensor]:
    """{name: boolean mask, shaped like the weight} of the weights that remain in each linear and convolutional layer.

    In a variational layer these are the weights with log α < `threshold`, or the one with the smallest α if there are
    none; in a plain layer, those that are not zero.
    """
    masks = {}
    for name, layer in model.named_modules():
        if isinstance(layer, Variational):
            masks[name] = layer.log_alpha.detach() < threshold
            if not masks[name].any():
                best = (layer.weight.square() / layer.sigma2).argmax()
                masks[name][torch.unravel_index(best, layer.weight.shape)] = True
        elif isinstance(layer, PLAIN):
            masks[name] = layer.weight.detach() != 0
    return masks


def sparsity(model: nn.Module, threshold: float = THRESHOLD) -> dict[str, float]:
    """{name: share of the weights that are removed, 0..1} of each linear and convolutional layer."""
    return {name: 1 - mask.double().mean().item() for name, mask in kept(model, threshold).items()}


def compression(model: nn.Module, threshold: float = THRESHOLD) -> float:
    """How many weights there are for each one that remains. Biases are not counted, as in the paper."""
    masks = kept(model, threshold).values()
    return sum(mask.numel() for mask in masks) / sum(int(mask.sum()) for mask in masks)


def pruned(model: nn.Module, threshold: float = THRESHOLD) -> nn.Module:
    """A plain copy of `model`: variational layers become `nn.Linear` and `nn.Conv2d` with the weights θ, of which those
    with log α ≥ `threshold` are zero.

    With ``threshold=math.inf`` nothing is removed, and it predicts exactly like `model` in eval mode.

    Warns
    -----
    UserWarning : if a layer would be left with no weight. It keeps the one with the smallest α.

    Raises
    ------
    ValueError : if `model` has no variational layer.
    """
    if not layers(model):
        raise ValueError(f"{type(model).__name__} has no variational layer, so no rates to prune by")
    masks = kept(model, threshold)
    for name, layer in layers(model).items():
        if (layer.log_alpha >= threshold).all():
            warnings.warn(
                f"every weight of {name or 'the layer'!r} has log α ≥ {threshold:g}; the one with the smallest is kept. "
                "The network says nothing about its input: was the weight of the divergence raised too early?",
                stacklevel=2,
            )
    plain = with_layers(model, lambda layer: layer.plain() if isinstance(layer, Variational) else layer)
    with torch.no_grad():
        for name in layers(model):
            plain.get_submodule(name).weight.mul_(masks[name])
    return plain
