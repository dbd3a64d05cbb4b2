"""Students that are narrower than their teacher, and what a network costs (Rota Bulò et al. 2016, section 5.3)."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from helpers import gates, predictors


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
    ValueError : if the two differ in more than widths.
    """
    for new, old in pairs(student, teacher):
        if new.weight.shape == old.weight.shape:
            new.load_state_dict(old.state_dict())
        else:
            nn.init.normal_(new.weight, std=0.01)
            nn.init.zeros_(new.bias)
    return gates.remove(student).eval()


def thinned(student: nn.Module, teacher: nn.Module) -> nn.Module:
    """Of each layer of `teacher`, keep as many units, drawn at random, as `student` has there (Fig. 3, right).

    Parameters, returns, raises: as `restarted`.
    """
    units = kept = None
    for new, old in pairs(student, teacher):
        columns = torch.arange(old.weight.shape[1])
        if units is not None:
            features = len(columns) // units  # of one unit: more than one where a map of units has been flattened
            columns = columns.view(units, features)[kept].flatten()
        units = len(old.weight)
        kept = torch.randperm(units)[: len(new.weight)].sort().values
        with torch.no_grad():
            new.weight.copy_(old.weight[kept][:, columns])
            new.bias.copy_(old.bias[kept])
    return gates.remove(student).eval()


def pairs(student: nn.Module, teacher: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Each convolution and linear layer of `student` with the one that it comes from."""
    new, old = ([m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)] for net in (student, teacher))
    if [type(m) for m in new] != [type(m) for m in old]:
        raise ValueError(f"the student's layers {new} are not those of the teacher, {old}, made narrower")
    return list(zip(new, old, strict=True))


def multiply_adds(network: nn.Module, x: Tensor) -> int:
    """Multiplications (each with its addition) in one pass of `network` for one example, the first of `x` [N, ...]."""
    with FlopCounterMode(display=False) as counter:
        predictors.standard(network, x[:1])
    return counter.get_total_flops() // 2
