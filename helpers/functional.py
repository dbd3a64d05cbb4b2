"""Dropout that is no layer: modules whose own code calls `F.dropout(x, p, self.training)`, or attention that drops.

No layer can be found in them and no hook set, but the mode of the module that makes the call decides whether it drops.
Such a module is found by reading what its methods call, without running it.
"""

import dis
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FunctionType

import torch
import torch.nn.functional as F
from torch import nn

DROPOUTS = {
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, F.rrelu),
    *(torch.dropout, torch.alpha_dropout, torch.feature_alpha_dropout, torch.rrelu, torch.bernoulli),
}
# Attention drops only where it is told to, so that calling it alone says nothing.
ATTENTION = {F.scaled_dot_product_attention, F.multi_head_attention_forward}
GATE_METHODS = {"bernoulli", "bernoulli_"}  # of a tensor


def drops_in_forward(module: nn.Module) -> bool:
    """Whether the class of `module` names both `self.training` and a functional dropout or dropping attention.

    Its methods are read, and the functions that they call by name; those of PyTorch itself are not. The rate is not
    known: it may be zero.
    """
    return class_drops(type(module))


def runs_own_code(model: nn.Module) -> bool:
    """Whether some module of `model` has a forward that is not PyTorch's: then its layers do not say all that it does."""
    return any("forward" in vars(module) or not of_pytorch(type(module).forward) for module in model.modules())


@cache
def class_drops(kind: type[nn.Module]) -> bool:
    methods = [f for base in kind.__mro__ if not of_pytorch(base) for f in vars(base).values() if is_plain(f)]
    called = set().union(*(reached(method) for method in methods))
    return "training" in called and not called.isdisjoint(DROPOUTS | ATTENTION | GATE_METHODS)


def of_pytorch(thing: type | Callable) -> bool:
    return (getattr(thing, "__module__", None) or "").partition(".")[0] in ("torch", "builtins")


def is_plain(thing: object) -> bool:
    return isinstance(thing, FunctionType) and not of_pytorch(thing)


def reached(function: FunctionType, seen: frozenset = frozenset()) -> set:
    """The global objects and the names of attributes in the code of `function` and of the plain functions it calls."""
    found = set(mentioned(function.__code__, function.__globals__))
    for called in [f for f in found if is_plain(f) and f not in seen]:
        found |= reached(called, seen | {function, called})
    return found


def mentioned(code: CodeType, scope: dict) -> Iterator[object]:
    """What `code` mentions: ``F.dropout`` as that function, ``self.training`` and ``x.bernoulli_`` as their last names."""
    missing, value = object(), None
    for instruction in dis.get_instructions(code):
        name = instruction.argval
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            value = scope.get(name, missing)
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            if value is missing:
                yield name
            value = getattr(value, name, missing)
        else:
            value = missing
            continue
        if callable(value) and value.__hash__ is not None:
            yield value
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from mentioned(constant, scope)
