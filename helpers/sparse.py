"""Networks with many zeros: what they take on disk and in arithmetic."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from helpers import gates
from helpers.files import write
from helpers.inputs import call
from helpers.predictors import first_batch
from helpers.variational import PLAIN, kept

FORMAT = "1"


def dump(network: nn.Module, dense: bool = False) -> bytes:
    """The parameters and buffers of a plain `network` as a safetensors file.

    Of a weight [out, ...] with enough zeros only the others are there, row by row: their values, their columns in the
    weight flattened to [out, in], and the number of values before each row (compressed sparse rows).

    Parameters
    ----------
    dense : store all values of all weights.
    """
    from safetensors.torch import save as serialise

    tensors = {}
    for name, value in network.state_dict().items():
        value = value.detach().cpu().clone(memory_format=torch.contiguous_format)  # tied weights are stored twice
        parts = {} if dense or value.ndim < 2 else sparse_parts(value)
        smaller = parts and total_bytes(parts) < total_bytes({"": value})
        tensors |= {f"{name}:{part}": tensor for part, tensor in parts.items()} if smaller else {name: value}
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    return serialise(tensors, {"format": FORMAT, "shapes": json.dumps(shapes)})


def sparse_parts(weight: Tensor) -> dict[str, Tensor]:
    """{"rows": [out + 1] int32, "columns": [n] uint16 or int32, "values": [n]} of a weight [out, ...]."""
    matrix = weight.flatten(1)
    row, column = matrix.nonzero(as_tuple=True)
    rows = torch.cat([row.new_zeros(1), row.bincount(minlength=len(matrix)).cumsum(0)])
    narrow = torch.uint16 if matrix.shape[1] <= 2**16 else torch.int32
    return {"rows": rows.to(torch.int32), "columns": column.to(narrow), "values": matrix[row, column]}


def total_bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def save(network: nn.Module, path: str | Path) -> int:
    """Write `network` to `path` as `dump` puts it.

    Returns
    -------
    The size of the file in bytes.
    """
    content = dump(network)
    write(Path(path), content)
    return len(content)


def load(network: nn.Module, path: str | Path) -> nn.Module:
    """Fill a plain `network` with what `save` has written of one of the same architecture.

    Returns
    -------
    `network` itself.

    Raises
    ------
    ValueError : if the file is damaged or no such file, or belongs to another architecture. `network` is as it was.
    OSError : if it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            if file.metadata()["format"] != FORMAT:
                raise ValueError(f"its format is {file.metadata()['format']}, this version reads {FORMAT}")
            shapes = {name: tuple(shape) for name, shape in json.loads(file.metadata()["shapes"]).items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = {name: restored(name, shape, tensors) for name, shape in shapes.items()}
    except (SafetensorError, KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged, or is not what helpers.sparse.save writes: {error!r}") from error
    here = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    if shapes != here:
        different = sorted(name for name in shapes.keys() | here.keys() if shapes.get(name) != here.get(name))
        lines = [f"  {name}: {shapes.get(name, 'none')} there, {here.get(name, 'none')} here" for name in different]
        raise ValueError("\n".join([f"{path} belongs to another architecture:", *lines]))
    network.load_state_dict(state)
    return network


def restored(name: str, shape: tuple[int, ...], tensors: Mapping[str, Tensor]) -> Tensor:
    """The dense tensor called `name`."""
    if name in tensors:
        return tensors[name]
    rows, columns, values = (tensors[f"{name}:{part}"] for part in ("rows", "columns", "values"))
    matrix = torch.zeros(shape, dtype=values.dtype).flatten(1)
    row = torch.arange(len(matrix)).repeat_interleave(rows.diff().long())
    matrix[row, columns.long()] = values
    return matrix.view(shape)


def multiply_adds(network: nn.Module, x: Tensor) -> int:
    """Multiplications by weights that are not zero, in one pass of a plain `network` for the first example of `x` [N, ...].

    Counted are the layers that `pruned` prunes, `nn.Linear` and `nn.Conv2d`.
    """
    masks, total = kept(network), 0

    def count(name: str):
        def hook(layer: nn.Module, _: tuple, y: Tensor) -> None:
            nonlocal total
            total += int(masks[name].sum()) * (y.numel() // len(layer.weight))  # each weight serves every position

        return hook

    hooks = [m.register_forward_hook(count(name)) for name, m in network.named_modules() if isinstance(m, PLAIN)]
    try:
        with gates.deterministic(network), gates.uncompiled(), torch.no_grad():
            call(network, first_batch(network, x, 1))
    finally:
        for hook in hooks:
            hook.remove()
    return total
