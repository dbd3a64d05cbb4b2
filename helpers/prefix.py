"""Where the two halves of a network (`helpers.halves`) part: in front of everything that a gate reaches.

That is found by following one example through the network symbolically (`torch.fx`), and the halves are tried before they
are used: from the same random numbers they must return what the network returns. Where that is not so, or the network
cannot be followed, because its path depends on its input or on chance for example, all of it is the second half.
"""

import copy
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from helpers import functional, gates
from helpers.folding import folding, same
from helpers.halves import Halves, whole
from helpers.inputs import Inputs, call, device_of, each, repeated
from helpers.seeding import seeded, state_of_pytorch

log = logging.getLogger(__name__)

TRIALS = 3  # of a network that seems to draw numbers outside of its gates


def halved(model: nn.Module, x: Inputs) -> Halves:
    """`model`, whose gates are being sampled (`gates.sampling`), as two halves, of which the first draws nothing.

    Parameters
    ----------
    x : examples on the model's device; the first two are what the halves are tried with.
    """
    for _ in range(TRIALS):
        try:
            return in_two(model, x)
        except Exception as error:  # whatever a network of somebody else's does when it meets symbols
            reason = error
        if not isinstance(reason, OtherNumbers):
            break
    log.debug("%s runs whole in every pass: %r", type(model).__name__, reason)
    return whole(model)


def in_two(model: nn.Module, x: Inputs) -> Halves:
    """The two halves of `model`, tried; or an error, an `OtherNumbers` where it was random numbers that kept it whole."""
    device = device_of(model)
    # Compiled, a network draws other numbers than its halves, which are not.
    with torch.no_grad(), seeded(0, device), gates.uncompiled():
        state = random_state(device)
        found = traced(model, x)
        if random_state(device) != state:  # such a number, and the path that it chose, would be in every pass
            raise OtherNumbers("it draws random numbers outside of its gates")
        pair = each(lambda part: torch.cat([part[:2], part[:1]])[:2], x)  # one example twice if there is no other
        values = tried(found, model, pair, device)
        found.folds, found.width = folding(found, values, pair)
    return found


class OtherNumbers(ValueError):
    """Random numbers were drawn that belong to no gate: by the network or, once in a while, by another thread, with which
    it shares the generators of Python and NumPy."""


class Whole(nn.Module):
    """A network as the only layer of another, so that its hooks and a forward of its own are followed too."""

    def __init__(self, network: nn.Module, like: Inputs):
        super().__init__()
        self.network, self.like = network, like

    def forward(self, x):
        if isinstance(self.like, Mapping):
            return self.network(**{name: x[name] for name in self.like})
        return self.network(*(x[i] for i in range(len(self.like)))) if isinstance(self.like, tuple) else self.network(x)


class Tracer(fx.Tracer):
    """Takes layers of PyTorch, layers that draw, and modules with hooks as they are, and looks into all others."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        if functional.is_modified(module) or super().is_leaf_module(module, name):
            return True
        return gates.is_stochastic(module) and not (functional.drops_in_forward(module) and any(module.children()))


def traced(model: nn.Module, x: Inputs) -> Halves:
    """The two halves of `model`, not yet tried."""
    # Following a network leaves symbols in whatever it stores on itself, hence in a copy; it shares tensors and layers.
    memo = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    tracer = Tracer()
    memo |= {
        id(module): module for name, module in model.named_modules() if name and tracer.is_leaf_module(module, name)
    }
    network = Whole(copy.deepcopy(model, memo), each(lambda part: part, x))
    graph = tracer.trace(network)

    nodes, output = list(graph.nodes)[:-1], list(graph.nodes)[-1]
    drawing = [node for node in nodes if draws(node, network)]
    if not drawing:
        raise ValueError("none of its gates is met on the way")
    gated = reached(drawing, nodes)
    rest = nodes[nodes.index(gated[0]) :]
    if any(may_be_in_place(node, network) for node in rest):
        gated = rest  # then what comes later in the program must not be computed earlier
    first = [node for node in nodes if node not in set(gated)]
    between = [node for node in first if any(user in set(gated) or user is output for user in node.users)]
    given = [node for node in first if node.op == "placeholder"]
    varying = set(reached(given, nodes))
    return Halves(
        before=compiled(subgraph(first[len(given) :], given, tuple(between)), network),
        after=compiled(subgraph(gated, between, output.args[0]), network),
        varies=[node in varying for node in between],
        layers=chain(between, gated, output, network),
    )


def chain(
    between: Sequence[fx.Node], gated: Sequence[fx.Node], output: fx.Node, network: nn.Module
) -> list[nn.Module] | None:
    """The `gated` nodes as layers in a row, if they are that."""
    links = zip([*between, *gated], [*gated, output], strict=False)
    if len(between) != 1 or any(node.args != (last,) or node.kwargs for last, node in links):
        return None
    return [network.get_submodule(node.target) for node in gated] if all(n.op == "call_module" for n in gated) else None


def reached(start: Iterable[fx.Node], nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """Those of `nodes`, in order, that are in `start` or depend on what is."""
    found = dict.fromkeys(start)
    for node in nodes:
        if any(argument in found for argument in node.all_input_nodes):
            found[node] = None
    return [node for node in nodes if node in found]


def draws(node: fx.Node, network: nn.Module) -> bool:
    """Whether `node` draws gates."""
    if node.op == "call_module":
        return any(map(gates.is_stochastic, network.get_submodule(node.target).modules()))
    return node.target in functional.DRAWING


def may_be_in_place(node: fx.Node, network: nn.Module) -> bool:
    if node.op == "call_module":
        return any(getattr(module, "inplace", False) for module in network.get_submodule(node.target).modules())
    name = node.target if isinstance(node.target, str) else node.target.__name__
    flags = [value is True for value in (*node.args, *node.kwargs.values())]
    return node.op.startswith("call") and (any(flags) or name.endswith("_") or name in ("setitem", "iadd", "imul"))


def subgraph(nodes: Iterable[fx.Node], given: Iterable[fx.Node], wanted: Any) -> fx.Graph:
    """A graph of some `nodes` that computes what is `wanted` from what is `given`."""
    graph = fx.Graph()
    new = {node: graph.placeholder(node.name) for node in given}
    for node in nodes:
        new[node] = graph.node_copy(node, new.__getitem__)
    graph.output(fx.node.map_arg(wanted, new.__getitem__))
    return graph


def compiled(graph: fx.Graph, network: nn.Module) -> Callable:
    """`graph` as a function of what it is given, which calls the layers of `network`."""
    code = graph.python_code("self")
    scope = dict(code.globals)
    exec(code.src, scope)
    return partial(scope["forward"], network)


def tried(found: Halves, model: nn.Module, x: Inputs, device: torch.device) -> Sequence[Any]:
    """What the second half needs of `x`, after a trial of both halves.

    Raises
    ------
    ValueError : if from the same random numbers the halves return something else than `model`, or draw other numbers.
    """
    with seeded(0, device):
        expected, state = call(model, repeated(x, 1)), random_state(device)
    if functional.runs_own_code(model):  # which may leave behind what it drew, as in weights that a forward sets
        with seeded(1, device):
            call(model, repeated(x, 1))
    with seeded(0, device):
        start = random_state(device)
        values = found.before(repeated(x, 1))
        if random_state(device) != start:
            raise OtherNumbers("it draws random numbers that belong to no gate known here")
        if not same(found.after(*found.copies(values, 1)), expected):
            raise ValueError("in two halves it returns something else")
        if random_state(device) != state:  # the numbers of Python and NumPy go on, whatever the seed
            raise OtherNumbers("in two halves it draws other random numbers, or some are not PyTorch's")
    return values


def random_state(device: torch.device) -> list:
    """The random state of PyTorch, Python and NumPy, to be compared."""
    _, numbers, position, *_ = np.random.get_state()
    return [*state_of_pytorch(device), random.getstate(), numbers.tobytes(), position]
