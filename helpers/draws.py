"""Whether passes through a network draw gates: its layers say which there are, but not whether they are called."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from helpers import functional, gates
from helpers.inputs import Inputs, call, each, parts, repeated, size
from helpers.seeding import seeded, state_of_pytorch

# So many passes must not all return the same; more of them if they have few rows, all of which a low rate may spare.
PASSES = 10
ROWS = 128


def require_draws(model: nn.Module, x: Inputs, output: Callable[[Tensor], Tensor]) -> None:
    """
    Raises
    ------
    ValueError : if `model` has no stochastic layer, or draws in training mode only: because it calls a layer then only, or in
        code where no dropout is found; if one module drops and keeps running statistics; if a pass over `x` calls no layer
        whose rate is known, and sampled passes never differ.
    """
    layers = gates.require_stochastic_layers(model)
    if not functional.runs_own_code(model):
        return
    few = each(lambda part: part[:2], x)
    sampled = watched(model, few)
    if moved := {name: layers[name] for name in layers if layers[name] in sampled.moved}:
        raise ValueError(
            f"{described(model, moved.values())} would change its running statistics whenever masks are drawn: it drops in its "
            "own code, for which it has to be in training mode. Give the dropout a module of its own, such as nn.Dropout."
        )
    if guarded := passed_by(model, few, layers, sampled.reached):
        raise ValueError(
            f"{guarded} would not be sampled: code of this network asks for `self.training` before it calls what drops, and "
            "while masks are drawn only dropout layers are in training mode, not what they are in. Call them always; in eval "
            "mode they drop nothing by themselves."
        )
    known = {*layers.values(), *(module for module in model.modules() if isinstance(module, nn.RReLU))}
    if missed := watched(model, few, model.modules()).drawing & sampled.reached - sampled.drawing - known:
        raise ValueError(
            f"in training mode {described(model, missed)} draws random numbers that would not be sampled: neither a dropout "
            "layer in it does so, nor code that asks for its own `self.training`. Use nn.Dropout there, or "
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


def described(model: nn.Module, modules: Collection[nn.Module]) -> str:
    """Names and kinds of some `modules` of `model`."""
    found = [(name, type(module).__name__) for name, module in model.named_modules() if module in modules]
    return ", ".join(f"{name!r} ({kind})" if name else kind for name, kind in found)


@dataclass
class Pass:
    """What a pass through a network did, as far as it got. Modules that are scripted count to what they are in."""

    reached: set[nn.Module] = field(default_factory=set)  # modules that were called
    drawing: set[nn.Module] = field(default_factory=set)  # those whose own code drew random numbers from PyTorch
    moved: set[nn.Module] = field(default_factory=set)  # those whose running statistics changed


def watched(model: nn.Module, x: Inputs, hosts: Collection[nn.Module] = ()) -> Pass:
    """A sampled pass over `x`, with `hosts` in training mode, too, that leaves all buffers as they are."""
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
        with (
            gates.sampling(model),
            gates.uncompiled(),
            torch.no_grad(),
            seeded(0, device),
            buffers_put_back(model) as before,
        ):
            state = state_of_pytorch(device)
            for host in hosts:
                host.training = True
            with suppress(Exception):  # the passes that are averaged will say what is wrong, if they fail too
                call(model, repeated(x, 1))
            for module, name, buffer in before:
                if name.startswith("running_") and not torch.equal(getattr(module, name), buffer):
                    found.moved.add(module)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@contextmanager
def buffers_put_back(model: nn.Module) -> Iterator[list[tuple[nn.Module, str, Tensor]]]:
    """Passes in here change copies of running statistics and the like. Gives module, name and original of each buffer."""
    found = [(module, *named) for module in model.modules() for named in module.named_buffers(recurse=False)]
    try:
        for module, name, buffer in found:
            setattr(module, name, buffer.clone())
        yield found
    finally:
        for module, name, buffer in found:
            setattr(module, name, buffer)


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
    also = watched(model, x, hosts.values()).reached
    return [name for name in hosts if layers[name] in also]
