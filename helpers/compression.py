"""Students that are narrower than their teacher, and what a network costs (Rota Bulò et al. 2016, section 5.3)."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from helpers import gates, predictors
from helpers.inputs import call


def restarted(student: nn.Module, teacher: nn.Module) -> nn.Module:
    """Copy the layers of `teacher` that `student` has in the same shape, and draw the others from N(0, 0.01²).

    So Fig. 3, left: if the penultimate layer shrinks, it and the last one start afresh.

    Parameters
    ----------
    student, teacher : networks of convolutions and linear layers, the same but for their widths.

    Returns
    -------
    `student`, without its dropout and in eval mode: ready to be distilled.

    Raises
    ------
    ValueError : if the two differ in more than widths, have parameters or buffers elsewhere, as BatchNorm does, or have
        grouped convolutions.
    """
    for new, old in pairs(student, teacher):
        if new.weight.shape == old.weight.shape:
            new.load_state_dict(old.state_dict())
        else:
            nn.init.normal_(new.weight, std=0.01)
            if new.bias is not None:
                nn.init.zeros_(new.bias)
    gates.remove(student).eval()
    return student


def thinned(student: nn.Module, teacher: nn.Module) -> nn.Module:
    """Of each layer of `teacher`, keep as many units, drawn at random, as `student` has there (Fig. 3, right).

    Each layer must take what the one before it returns, and nothing else: where the units of two layers are added or put
    side by side, as in a residual network, those that are kept would not fit together.

    Parameters, returns, raises: as `restarted`; and a ValueError if the student is wider somewhere, or a layer takes another
    number of units than the one before it has.
    """
    units = kept = None
    for new, old in pairs(student, teacher):
        columns = torch.arange(old.weight.shape[1])
        if units is not None:
            features, rest = divmod(len(columns), units)  # of one unit: several where a map of units has been flattened
            if rest:
                raise ValueError(f"{old} does not take the {units} units of the layer before it, and nothing else")
            columns = columns.view(units, features)[kept].flatten()
        units = len(old.weight)
        kept = torch.randperm(units)[: len(new.weight)].sort().values
        part = old.weight[kept][:, columns]
        if part.shape != new.weight.shape:
            raise ValueError(f"{new} is no narrower {old}: of its weights {list(part.shape)} can be kept")
        with torch.no_grad():
            new.weight.copy_(part)
            if new.bias is not None:
                new.bias.copy_(old.bias[kept])
    gates.remove(student).eval()
    return student


def pairs(student: nn.Module, teacher: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Each convolution and linear layer of `student` with the one that it comes from."""
    new, old = layers(student), layers(teacher)
    if [all_but_widths(m) for m in new] != [all_but_widths(m) for m in old]:
        raise ValueError(f"the student's layers {new} are not those of the teacher, {old}, made narrower")
    return list(zip(new, old, strict=True))


def all_but_widths(layer: nn.Module) -> tuple:
    """What a convolution or linear layer has in common with a narrower one."""
    names = ("kernel_size", "stride", "padding", "dilation", "padding_mode") if isinstance(layer, nn.Conv2d) else ()
    return type(layer), layer.bias is None, *(getattr(layer, name) for name in names)


def layers(network: nn.Module) -> list[nn.Module]:
    """The convolutions and linear layers of `network`, which must hold all of its parameters and buffers."""
    found = []
    for name, m in network.named_modules():
        if getattr(m, "groups", 1) > 1:
            raise ValueError(f"{name!r} is a grouped convolution, of which no narrower one is known")
        if isinstance(m, nn.Conv2d | nn.Linear):
            found.append(m)
        elif [*m.parameters(recurse=False), *m.buffers(recurse=False)]:
            raise ValueError(
                f"{name or 'the network'!r} is a {type(m).__name__}: of what has parameters or buffers, only nn.Conv2d and "
                "nn.Linear can be made narrower. Fold BatchNorm into the layer before it first (torch.nn.utils.fusion)."
            )
    return found


def multiply_adds(network: nn.Module, x: Tensor) -> int:
    """Multiplications (each with its addition) in one pass of `network` for one example, the first of `x` [N, ...].

    Counted are convolutions, products of matrices and what consists of them: linear, recurrent and attention layers.
    """
    example = predictors.first_batch(network, x, 1)
    with unfused(), gates.deterministic(network), torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(network, example)
    return counter.get_total_flops() // 2


@contextmanager
def unfused() -> Iterator[None]:
    """Attention and recurrent layers as operations that `FlopCounterMode` knows, not as one."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            warnings.catch_warnings(),
            torch.backends.cudnn.flags(enabled=False),
            sdpa_kernel(SDPBackend.MATH),
        ):
            warnings.filterwarnings("ignore", "TF32 acceleration")  # of processors that are not here
            with torch.backends.mkldnn.flags(enabled=False):
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
