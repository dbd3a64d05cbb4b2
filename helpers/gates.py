"""Gates: the Bernoulli variables σ that keep or drop a part of a network (Rota Bulò et al. 2016, section 2).

Three ways to run a network that has dropout in it, each a context manager that puts every mode and every
hook back afterwards, also after an exception:

    deterministic(model)  no gate is drawn: one deterministic pass, "standard dropout"
    sampling(model)       gates are drawn afresh in every pass, and nothing else is random
    fixed(model, masks)   gates are what you say they are: one member of the ensemble, f_{Θ,σ}

For that the modes of its modules are set, which all threads see: a network is for one thread at a time, and others need copies
of their own.

Gates are *inverted*: a kept unit is multiplied by 1 / (1 - p), so that the expected value of what leaves
the layer is what entered it, and no rescaling is left to do at test time.
"""

import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from helpers import functional
from helpers.dropconnect import DropConnect
from helpers.inputs import Inputs, call, each
from helpers.masks import cheap_masks
from helpers.variational import Variational

UNITS = (nn.Dropout,)
# Layers that drop channels, and the numbers of dimensions with which PyTorch takes their input for a batch [N, C, ...].
DIMENSIONS = {nn.Dropout1d: (3,), nn.Dropout2d: (3, 4), nn.Dropout3d: (5,)}
CHANNELS = tuple(DIMENSIONS)
CONNECTIONS = (DropConnect,)
OTHERS = (nn.AlphaDropout, nn.FeatureAlphaDropout)


def stochastic_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Everything in `model` that is known to draw random numbers in training.

    That is: `nn.Dropout`, `nn.Dropout1d/2d/3d`, `DropConnect`, `nn.AlphaDropout`, `nn.FeatureAlphaDropout`,
    `nn.MultiheadAttention(dropout=p)`, `nn.LSTM/GRU/RNN(dropout=p)` of more than one layer, `nn.RReLU`, the layers
    of `helpers.variational`, and torchvision's `StochasticDepth`. A layer whose rate is zero draws nothing and is left out.

    A module of yours that asks for `self.training` and calls `F.dropout`, attention that drops, or `torch.rand` and the like
    (`helpers.functional` has a list) is one too, whatever its rate, which cannot be known; so is a subclass of a recurrent
    layer or of attention that does so.

    Returns
    -------
    {name: module}, with the names of `model.named_modules()`, in their order.
    """
    functional.own_code.cache_clear()  # in a notebook, what a forward calls may have been written anew
    return {name: module for name, module in model.named_modules() if is_stochastic(module)}


def is_stochastic(module: nn.Module) -> bool:
    """Whether `module` itself (not a part of it) draws random numbers in training."""
    # What a dropout layer drops, it drops at its rate; code in a subclass of an LSTM or of attention may have another.
    rules_its_code = rate_attribute(module) == "p" or isinstance(module, nn.RReLU | Variational)
    return rate_is_known(module) or (not rules_its_code and functional.drops_in_forward(module))


def rate_is_known(module: nn.Module) -> bool:
    """Whether `module` draws as the layer that it is, at a rate above zero, and not only in code that calls `F.dropout`."""
    if isinstance(module, nn.RReLU):
        return module.lower < module.upper
    if isinstance(module, Variational):
        return module.noisy
    if isinstance(module, nn.RNNBase) and module.num_layers == 1:
        return False  # PyTorch drops between recurrent layers only
    attribute = rate_attribute(module)
    return attribute is not None and getattr(module, attribute) > 0


def rate_attribute(module: nn.Module) -> str | None:
    """The attribute that holds the rate of a layer of a kind that can drop; ``None`` for any other kind."""
    if isinstance(module, UNITS + CHANNELS + CONNECTIONS + OTHERS) or is_stochastic_depth(module):
        return "p"
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase) and not isinstance(module.dropout, nn.Module):
        return "dropout"
    return None


def rates(model: nn.Module) -> dict[str, float]:
    """{name: rate} of the stochastic layers of `model` that have one (all but `nn.RReLU` and variational layers)."""
    attributes = {name: rate_attribute(layer) for name, layer in stochastic_layers(model).items()}
    return {name: float(getattr(model.get_submodule(name), a)) for name, a in attributes.items() if a is not None}


def is_stochastic_depth(module: nn.Module) -> bool:
    ops = sys.modules.get("torchvision.ops")  # torchvision is optional: what was never imported is in no model
    return ops is not None and isinstance(module, ops.StochasticDepth)


def require_stochastic_layers(model: nn.Module) -> dict[str, nn.Module]:
    """`stochastic_layers(model)`.

    Raises
    ------
    ValueError : if there are none, or dropout that is always on.
    """
    layers = stochastic_layers(model)
    if not layers:
        drops = [m for m in model.modules() if not functional.code_of(m).isdisjoint(functional.DROPOUTS)]
        if always_on := {type(module).__name__ for module in drops}:
            raise ValueError(
                f"{', '.join(sorted(always_on))} drops without asking for its own self.training: either in eval mode, too, so that "
                "there is no deterministic network beside the ensemble, or as it is told from outside, which cannot be known "
                "here. Write F.dropout(x, p, self.training) in it, or use nn.Dropout."
            )
        raise ValueError(
            f"{type(model).__name__} has no dropout in it, so there is no ensemble to average. Looked for nn.Dropout "
            "and its variants, nn.MultiheadAttention, recurrent layers and StochasticDepth with a rate above 0, and for "
            "modules that call F.dropout(x, p, self.training) in their forward."
        )
    return layers


def remove(model: nn.Module) -> nn.Module:
    """Set every rate in `model` to zero, in place: it is deterministic from then on, in training mode too.

    Parameters, buffers and the names of all layers stay as they are. A module that calls `F.dropout` itself has its rate
    in its own code, out of reach: it stays as it is, deterministic in eval mode alone.

    Returns
    -------
    `model` itself.
    """
    for layer in stochastic_layers(model).values():
        if isinstance(layer, nn.RReLU):
            layer.lower = layer.upper = (layer.lower + layer.upper) / 2  # its slope in eval mode
        elif isinstance(layer, Variational):
            layer.noisy = False  # its weights are θ, as in eval mode
        elif attribute := rate_attribute(layer):
            setattr(layer, attribute, 0.0)
    return model


@contextmanager
def deterministic(model: nn.Module) -> Iterator[None]:
    """Every layer of `model` in eval mode: the deterministic pass of standard dropout (section 3.1).

    A subclass of a dropout layer that drops in either mode, as in ``F.dropout(x, self.p, True)``, is at rate zero there. One
    that asks for `self.training` is taken at its word, whatever else it asks for; `F.dropout` that is always on in a
    module of another kind is out of reach.
    """
    always_on = [layer for layer in model.modules() if rate_attribute(layer) == "p" and functional.ignores_mode(layer)]
    with training_mode_only_in(model, ()), ExitStack() as stack:
        if always_on:
            stack.enter_context(uncompiled())
        for layer in always_on:
            stack.enter_context(rate_zero_in_eval_mode(layer))
        yield


@contextmanager
def rate_zero_in_eval_mode(layer: nn.Module) -> Iterator[None]:
    """`layer`, which does not ask for its mode, drops nothing in eval mode. Its rate is zero only while it runs: whoever
    asks whether it is stochastic, or samples it in here, finds it as it was."""
    forward, own = layer.forward, "forward" in vars(layer)

    def at_rate_zero(*args, **kwargs) -> Tensor:
        p = layer.p
        try:
            layer.p = p if layer.training else 0.0
            return forward(*args, **kwargs)
        finally:
            layer.p = p

    layer.forward = at_rate_zero
    try:
        yield
    finally:
        del layer.forward
        if own:
            layer.forward = forward


@contextmanager
def sampling(model: nn.Module) -> Iterator[None]:
    """The stochastic layers of `model` sample; everything else (BatchNorm!) is in eval mode.

    Each pass draws gates σ afresh for each example, so that ``model(x)[i]`` is f_{Θ,σⁱ}(xᵢ). A part that is kept in eval mode
    while the rest is trained, such as a backbone that is frozen, draws here like the others: `remove` its rates first.

    Raises
    ------
    ValueError : if `model` has no stochastic layer.
    """
    with sampling_modes(model), drawing(model):
        yield


@contextmanager
def sampling_modes(model: nn.Module) -> Iterator[None]:
    """The modes of `sampling`, for passes that are each made inside `drawing`."""
    layers = require_stochastic_layers(model).values()
    # In eval mode PyTorch's transformer layer takes a fast path that skips the dropout of its parts.
    hosts = [m for m in model.modules() if isinstance(m, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer)]
    with training_mode_only_in(model, [*layers, *hosts]):
        yield


def drawing(model: nn.Module) -> AbstractContextManager:
    """How passes of `model` draw their gates: by `cheap_masks`, where that reaches them. It may be entered again and again,
    once for each pass: everything else that PyTorch does in it becomes slower."""
    return nullcontext() if recomputes(model) else cheap_masks(model)


def recomputes(model: nn.Module) -> bool:
    """Whether `model` may compute activations a second time on the way back, where `cheap_masks` does not reach and other
    gates would be drawn."""
    # DropConnect does, and sees to it itself.
    return any(functional.recomputes(module) for module in model.modules() if not isinstance(module, DropConnect))


@contextmanager
def fixed(model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """The stochastic layers of `model` use `masks` in place of random gates; everything else is in eval mode.

    Parameters
    ----------
    masks : {name: 0/1 tensor}, one for every name in `stochastic_layers(model)`. A mask is shared by all
        examples or has a first dimension N. For units it is shaped like what enters the layer, [...] or
        [N, ...]; for channels it is [C] or [N, C]; for connections [out, in] or [N, out, in]. Gates are per
        example: nothing is broadcast within one.

    Raises
    ------
    ValueError : if `model` has no stochastic layer; if a mask is missing, belongs to no layer, or holds
        anything but 0 and 1; during a pass, if a mask does not fit what enters its layer.
    TypeError : if `model` has a layer whose gates are out of reach (attention and recurrent layers drop inside
        PyTorch's own kernels, what calls `F.dropout` in its forward has no layer for it, and a subclass of a dropout
        layer with a forward of its own may draw gates of another kind).
    """
    layers = require_stochastic_layers(model)
    require_gateable(layers)
    if missing := layers.keys() - masks.keys():
        raise ValueError(f"no mask for {sorted(missing)}; the stochastic layers are {list(layers)}")
    if unknown := masks.keys() - layers.keys():
        raise ValueError(f"{sorted(unknown)} name no stochastic layer; the stochastic layers are {list(layers)}")
    for name, mask in masks.items():
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError(f"the mask of {name!r} holds values other than 0 and 1")

    def gate(name: str):
        def hook(layer: nn.Module, args: tuple, kwargs: dict, _: Tensor) -> Tensor:
            return apply_mask(name, layer, entering(args, kwargs), masks[name])

        return hook

    hooks = []
    try:
        for name, layer in layers.items():
            # Ahead of hooks that are there, which are to see what the gates let through.
            hooks.append(layer.register_forward_hook(gate(name), prepend=True, with_kwargs=True))
        with deterministic(model), uncompiled():
            yield
    finally:
        for hook in hooks:
            hook.remove()


def uncompiled() -> AbstractContextManager:
    """A context in which compiled networks run as they were written; compiled, they do not see hooks that come later."""
    nothing_is_compiled = "torch._dynamo" not in sys.modules  # which takes a second to import
    return nullcontext() if nothing_is_compiled else torch.compiler.set_stance("force_eager")


def entering(args: tuple, kwargs: dict) -> Tensor:
    """What a dropout layer was called with: its only argument."""
    return next(iter((*args, *kwargs.values())))


def gated_shape(name: str, layer: nn.Module, x: Tensor) -> torch.Size:
    """The shape of the gates that `layer` draws for a batch `x`: of all of it, [N, C] where channels are dropped, or
    [N, ..., out, in] where connections are."""
    if isinstance(layer, CONNECTIONS):
        if x.ndim < 2:
            raise ValueError(f"{list(x.shape)} enters {name!r}, which is no batch [N, ..., {layer.in_features}]")
        return torch.Size((*x.shape[:-1], *layer.weight.shape))
    if not isinstance(layer, CHANNELS):
        return x.shape
    if x.ndim not in next(ndims for kind, ndims in DIMENSIONS.items() if isinstance(layer, kind)):
        raise ValueError(f"{list(x.shape)} enters {name!r}, a {type(layer).__name__}, which takes this for no batch")
    return x.shape[:2]


def apply_mask(name: str, layer: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """What dropout layer `layer` makes of `x` when its gates are `mask`: x ∘ σ / (1 - p), or (Σ ∘ W / (1 - p)) x + b."""
    shape = gated_shape(name, layer, x)
    if mask.shape not in (shape, shape[1:]):
        raise ValueError(f"the mask of {name!r} has shape {list(mask.shape)}, but {list(x.shape)} enters the layer")
    keep = 1 - layer.p
    sigma = mask.to(x) / keep if keep else torch.zeros_like(mask.to(x))
    if isinstance(layer, CONNECTIONS):
        return layer.through(layer.weight * sigma, x)
    return x * sigma.reshape(sigma.shape + (1,) * (x.ndim - len(shape)))


def require_gateable(layers: Mapping[str, nn.Module]) -> None:
    """Raise TypeError unless each of `layers` is one whose gates `fixed` can set."""
    if others := [name for name, layer in layers.items() if not is_gateable(layer)]:
        kinds = sorted({type(layers[name]).__name__ for name in others})
        raise TypeError(
            f"the gates of {others} ({', '.join(kinds)}) cannot be set from outside; only those of nn.Dropout, "
            "nn.Dropout1d/2d/3d and DropConnect can, and of subclasses that inherit forward: one of their own may draw "
            "anything. Sample them instead: gates.sampling, predictors.monte_carlo. "
            "Where a module of yours calls F.dropout in its forward, an nn.Dropout layer in it would do too."
        )


def is_gateable(layer: nn.Module) -> bool:
    """Whether `layer` drops what its kind drops: with a forward of its own, that of a subclass or one put in its place, it may
    draw other gates, or no gates."""
    inherited = type(layer).forward in [kind.forward for kind in UNITS + CHANNELS + CONNECTIONS]
    return inherited and "forward" not in vars(layer)


def gate_shapes(model: nn.Module, x: Inputs) -> dict[str, torch.Size]:
    """The shape of one example's gates in each stochastic layer, found by passing ``x[:1]`` through `model`.

    Returns
    -------
    {name: shape}: all units of what enters an `nn.Dropout`, all channels of what enters an `nn.Dropout2d`, all
    connections [out, in] of a `DropConnect`.

    Raises
    ------
    ValueError : if there is no stochastic layer; if one is used more than once in a pass, or meets several rows for
        one example (one mask per name would tie gates that training draws independently); if one is not used.
    TypeError : as `fixed`.
    """
    layers = require_stochastic_layers(model)
    require_gateable(layers)
    shapes: dict[str, torch.Size] = {}

    def note(name: str):
        def hook(layer: nn.Module, args: tuple, kwargs: dict) -> None:
            if name in shapes:
                raise ValueError(f"{name!r} is used more than once in a pass; give each use a layer of its own")
            rows, *shape = gated_shape(name, layer, entering(args, kwargs))
            if rows != 1:
                raise ValueError(f"{name!r} meets {rows} rows for one example, whose gates one mask would tie together")
            shapes[name] = torch.Size(shape)

        return hook

    hooks = [layer.register_forward_pre_hook(note(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        with deterministic(model), uncompiled(), torch.no_grad():
            call(model, each(lambda part: part[:1].clone(), x))  # which may work in place on it
    finally:
        for hook in hooks:
            hook.remove()
    if unused := layers.keys() - shapes.keys():
        raise ValueError(f"{sorted(unused)} took no part in the pass, so their gates have no shape")
    return shapes


def enumerated(
    layers: Mapping[str, nn.Module], shapes: Mapping[str, torch.Size], start: int, stop: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Masks number `start` to `stop` - 1 of the 2^n that n gates can form: mask i is i in binary.

    Parameters
    ----------
    layers, shapes : as `stochastic_layers` and `gate_shapes` return them.

    Returns
    -------
    masks : {name: 0/1 float64 tensor [stop - start, *shape]}.
    probabilities : float64 [stop - start], the product over gates of 1 - p (kept) or p (dropped).
    """
    n = sum(shape.numel() for shape in shapes.values())
    bits = (torch.arange(start, stop)[:, None] >> torch.arange(n)) & 1
    keep = torch.cat([torch.full((shapes[name].numel(),), 1 - layers[name].p, dtype=torch.float64) for name in shapes])
    probabilities = torch.where(bits == 1, keep, 1 - keep).prod(1)
    parts = bits.double().split([shape.numel() for shape in shapes.values()], dim=1)
    masks = {name: part.reshape(-1, *shapes[name]) for name, part in zip(shapes, parts, strict=True)}
    return masks, probabilities


@contextmanager
def training_mode_only_in(model: nn.Module, layers: Collection[nn.Module]) -> Iterator[None]:
    """Training mode for `layers` themselves, eval mode for every other module of `model`."""
    chosen = {id(layer) for layer in layers}
    with modes_put_back(model):
        for module in model.modules():
            module.training = id(module) in chosen
        yield


@contextmanager
def modes_put_back(model: nn.Module) -> Iterator[None]:
    """Afterwards every module of `model` is in the mode in which it was."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode
