"""Whether several masks can share a pass: what comes of examples that go through the second half of a network together."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from helpers.halves import Halves
from helpers.inputs import Inputs, each

log = logging.getLogger(__name__)


def folding(found: Halves, values: Sequence[Any], pair: Inputs) -> tuple[bool, int]:
    """``found.folds`` and ``found.width``, from the `values` of a `pair` of examples: whether these become together what
    they became alone, when they draw what they drew alone."""

    def second_half(draws: Draws, values: Sequence[Any]) -> Any:
        with torch._C.DisableTorchFunction(), draws:  # without `masks.CheapMasks`, whose draws have no rows
            return found.after(*found.copies(values, 1))

    try:
        if not same(found.before(each(lambda part: part[:1].clone(), pair)), found.example(values, 0)):
            return False, 1
        one, other = Draws(), Draws()
        alone = second_half(one, found.example(values, 0)), second_half(other, found.example(values, 1))
        both = Draws(one, other)
        together = second_half(both, values)
        folds = same(together, tree_map(lambda a, b: torch.cat([a, b]) if isinstance(a, Tensor) else a, *alone))
        return folds, max([1, *(b - a for a, b in zip(one.sizes, both.sizes, strict=False))])
    except Exception as error:  # what counts its examples, for one, fails with another number of them
        log.debug("several masks cannot share a pass: %r", error)
        return False, 1


class Draws(TorchDispatchMode):
    """Notes what is drawn, and the size of all that is computed. After passes of one example each, the pass of all of them
    draws what they drew, row by row."""

    def __init__(self, *alone: "Draws"):
        super().__init__()
        self.drawn: list[Tensor] = []
        self.sizes: list[int] = []
        self.given = zip(*(draws.drawn for draws in alone), strict=True) if alone else None

    def __torch_dispatch__(self, operator: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if operator is torch.ops.aten.native_dropout.default:  # a GPU's, which draws and multiplies in one
            x, p, _ = args
            with self:
                kept = torch.empty_like(x).bernoulli_(1 - p)
                return x * kept / (1 - p), kept.bool()
        result = operator(*args, **(kwargs or {}))
        made = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        self.sizes += [value.numel() for value in made]
        if torch.Tag.nondeterministic_seeded in operator.tags:
            if self.given is not None:
                made[0].copy_(joined(next(self.given), made[0].shape))
            self.drawn.append(made[0].clone())
        return result


def joined(drawn: Sequence[Tensor], shape: torch.Size) -> Tensor:
    """What examples drew alone, as what they draw together: one tensor of a `shape` with a row for each.

    Raises
    ------
    ValueError : if it has no such rows, in any dimension.
    """
    own = drawn[0].shape
    for d in range(len(own)):
        if shape == (*own[:d], len(drawn) * own[d], *own[d + 1 :]):
            return torch.cat(drawn, d)
    raise ValueError(f"{list(shape)} numbers are drawn for {len(drawn)} examples, and {list(own)} for one")


def same(a: Any, b: Any) -> bool:
    """Whether two outputs are the same but for rounding."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape:
            return False
        rounding = torch.finfo(a.dtype if a.is_floating_point() else torch.float32)
        tolerance = max(1e-3, 2 * rounding.eps)
        a, b = a.double(), b.double()
        differ = (a != b) & ~(a.isnan() & b.isnan())
        # The scale is that of what differs: the -1e9 of a masked class, the same in both, would hide all else.
        a, b = a[differ], b[differ]
        finite = a[a.isfinite()]
        largest = finite.abs().amax().item() if len(finite) else 0.0
        return torch.allclose(a, b, rtol=tolerance, atol=tolerance * largest + rounding.tiny)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
