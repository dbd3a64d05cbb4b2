"""A network in two parts: what no gate reaches, which is the same in every pass and need run only once, and the rest.

The parts are found by following one example through the network symbolically (`torch.fx`), and tried before they are
used: from the same random numbers they must return what the network returns. Where that is not so, or the network
cannot be followed, because its path depends on its input for example, all of it is the second part.
"""

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from helpers import functional, gates, masks
from helpers.inputs import Inputs, call, each, is_inputs, parts, repeated
from helpers.seeding import seeded

log = logging.getLogger(__name__)

VALUES = 2**19  # that enter the second part in a pass: half or twice as many take up to a tenth longer on a processor
ROWS = 2**13  # in a pass at most: behind a narrow second part there may be a wide layer


@dataclass
class Parts:
    """``after(*copies(before(x), 1))`` is a pass through a network.

    before : from inputs to what the second part needs of the first.
    after : from that to what the network returns.
    varies : which of these values have a row for each example.
    folds : whether ``after(*copies(before(x), r))`` is r passes for each example, one round after the other. It is not
        where examples are no rows, or where a mask is drawn for all rows together (dropout of weights, of position tables).
    layers : the second part as layers, each of which takes what the one before it returns; ``None`` if it is no such chain.
    """

    before: Callable[[Inputs], Sequence[Any]]
    after: Callable[..., Any]
    varies: Sequence[bool]
    folds: bool = False
    layers: Sequence[nn.Module] | None = None

    def copies(self, values: Sequence[Any], times: int) -> list[Any]:
        """Copies of `values`, since what comes next may work in place on them, with all examples so many times."""
        pairs = zip(values, self.varies, strict=True)
        return [repeated(v, times if varies else 1) if is_inputs(v) else v for v, varies in pairs]

    def passes(self, values: Sequence[Any], times: int) -> Any:
        """So many passes for each example: the second part of copies of `values`."""
        if self.layers is None or not self.folds or not is_cheap_gate(self.layers[0], values[0]):
            return self.after(*self.copies(values, times))
        h = masks.dropped_copies(values[0], self.layers[0].p, times)
        for layer in self.layers[1:]:
            h = layer(h)
        return h

    def rounds(self, values: Sequence[Any], m: int) -> Iterator[int]:
        """`m` masks for each example as the numbers of masks to take in each pass, so that a pass stays in the cache."""
        tensors = [
            part for v, varies in zip(values, self.varies, strict=True) if varies and is_inputs(v) for part in parts(v)
        ]
        n = max((len(part) for part in tensors), default=1)
        rows = min(ROWS, VALUES * n // max(1, sum(part.numel() for part in tensors)))
        most = max(1, rows // n) if self.folds else 1
        for start in range(0, m, most):
            yield min(most, m - start)


def is_cheap_gate(layer: nn.Module, x: Any) -> bool:
    """Whether `layer` makes of copies of `x` what `masks.dropped_copies` makes of `x`."""
    if type(layer) is not nn.Dropout or not (layer.training and 0 < layer.p < 1):
        return False
    if layer._forward_hooks or layer._forward_pre_hooks:
        return False
    if not isinstance(x, Tensor) or x.device.type != "cpu" or not x.is_floating_point():
        return False
    return x.is_contiguous() or masks.has_channels_last(x)


def whole(model: nn.Module) -> Parts:
    """`model` with nothing in its first part."""
    return Parts(lambda x: (x,), lambda x: call(model, x), varies=[True])


def split(model: nn.Module, x: Inputs) -> Parts:
    """`model`, whose gates are being sampled (`gates.sampling`), as two parts, the first of which draws nothing.

    Parameters
    ----------
    x : examples on the model's device; the first is what the parts are tried with.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.no_grad():
        try:
            found, meets_gates = traced(model, x)
            twins = repeated(each(lambda part: part[:1], x), 2)
            with seeded(0, device):
                expected = call(model, repeated(twins, 1))
            with seeded(0, device):
                why_not = trial(found, meets_gates, expected, twins, device)
        except Exception as error:  # whatever a network of somebody else's does when it meets symbols
            why_not = repr(error)
    if why_not is None:
        return found
    log.debug("%s runs whole in every pass: %s", type(model).__name__, why_not)
    return whole(model)


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
        if module._forward_hooks or module._forward_pre_hooks or super().is_leaf_module(module, name):
            return True
        return gates.is_stochastic(module) and not (functional.drops_in_forward(module) and any(module.children()))


def traced(model: nn.Module, x: Inputs) -> tuple[Parts, Callable]:
    """The two parts of `model`, not yet tried, and what returns the inputs of all gates where the second part returns the
    outputs."""
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
    meets_gates = part(gated[: gated.index(drawing[-1])], between, tuple(node.all_input_nodes[0] for node in drawing))
    parts = Parts(
        before=compiled(part(first[len(given) :], given, tuple(between)), network),
        after=compiled(part(gated, between, output.args[0]), network),
        varies=[node in varying for node in between],
        layers=chain(between, gated, output, network),
    )
    return parts, compiled(meets_gates, network)


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
        return bool(gates.stochastic_layers(network.get_submodule(node.target)))
    return node.target in functional.DROPOUTS | functional.ATTENTION | functional.GATE_METHODS


def may_be_in_place(node: fx.Node, network: nn.Module) -> bool:
    if node.op == "call_module":
        return any(getattr(module, "inplace", False) for module in network.get_submodule(node.target).modules())
    name = node.target if isinstance(node.target, str) else node.target.__name__
    flags = [value is True for value in (*node.args, *node.kwargs.values())]
    return node.op.startswith("call") and (any(flags) or name.endswith("_") or name in ("setitem", "iadd", "imul"))


def part(nodes: Iterable[fx.Node], given: Iterable[fx.Node], wanted: Any) -> fx.Graph:
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


def trial(found: Parts, meets_gates: Callable, expected: Any, twins: Inputs, device: torch.device) -> str | None:
    """What speaks against parts, if anything does, when they see an example twice. Sets ``found.folds``."""
    state = random_state(device)
    values = found.before(repeated(twins, 1))
    if not torch.equal(random_state(device), state):
        return "it draws random numbers that belong to no gate known here"
    if not same(found.after(*found.copies(values, 1)), expected):
        return "in two parts it returns something else"
    of_one = found.before(each(lambda part: part[:1].clone(), twins))
    if same(found.copies(of_one, 2), found.copies(values, 1)):  # two copies of one are two
        once, twice = (meets_gates(*found.copies(of_one, times)) for times in (1, 2))
        found.folds = all(b.shape == (2 * a.shape[0], *a.shape[1:]) for a, b in zip(once, twice, strict=True))
    return None


def random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def same(a: Any, b: Any) -> bool:
    """Whether two outputs are the same but for rounding."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        a, b = a.double(), b.double()
        return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-3 * a.abs().amax().item(), equal_nan=True)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
