"""Cheap masks: the same Bernoulli gates as PyTorch's dropout draws, several times faster on a CPU.

There, `torch.nn.functional.dropout` spends about ten nanoseconds on each gate, which is half of the time of a
network that drops early layers. Raw random bits cost a tenth of that, and a gate needs only one number with few
bits: one where the rate is a half, eight where it is a multiple of 1/256, otherwise sixteen, which hit any rate to
within 8e-6. Where so little is kept that this would be a larger share of it, gates are left to PyTorch.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

HIGHEST = 0.99  # rate, with which the mean is off by less than a thousandth
TWO = 0x40000000  # the one bit that is set in 2.0 as a float32
# By which each bit of an int32 but the sign gets there.
SHIFTS = torch.arange(31, dtype=torch.int32, device="cpu")[:, None]


def inverted(shape: Sequence[int], p: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """A CPU tensor of `shape` that drops units and rescales the others: each entry independently 1 / (1 - p) with
    probability 1 - p and otherwise 0, for 0 < p <= HIGHEST."""
    p, n = float(p), math.prod(shape)  # a rate may be a tensor
    if p == 0.5:
        bits = random_words(32 * -(-n // 31)).view(torch.int32).bitwise_left_shift(SHIFTS)
        return bits.bitwise_and_(TWO).view(torch.float32).view(-1)[:n].view(tuple(shape)).to(dtype)
    kind, bits = (torch.int8, 8) if float(p * 256).is_integer() else (torch.int16, 16)
    numbers = random_words(n * bits).view(kind)[:n].view(tuple(shape))  # uniform over the integers of `bits` bits
    dropped = round(p * 2**bits)  # of the 2^bits integers
    # In place: several times faster than a comparison that makes booleans.
    return numbers.ge_(dropped - 2 ** (bits - 1)).to(dtype).mul_(1 / (1 - p))


def random_words(bits: int) -> Tensor:
    """Random numbers of 64 bits, with at least so many bits in all."""
    # Without the lower bound random_ leaves the top bit of an int64 at zero, and every eighth byte below 128.
    return torch.empty(-(-bits // 64), dtype=torch.int64, device="cpu").random_(-(2**63), None)


def inverted_like(input: Tensor, dimensions: int | None, p: float) -> Tensor:
    """`inverted` in `input`'s type such that it broadcasts against it, with a gate for each entry of the first `dimensions`
    (all of them for ``None``) and in the same memory layout: multiplying two layouts is several times slower."""
    if dimensions is not None:
        shape = input.shape[:dimensions]
        return inverted(shape, p, input.dtype).view(*shape, *[1] * (input.ndim - dimensions))
    return laid_out_like(input, inverted((input.numel(),), p, input.dtype))


def laid_out_like(x: Tensor, numbers: Tensor) -> Tensor:
    """Independent random `numbers`, as many as `x` has entries, in its shape and memory layout."""
    if has_channels_last(x):
        n, c, h, w = x.shape
        return numbers.view(n, h, w, c).permute(0, 3, 1, 2)
    return numbers.view(x.shape)


def has_channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)


def dropped_copies(x: Tensor, p: float, times: int) -> Tensor:
    """So many copies of `x` [N, ...] as [times * N, ...], one round after the other, each with gates of its own.

    What `F.dropout` makes of copies, but the copies are not made first: that takes longer than drawing their gates. `x` is
    contiguous, in either memory format.
    """
    if not has_channels_last(x):
        return inverted((times, *x.shape), p, x.dtype).mul_(x).flatten(0, 1)
    rows = x.permute(0, 2, 3, 1)  # as they are in memory
    return inverted((times, *rows.shape), p, x.dtype).mul_(rows).flatten(0, 1).permute(0, 3, 1, 2)


class CheapMasks(TorchFunctionMode):
    """While active, `F.dropout` and `F.dropout1d/2d/3d` on CPU tensors draw their gates with `inverted`.

    This reaches every network, whether it holds dropout layers or calls the functions itself. Everything else,
    rates 0 and above `HIGHEST`, tensors on a GPU and nested ones included, is left to PyTorch. So are gates in compiled
    code, where PyTorch's are cheap, and those under `torch.func`'s transforms, such as `vmap`: neither can do with `random_`.
    """

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        elsewhere = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
        if function in GATE_DIMENSIONS and not elsewhere:
            return self.dropout(function, *args, **kwargs)
        return function(*args, **kwargs)

    def dropout(self, function: Callable, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False):
        if not isinstance(input, Tensor):  # a symbol, while a network is being traced
            return function(input, p, training, inplace)
        batched = input.ndim == DIMENSIONS_WITH_BATCH.get(function, input.ndim)
        plain = input.device.type == "cpu" and input.is_floating_point() and not input.is_nested
        if not (training and 0 < p <= HIGHEST and plain and batched):
            return function(input, p, training, inplace)
        mask = inverted_like(input, GATE_DIMENSIONS[function], p)
        if inplace:
            return input.mul_(mask)
        if mask.stride() != input.stride() or (torch.is_grad_enabled() and input.requires_grad):
            return input * mask  # laid out like the input, as PyTorch's
        return mask.mul_(input)  # nobody else needs the mask, and a second large buffer would cost more than drawing it


def cheap_masks(model: nn.Module) -> AbstractContextManager:
    """`CheapMasks` for a `model` on a CPU. On a GPU PyTorch's gates are cheap, and the mode would only keep them from being
    compiled."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    return CheapMasks() if on_cpu else nullcontext()


# Leading dimensions of the input that have gates of their own: all of them, or examples and channels.
GATE_DIMENSIONS = {F.dropout: None, F.dropout1d: 2, F.dropout2d: 2, F.dropout3d: 2}
DIMENSIONS_WITH_BATCH = {F.dropout1d: 3, F.dropout2d: 4, F.dropout3d: 5}
