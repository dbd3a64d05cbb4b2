"""A network as two halves: what no gate reaches, which is the same in every pass and need run only once, and the rest, of
which one pass can be many masks.

`helpers.prefix` finds them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from helpers import functional, masks
from helpers.inputs import Inputs, call, each, is_inputs, parts, repeated

VALUES = 2**19  # that enter the second half in a pass: half or twice as many take up to a tenth longer on a processor
ROWS = 2**13  # in a pass at most
LARGEST = 2**22  # values in a tensor made of several masks: beyond that sharing a pass takes memory and saves no time


@dataclass
class Halves:
    """``after(*copies(before(x), 1))`` is a pass through a network.

    before : from inputs to what the second half needs of the first.
    after : from that to what the network returns.
    varies : which of these values have a row for each example.
    folds : whether ``after(*copies(before(x), r))`` is r passes for each example, one round after the other. It is not
        where examples are no rows, where a mask is drawn for all rows together (dropout of weights, of position tables),
        or where what one row becomes depends on others (BatchNorm that keeps no statistics).
    width : the most values that a step of the second half makes of an example.
    layers : the second half as layers, each of which takes what the one before it returns; ``None`` if it is no such chain.
    """

    before: Callable[[Inputs], Sequence[Any]]
    after: Callable[..., Any]
    varies: Sequence[bool]
    folds: bool = False
    width: int = 1
    layers: Sequence[nn.Module] | None = None

    def copies(self, values: Sequence[Any], times: int) -> list[Any]:
        """Copies of `values`, since what comes next may work in place on them, with all examples so many times."""
        pairs = zip(values, self.varies, strict=True)
        return [repeated(v, times if varies else 1) if is_inputs(v) else v for v, varies in pairs]

    def example(self, values: Sequence[Any], i: int) -> list[Any]:
        """What the second half needs of one example alone."""
        pairs = zip(values, self.varies, strict=True)
        return [each(lambda part: part[i : i + 1], v) if varies and is_inputs(v) else v for v, varies in pairs]

    def passes(self, values: Sequence[Any], times: int) -> Any:
        """So many passes for each example: the second half of copies of `values`."""
        if self.layers is None or not self.folds or not is_cheap_gate(self.layers[0], values[0]):
            return self.after(*self.copies(values, times))
        h = masks.dropped_copies(values[0], self.layers[0].p, times)
        for layer in self.layers[1:]:
            h = layer(h)
        return h

    def rounds(self, values: Sequence[Any], m: int) -> Iterator[int]:
        """`m` masks for each example as the numbers of masks to take in each pass, so that a pass stays in the cache, and
        takes no more memory however many masks there are."""
        tensors = [
            part for v, varies in zip(values, self.varies, strict=True) if varies and is_inputs(v) for part in parts(v)
        ]
        n = max((len(part) for part in tensors), default=1)
        rows = min(ROWS, LARGEST // self.width, VALUES * n // max(1, sum(part.numel() for part in tensors)))
        most = max(1, rows // n) if self.folds else 1
        for start in range(0, m, most):
            yield min(most, m - start)


def is_cheap_gate(layer: nn.Module, x: Any) -> bool:
    """Whether `layer` makes of copies of `x` what `masks.dropped_copies` makes of `x`."""
    if type(layer) is not nn.Dropout or not (layer.training and 0 < layer.p <= masks.HIGHEST):
        return False
    if functional.is_modified(layer):
        return False
    if not isinstance(x, Tensor) or x.device.type != "cpu" or not x.is_floating_point():
        return False
    return x.is_contiguous() or masks.has_channels_last(x)


def whole(model: nn.Module) -> Halves:
    """`model` with nothing in its first half."""
    return Halves(lambda x: (x,), lambda x: call(model, x), varies=[True])
