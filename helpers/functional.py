"""Dropout that is no layer: modules whose own code calls `F.dropout(x, p, self.training)`, or attention that drops.

No layer can be found in them and no hook set, but the mode of the module that makes the call decides whether it drops.
Such a module is found by reading what its methods call, without running it.
"""

import dis
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache, partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

DROPOUTS = {
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, F.rrelu),
    *(torch.dropout, torch.alpha_dropout, torch.feature_alpha_dropout, torch.rrelu, torch.bernoulli),
    *(torch.dropout_, torch.alpha_dropout_, torch.feature_alpha_dropout_, torch.feature_dropout, torch.native_dropout),
}
NOISE = {  # of which some make gates by hand
    *(torch.rand, torch.rand_like, torch.randn, torch.randn_like, torch.normal, torch.randint, torch.randint_like),
    *(torch.multinomial, torch.poisson, torch.binomial, torch.randperm, F.gumbel_softmax),
    *(random.random, random.uniform, np.random.rand, np.random.random, np.random.uniform, np.random.binomial),
}
# Methods of a tensor, of a distribution, and of NumPy's generators.
METHODS = {
    *(
        "bernoulli",
        "bernoulli_",
        "normal_",
        "uniform_",
        "exponential_",
        "geometric_",
        "log_normal_",
        "cauchy_",
        "random_",
    ),
    *("sample", "rsample", "binomial"),
}
# Attention drops only where it is told to, so that calling it alone says nothing.
ATTENTION = {F.scaled_dot_product_attention, F.multi_head_attention_forward}
DRAWING = DROPOUTS | ATTENTION | NOISE | METHODS

# What Lightning and others call in their loops: there inputs may be mixed and noise added that no forward adds.
STEPS = {"training_step", "validation_step", "test_step", "predict_step"}

# What a function may be wrapped in, and where each keeps it.
WRAPPERS = {
    FunctionType: "__wrapped__",  # by a decorator
    staticmethod: "__func__",
    classmethod: "__func__",
    property: "fget",
    partial: "func",
    MethodType: "__func__",
}
HELD = (FunctionType, partial, MethodType)  # what a module may keep to call it


def drops_in_forward(module: nn.Module) -> bool:
    """Whether code of `module` names both `self.training` and a functional dropout, dropping attention or random numbers.

    The methods and properties of its class are read, decorated or not, the functions that it keeps, and those that they
    call by name; PyTorch's own are not, nor those that are apart from a forward (`is_apart`), unless it calls them. The rate is
    not known: it may be zero.
    """
    found = code_of(module)
    return "training" in found and not found.isdisjoint(DRAWING)


def asks_for_mode(module: nn.Module) -> bool:
    """Whether code of `module` that is not PyTorch's names `self.training`."""
    return "training" in code_of(module)


def recomputes(module: nn.Module) -> bool:
    """Whether `module` or its code has to do with checkpoints, such as `torch.utils.checkpoint`: activations that are
    computed a second time on the way back, where a context of the way there is over."""
    named = {thing if isinstance(thing, str) else getattr(thing, "__name__", "") for thing in code_of(module)}
    return any("checkpoint" in name for name in named | {type(module).__module__})


def ignores_mode(module: nn.Module) -> bool:
    """Whether `module` has a forward that is not PyTorch's and never asks for `self.training`, as dropout that is always
    on does not."""
    return not of_pytorch(type(module).forward) and not asks_for_mode(module)


def runs_own_code(model: nn.Module) -> bool:
    """Whether some module of `model` is scripted, has a forward that is not PyTorch's or a hook that draws random numbers:
    then its layers do not say all that it does."""
    return any(
        "forward" in vars(module)
        or isinstance(module, torch.jit.ScriptModule)
        or not of_pytorch(type(module).forward)
        or not reached(hooks(module)).isdisjoint(DRAWING)
        for module in model.modules()
    )


def hooks(module: nn.Module) -> list[Callable]:
    """What is called before and after the forward of `module`."""
    return [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]


def is_modified(module: nn.Module, but: tuple[type, ...] = ()) -> bool:
    """Whether somebody's code is called before, after or in the place of the forward of `module`, other than hooks of the
    kinds `but`."""
    return "forward" in vars(module) or any(not isinstance(hook, but) for hook in hooks(module))


def code_of(module: nn.Module) -> set:
    """What is `reached` from the class of `module`, and from the functions that it keeps itself."""
    return own_code(type(module)) | reached(value for value in vars(module).values() if isinstance(value, HELD))


@cache
def own_code(kind: type[nn.Module]) -> set:
    """What is `reached` from the members of `kind` and of those of its bases that are not PyTorch's."""
    bases = [base for base in kind.__mro__ if not of_pytorch(base)]
    members = [(n, member) for base in bases for n, member in vars(base).items() if not isinstance(member, str)]
    called, more = set(), {"forward"}
    while more:
        called |= more
        code = reached(member for name, member in members if name in more)
        more = {name for name, _ in members if name in code} - called
    return reached(member for name, member in members if name in called or not is_apart(name))


def is_apart(name: str) -> bool:
    """Whether a method is named as those are that take no part in a forward: that draw the first weights, such as
    `reset_parameters` and `_init_weights`, that load or save them, or that are a step of a loop, such as `training_step`."""
    return "init" in name or name.startswith(("reset", "load", "save")) or name in STEPS


def of_pytorch(thing: type | Callable) -> bool:
    return (getattr(thing, "__module__", None) or "").partition(".")[0] in ("torch", "builtins")


def is_plain(thing: object) -> bool:
    return isinstance(thing, FunctionType) and not of_pytorch(thing)


def reached(start: Iterable[object]) -> set:
    """The functions in `start`, what they wrap and mention, and so on: functions, and names of attributes."""
    found, rest = set(), list(start)
    while rest:
        thing = rest.pop()
        if not isinstance(thing, (str, BuiltinFunctionType, *WRAPPERS)) or thing in found:
            continue
        found.add(thing)
        rest += [getattr(thing, name, None) for kind, name in WRAPPERS.items() if isinstance(thing, kind)]
        if is_plain(thing):
            rest += mentioned(thing.__code__, thing.__globals__, closure(thing))
    return found


def mentioned(code: CodeType, scope: dict, outer: dict) -> Iterator[object]:
    """What `code` mentions: ``F.dropout`` as that function, ``self.training`` and ``x.bernoulli_`` as their last names.

    scope, outer : {name: object} of the global names, and of those of the functions around it.
    """
    missing, value, local = object(), None, outer | imported(code)
    for instruction in dis.get_instructions(code):
        operation, name = instruction.opname, instruction.argval
        if operation in ("LOAD_ATTR", "LOAD_METHOD"):
            if not isinstance(value, ModuleType):
                yield name
            value = attribute(value, name, missing)
        elif operation in ("LOAD_GLOBAL", "LOAD_NAME"):
            value = scope.get(name, missing)
        elif "LOAD_FAST" in operation or operation == "LOAD_DEREF":
            *before, name = name if isinstance(name, tuple) else (name,)  # newer versions of Python load two at once
            yield from (thing for other in before if not isinstance(thing := local.get(other), str))
            value = local.get(name, missing)
        else:
            value = missing
        if not isinstance(value, str):  # a text that the code uses, which may be any word
            yield value
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from mentioned(constant, scope, local)


def attribute(value: object, name: str, missing: object) -> object:
    """``value.name``, or `missing`, whatever comes of asking: a module or a configuration may want to be set up first."""
    try:
        return getattr(value, name, missing)
    except Exception:
        return missing


def closure(function: FunctionType) -> dict[str, object]:
    """{name: object} of what `function` takes from the functions around it, as far as it is there yet."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # an empty cell
            found[name] = cell.cell_contents
    return found


def imported(code: CodeType) -> dict[str, object]:
    """{name: object} of what `code` imports. Nothing is imported here: what it names may have been, by somebody else."""
    found, module, value, names = {}, None, None, None
    for instruction in dis.get_instructions(code):
        operation, name = instruction.opname, instruction.argval
        if operation == "LOAD_CONST":
            names = name  # those that are imported from a module; None for ``import a.b``, which is a
        elif operation == "IMPORT_NAME":
            module = value = sys.modules.get(name if names else name.partition(".")[0])
        elif operation == "IMPORT_FROM":
            value = attribute(value, name, None)  # of a, and of a.b, in ``import a.b.c as d``
        elif operation.startswith("STORE") and module is not None:
            found[name[0] if isinstance(name, tuple) else name] = value
            value = module  # from which more may be imported
        elif operation not in ("SWAP", "POP_TOP"):
            module = None
    return found
