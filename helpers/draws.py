"""Whether passes through a network draw gates: its layers say which there are, but not whether they are called."""

from collections.abc import Callable, Collection
from contextlib import suppress

import torch
from torch import Tensor, nn

from helpers import functional, gates
from helpers.inputs import Inputs, call, each, parts, repeated, size
from helpers.seeding import seeded

# So many passes must not all return the same; more of them if they have few rows, all of which a low rate may spare.
PASSES = 10
ROWS = 128


def require_draws(model: nn.Module, x: Inputs, output: Callable[[Tensor], Tensor]) -> None:
    """
    Raises
    ------
    ValueError : if `model` has no stochastic layer, or calls one in training mode only; if a pass over `x` calls none whose
        rate is known, and sampled passes never differ.
    """
    layers = gates.require_stochastic_layers(model)
    if not functional.runs_own_code(model):
        return
    few = each(lambda part: part[:2], x)
    reached = called(model, few)
    if guarded := passed_by(model, few, layers, reached):
        raise ValueError(
            f"{guarded} would not be sampled: code of this network asks for `self.training` before it calls what drops, and "
            "while masks are drawn only dropout layers are in training mode, not what they are in. Call them always; in eval "
            "mode they drop nothing by themselves."
        )
    if any(gates.rate_is_known(layer) and layer in reached for layer in layers.values()):
        return
    with gates.sampling(model), torch.no_grad(), seeded(0, parts(x)[0].device):
        passes = max(PASSES, ROWS // size(x))
        first, *others = (output(call(model, repeated(x, 1))) for _ in range(passes))
    if all(torch.equal(first, other) for other in others):
        raise ValueError(
            f"{passes} sampled passes through {type(model).__name__} return the same, so there is nothing to average. Of the "
            f"dropout in {list(layers)}: is its rate zero, or is it never reached?"
        )


def called(model: nn.Module, x: Inputs, hosts: Collection[nn.Module] = ()) -> set[nn.Module]:
    """The modules that a sampled pass over `x` calls, as far as it gets, with `hosts` in training mode, too."""
    found: set[nn.Module] = set()
    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]  # has no hooks
    hooks = [module.register_forward_pre_hook(lambda module, _: found.add(module)) for module in modules]
    try:
        with gates.sampling(model), gates.uncompiled(), torch.no_grad(), seeded(0, parts(x)[0].device):
            for host in hosts:
                host.training = True
            with suppress(Exception):  # the passes that are averaged will say what is wrong, if they fail too
                call(model, repeated(x, 1))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def passed_by(model: nn.Module, x: Inputs, layers: dict[str, nn.Module], reached: Collection[nn.Module]) -> list[str]:
    """The names of those `layers` that are not `reached` because the module that would call them is in eval mode."""
    hosts = {}
    for name, layer in layers.items():
        if layer in reached:
            continue
        steps = name.split(".")
        path = [model.get_submodule(".".join(steps[:depth])) for depth in range(len(steps) + 1)]
        host = max((i for i, module in enumerate(path) if module in reached), default=0)
        skipped = [module for module in path[host + 1 :] if not isinstance(module, nn.ModuleList | nn.ModuleDict)]
        # With parameters it is a part of the network that has no place in eval mode, as an auxiliary classifier.
        if functional.asks_for_mode(path[host]) and not list(skipped[0].parameters()):
            hosts[name] = path[host]
    if not hosts:
        return []
    also = called(model, x, hosts.values())
    return [name for name in hosts if layers[name] in also]
