"""Mini-batches from what people have: tensors, a Dataset or a DataLoader, with or without labels in it."""

from collections.abc import Iterable, Iterator, Mapping
from operator import index
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from helpers.inputs import Inputs, is_inputs, require_finite, require_positive

LABELS = {"label", "labels", "target", "targets"}  # entries of a dictionary that are no inputs


class Shuffled:
    """Batches of one or more tensors [N, ...], in an order drawn afresh each time they are gone through.

    Each batch is a tuple with `batch_size` rows of every tensor; the last batch may be smaller, and a single row that is
    left over joins the batch before it.
    """

    def __init__(self, *tensors: Tensor, batch_size: int):
        self.tensors, self.rows = tensors, Rows(len(tensors[0]), batch_size)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for numbers in self.rows:
            rows = torch.tensor(numbers)
            # A GPU need not have come this far: what it is sent lies ready for it.
            yield tuple(tensor[rows.to(tensor.device, non_blocking=True)] for tensor in self.tensors)


class Rows:
    """The numbers 0..n-1, shuffled afresh each time, in batches.

    From a single example BatchNorm has nothing to learn, and refuses it; hence no batch of one, unless all are.
    """

    def __init__(self, n: int, batch_size: int):
        batch_size = index(batch_size)
        require_positive("batch_size", batch_size)
        whole, rest = divmod(n, batch_size)
        self.sizes = [batch_size] * whole + [rest] * (rest > 0)
        if rest == 1 and whole:
            self.sizes[-2:] = [batch_size + 1]

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[list[int]]:
        for rows in torch.randperm(sum(self.sizes)).split(self.sizes):
            yield rows.tolist()


class Unlabelled:
    """The inputs in each of some `batches`, as `inputs_of` finds them; labels that come with them are ignored.

    Raises
    ------
    TypeError : at a batch in which it is not plain what the inputs are.
    ValueError : at a batch that is empty, or holds NaN or infinity, unless all are known to be `finite`.
    """

    def __init__(self, batches: Iterable[Any], finite: bool = False):
        self.batches, self.finite = batches, finite

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Inputs]:
        for batch in self.batches:
            x = inputs_of(batch)
            if not self.finite:  # to ask again would have every step wait for a GPU
                require_finite(x)
            yield x


def unlabelled(inputs: Tensor | Dataset | DataLoader, batch_size: int) -> Unlabelled:
    """Batches of inputs from a tensor [N, ...], a Dataset (both shuffled), or a DataLoader (as it comes).

    Raises
    ------
    ValueError : if there are no examples, or a tensor holds NaN or infinity.
    TypeError : if `inputs` is nothing of these, or a tensor with one number per example (labels, most likely).
    """
    if isinstance(inputs, Tensor):
        if looks_like_labels(inputs):
            raise TypeError(
                f"a tensor of shape {list(inputs.shape)} looks like labels; distillation takes inputs [N, ...]"
            )
        require_finite(inputs)
        return Unlabelled(Shuffled(inputs, batch_size=batch_size), finite=True)
    if not isinstance(inputs, Dataset | DataLoader):
        raise TypeError(
            f"expected a tensor [N, ...], a Dataset or a DataLoader of inputs, not {type(inputs).__name__}: make one tensor of "
            "it (torch.stack, torch.from_numpy), or of several inputs a torch.utils.data.StackDataset(name=a, other=b)."
        )
    if isinstance(inputs, Dataset):
        if isinstance(inputs, IterableDataset):
            inputs = DataLoader(inputs, batch_size)
        elif len(inputs) == 0:
            raise ValueError("the data set is empty")
        else:
            inputs = DataLoader(inputs, batch_sampler=Rows(len(inputs), batch_size))
    return Unlabelled(inputs)


def inputs_of(batch: Any) -> Inputs:
    """The inputs in a batch from a loader, without the labels.

        x, (x,) or (x, labels)          x, for model(x)
        {"a": a, "b": b, "labels": y}   {"a": a, "b": b}, for model(a=a, b=b)
        ((a, b),) or ((a, b), labels)   (a, b), for model(a, b)

    `x`, `a` and `b` are tensors [n, ...], labels a tensor [n]. In a dictionary labels are what is called so (`LABELS`);
    in place of `x` there may also be a dictionary.

    Raises
    ------
    TypeError : for anything else; what might be a label is never taken for an input. A pair of tensors (a, b) might be two
        inputs or an input and its target.
    """
    x = batch
    if isinstance(batch, list | tuple) and (len(batch) == 1 or (len(batch) == 2 and looks_like_labels(batch[1]))):
        x = batch[0]
    if isinstance(x, Mapping):
        x = {name: part for name, part in x.items() if name.lower() not in LABELS}
    if x is batch and isinstance(x, list | tuple):
        several = False
    else:
        several = isinstance(x, Mapping | list | tuple) and len(x) > 0 and is_inputs(x)
    if several or (isinstance(x, Tensor) and not looks_like_labels(x)):
        return x
    raise TypeError(
        f"cannot tell the inputs in a batch of {shape_of(batch)}: expected a tensor [n, ...], or a pair of inputs [n, ...] "
        "and labels [n], which are ignored. Let the loader yield inputs alone, for example with "
        "collate_fn=lambda rows: torch.stack([x for x, *_ in rows]); several of them in a dictionary, for "
        "model(**batch), or as a tuple in the place of the input, ((a, b), labels), for model(a, b)."
    )


def looks_like_labels(part: Any) -> bool:
    """Whether `part` has one number per example, as class labels and scalar targets do and inputs do not."""
    return isinstance(part, Tensor) and part.ndim <= 1


def shape_of(batch: Any) -> str:
    """What a batch looks like, for a message."""
    if isinstance(batch, list | tuple):
        return f"({', '.join(map(shape_of, batch))})"
    if isinstance(batch, Mapping):
        return f"{{{', '.join(f'{name}: {shape_of(part)}' for name, part in batch.items())}}}"
    return str(list(batch.shape)) if isinstance(batch, Tensor) else type(batch).__name__
