"""Whether passes through a network draw gates: its layers say which there are, but not whether they are called."""

import copy
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from helpers import functional, gates
from helpers.inputs import Inputs, call, each, parts, repeated, size
from helpers.seeding import seeded, state_of_pytorch

log = logging.getLogger(__name__)

# So many passes must not all return the same; more of them if they have few rows, all of which a low rate may spare.
PASSES = 10
ROWS = 128
RETRIES = 3  # what draws in some passes only is watched for so much longer


def require_draws(model: nn.Module, x: Inputs, output: Callable[[Tensor], Tensor]) -> None:
    """
    All is tried on a copy of `model`. Where there can be none, what only a pass in training mode would show is not seen.

    Raises
    ------
    ValueError : if `model` has no stochastic layer, or draws in training mode only: because it calls a layer then only, or in
        code where no dropout is found; if a module that drops changes its buffers, such as running statistics; if a pass
        over `x` calls no layer whose rate is known, and sampled passes never differ.
    """
    gates.require_stochastic_layers(model)
    if not functional.runs_own_code(model):
        return
    twin, few = twin_of(model), each(lambda part: part[:2], x)
    model = model if twin is None else twin
    layers = gates.stochastic_layers(model)
    buffers = [(layer, key, buffer.clone()) for layer in layers.values() for key, buffer in statistics(layer)]
    sampled = watched_while_sampling(model, few)
    if moved := [layer for layer, key, before in buffers if not is_same(layer._buffers.get(key), before)]:
        raise ValueError(
            f"{described(model, moved)} would change its running statistics, or what else its buffers hold, whenever masks "
            "are drawn: it drops in its own code, for which it has to be in training mode. Give the dropout a module of its "
            "own, such as nn.Dropout."
        )
    if guarded := passed_by(model, few, layers, sampled.reached):
        raise ValueError(
            f"{guarded} would not be sampled: code of this network asks for `self.training` before it calls what drops, and "
            "while masks are drawn only dropout layers are in training mode, not what they are in. Call them always; in eval "
            "mode they drop nothing by themselves."
        )
    if twin is not None and (missed := drawing_in_training_alone(twin, few, sampled)):
        raise ValueError(
            f"in training mode {described(model, missed)} draws random numbers that would not be sampled: no dropout layer is "
            "found there, and no code that names both its own `self.training` and what drops. Use nn.Dropout there, or "
            "F.dropout(x, p, self.training) in the forward of the module itself; torch.jit.script hides both."
        )
    if any(gates.rate_is_known(layer) and layer in sampled.reached for layer in layers.values()):
        return
    count = max(PASSES, ROWS // size(x))
    with gates.sampling(model), torch.no_grad(), seeded(0, parts(x)[0].device):
        passes = (output(call(model, repeated(x, 1))) for _ in range(count))
        first = next(passes)
        all_the_same = all(torch.equal(first, other) for other in passes)  # until one differs
    if all_the_same:
        raise ValueError(
            f"{count} sampled passes through {type(model).__name__} return the same, so there is nothing to average. Of the "
            f"dropout in {list(layers)}: is its rate zero, or is it never reached?"
        )


def twin_of(model: nn.Module) -> nn.Module | None:
    """A copy of `model`, of which passes in any mode may change what they like; ``None`` if it cannot be copied."""
    try:
        twin = copy.deepcopy(model)
        _ = [module.training for module in twin.modules()]  # which a copy of a frozen script has not
    except Exception as error:  # it may hold anything
        log.debug("%s is not watched in training mode, since it cannot be copied: %r", type(model).__name__, error)
        return None
    return twin


def statistics(layer: nn.Module) -> list[tuple[str, Tensor]]:
    """The buffers of `layer` itself that may be running statistics, by name."""
    found = layer.named_buffers(recurse=False)
    return [(key, b) for key, b in found if not is_lazy(b) and b.is_floating_point() and b.layout == torch.strided]


def is_same(now: Tensor | None, before: Tensor) -> bool:
    if now is None or (now.shape, now.dtype) != (before.shape, before.dtype):
        return False
    return torch.allclose(now, before, rtol=0, atol=0, equal_nan=True)


def described(model: nn.Module, modules: Collection[nn.Module]) -> str:
    """Names and kinds of some `modules` of `model`."""
    found = [(name, type(module).__name__) for name, module in model.named_modules() if module in modules]
    return ", ".join(f"{name!r} ({kind})" if name else kind for name, kind in found)


@dataclass
class Pass:
    """What a pass through a network did, as far as it got. Modules that are scripted count to what they are in."""

    reached: set[nn.Module] = field(default_factory=set)  # modules that were called
    drawing: set[nn.Module] = field(default_factory=set)  # those whose own code drew random numbers from PyTorch


def watched(model: nn.Module, x: Inputs) -> Pass:
    """A pass over `x` in the modes in which the modules of `model` are."""
    found, running, device = Pass(), [model], parts(x)[0].device

    def note_draws() -> None:
        nonlocal state
        if (now := state_of_pytorch(device)) != state:
            found.drawing.add(running[-1])
        state = now

    def enter(module: nn.Module, _) -> None:
        note_draws()
        found.reached.add(module)
        running.append(module)

    def leave(module: nn.Module, *_) -> None:
        note_draws()
        running.pop()

    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]  # has no hooks
    hooks = [module.register_forward_pre_hook(enter, prepend=True) for module in modules]
    hooks += [module.register_forward_hook(leave) for module in modules]
    try:
        with gates.uncompiled(), torch.no_grad(), seeded(0, device):
            state = state_of_pytorch(device)
            with suppress(Exception):  # the passes that are averaged will say what is wrong, if they fail too
                call(model, repeated(x, 1))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def watched_while_sampling(model: nn.Module, x: Inputs, hosts: Collection[nn.Module] = ()) -> Pass:
    """A sampled pass over `x`, with `hosts` in training mode, too."""
    with gates.sampling(model):
        for host in hosts:
            host.training = True
        return watched(model, x)


def drawing_in_training_alone(twin: nn.Module, x: Inputs, sampled: Pass) -> set[nn.Module]:
    """The modules of `twin` that draw random numbers in training mode, and are called but draw none when it is `sampled`."""
    with gates.modes_put_back(twin):
        twin.train()
        for module in twin.modules():
            if isinstance(module, _NormBase):  # which refuses a single example
                module.training = False
        found = watched(twin, x).drawing & sampled.reached - sampled.drawing
    # In training mode PyTorch's RReLU draws even if all its slopes are the same.
    found = {module for module in found if not isinstance(module, nn.RReLU)}
    for _ in range(RETRIES):
        if found:
            found -= watched_while_sampling(twin, x).drawing
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
    also = watched_while_sampling(model, x, hosts.values()).reached
    return [name for name in hosts if layers[name] in also]
