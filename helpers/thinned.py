"""One mask for all examples of a pass: a thinned network, of which only the kept units are computed.

At a rate of a half, a layer between two gates has a quarter of its weights left, so that a pass costs little more than a
quarter (Graham, Reizenstein, Robinson 2015). The examples are the columns of all matrices here, since rows are picked faster.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from helpers.functional import is_modified

# Functions of each unit alone, so that it makes no difference whether units are left out before or after.
ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign),
    *(nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Tanhshrink, nn.Identity),
)


def require_thinnable(layers: Sequence[nn.Module] | None) -> None:
    """
    Parameters
    ----------
    layers : what comes after the part of a network that no gate reaches; ``None`` if that is no row of layers.

    Raises
    ------
    TypeError : if there is anything but `nn.Dropout`, `nn.Linear` and activations; if a gate's units are not left out by
        a linear layer, because an activation makes something else of their zeros, or because they are the outputs; if a
        layer has a hook, or a forward that was put in place of its own.
    """
    if layers is None:
        raise TypeError(
            "masks can be shared where the first gate and what follows it are a row of layers; this network is another: "
            "leave out shared_masks."
        )
    left_out = False
    for layer in layers:
        if type(layer) not in (nn.Dropout, nn.Linear, *ACTIVATIONS):
            raise TypeError(
                f"masks cannot be shared in a network with {type(layer).__name__} after its first gate, only where there are "
                "nn.Dropout, nn.Linear and activations of single units: leave out shared_masks."
            )
        if is_modified(layer):
            raise TypeError(
                f"a {type(layer).__name__} has a hook, or a forward put in place of its own, which may expect all units: "
                "leave out shared_masks."
            )
        if left_out and isinstance(layer, ACTIVATIONS) and layer(torch.zeros(1)).any():
            raise TypeError(
                f"{type(layer).__name__} makes something of units that are dropped: leave out shared_masks."
            )
        left_out = isinstance(layer, nn.Dropout) or (left_out and not isinstance(layer, nn.Linear))
    if left_out:
        raise TypeError(
            "masks cannot be shared where the network's outputs themselves are dropped: leave out shared_masks."
        )


def passes(layers: Sequence[nn.Module], h: Tensor) -> Iterator[Tensor]:
    """Gated passes without end of what enters the first of `layers`, [N, D], to [N, K]; all examples share a mask."""
    if h.ndim != 2:
        raise TypeError(f"masks can be shared where units [N, D] meet the first gate, not {list(h.shape)}")
    columns = h.T.contiguous()
    while True:
        yield thinned_pass(layers, columns).T


def thinned_pass(layers: Sequence[nn.Module], h: Tensor) -> Tensor:
    """One pass of columns `h` [D, N] through a new mask for each gate, to [K, N]."""
    here = None  # the units that are left where we are; None: all
    dropped = False  # whether the next gate has been drawn, and its units left out, ahead of time
    for i, layer in enumerate(layers):
        match layer:
            case nn.Linear():
                gate = next_gate(layers[i + 1 :])
                there = None if gate is None else kept(layer.out_features, gate.p, h.device)
                weight = layer.weight if there is None else layer.weight[there]
                weight = weight if here is None else weight[:, here]
                h = weight @ h
                if layer.bias is not None:
                    h += (layer.bias if there is None else layer.bias[there])[:, None]
                here, dropped = there, there is not None
            case nn.Dropout():
                if not dropped:
                    rows = kept(len(h), layer.p, h.device)
                    h, here = h[rows], rows if here is None else here[rows]
                h, dropped = h / (1 - layer.p) if layer.p < 1 else h, False
            case _:
                h = layer(h)
    return h


def next_gate(layers: Sequence[nn.Module]) -> nn.Dropout | None:
    """The gate that the outputs of a linear layer meet, if they meet one before another linear layer."""
    first = next((layer for layer in layers if isinstance(layer, nn.Linear | nn.Dropout)), None)
    return first if isinstance(first, nn.Dropout) else None


def kept(n: int, p: float, device: torch.device) -> Tensor:
    """The numbers of those of `n` units that a gate of rate `p` keeps."""
    return (torch.rand(n, device=device) >= p).nonzero().squeeze(1)
