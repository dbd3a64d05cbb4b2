"""What a network is called with: one tensor, several in a tuple or list, or several by name in a dictionary.

    x                        model(x)
    (a, b)                   model(a, b)
    {"left": a, "right": b}  model(left=a, right=b)

Each tensor has the examples in its first dimension.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Tensor | tuple[Tensor, ...] | list[Tensor] | Mapping[str, Tensor]


def call(model: nn.Module, x: Inputs) -> Any:
    """What `model` makes of `x`."""
    if isinstance(x, Mapping):
        return model(**x)
    return model(*x) if isinstance(x, tuple | list) else model(x)


def is_inputs(x: Any) -> bool:
    """Whether `x` is a tensor, or has nothing but tensors in it."""
    found = x.values() if isinstance(x, Mapping) else x if isinstance(x, tuple | list) else [x]
    return all(isinstance(part, Tensor) for part in found)


def parts(x: Inputs) -> list[Tensor]:
    """The tensors in `x`.

    Raises
    ------
    TypeError : if there is anything but tensors in it.
    """
    found = list(x.values()) if isinstance(x, Mapping) else list(x) if isinstance(x, tuple | list) else [x]
    if others := {type(part).__name__ for part in found if not isinstance(part, Tensor)}:
        raise TypeError(f"expected a tensor, or a tuple or dictionary of tensors, not {', '.join(sorted(others))}")
    return found


def each(change: Callable[[Tensor], Tensor], x: Inputs) -> Inputs:
    """`x` with each of its tensors changed."""
    if isinstance(x, Mapping):
        return {name: change(part) for name, part in x.items()}
    return tuple(map(change, x)) if isinstance(x, tuple | list) else change(x)


def size(x: Inputs) -> int:
    """The number of examples N.

    Raises
    ------
    ValueError : if the tensors in `x` do not agree on it.
    """
    sizes = {len(part) for part in parts(x)}
    if len(sizes) != 1:
        raise ValueError(f"the inputs have {sorted(sizes)} examples; all must have the same number")
    return sizes.pop()


def split(x: Inputs, batch_size: int) -> Iterator[Inputs]:
    """`batch_size` examples of `x` after the other."""
    require_positive("batch_size", batch_size)
    for start in range(0, size(x), batch_size):
        yield each(lambda part: part[start : start + batch_size], x)  # noqa: B023 - used before the next turn


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of `model` are; the CPU for a model without parameters."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def repeated(x: Inputs, times: int) -> Inputs:
    """A copy of `x` with all its examples so many times, one round after the other; channels last stay so."""
    return each(lambda part: torch.cat([part] * times), x)


def require_positive(name: str, count: int) -> None:
    """Raise ValueError unless there is at least one."""
    if count < 1:
        raise ValueError(f"{name} must be at least 1, not {count}")


def require_finite(x: Inputs) -> None:
    """
    Raises
    ------
    ValueError : if there are no examples, or one holds NaN or infinity.
    """
    if size(x) == 0:
        raise ValueError("there are no examples: the first dimension of the inputs is 0")
    for part in parts(x):
        # A sum is finite only if all its terms are, and is found several times faster; it may overflow all the same.
        if part.is_floating_point() and not part.sum().isfinite() and not part.isfinite().all():
            bad = (~part.isfinite()).flatten(1).any(1).sum() if part.ndim > 1 else (~part.isfinite()).sum()
            raise ValueError(f"{bad} of the {len(part)} inputs hold NaN or infinity; remove or repair them first")
