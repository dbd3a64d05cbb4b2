"""A network in two parts: what no gate reaches, which is the same in every pass and need run only once, and the rest.

The parts are found by following one example through the network symbolically (`torch.fx`), and tried before they are
used: from the same random numbers they must return what the network returns. Where that is not so, or the network
cannot be followed, because its path depends on its input or on chance for example, all of it is the second part.
"""

import copy
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from helpers import functional, gates, masks
from helpers.inputs import Inputs, call, each, is_inputs, parts, repeated
from helpers.seeding import seeded

log = logging.getLogger(__name__)

VALUES = 2**19  # that enter the second part in a pass: half or twice as many take up to a tenth longer on a processor
TRIALS = 3  # of a network that seems to draw numbers outside of its gates
ROWS = 2**13  # in a pass at most
LARGEST = 2**22  # values in a tensor made of several masks: beyond that sharing a pass takes memory and saves no time


@dataclass
class Parts:
    """``after(*copies(before(x), 1))`` is a pass through a network.

    before : from inputs to what the second part needs of the first.
    after : from that to what the network returns.
    varies : which of these values have a row for each example.
    folds : whether ``after(*copies(before(x), r))`` is r passes for each example, one round after the other. It is not
        where examples are no rows, where a mask is drawn for all rows together (dropout of weights, of position tables),
        or where what one row becomes depends on others (BatchNorm that keeps no statistics).
    width : the most values that a step of the second part makes of an example.
    layers : the second part as layers, each of which takes what the one before it returns; ``None`` if it is no such chain.
    """

    before: Callable[[Inputs], Sequence[Any]]
    after: Callable[..., Any]
    varies: Sequence[bool]
    folds: bool = False
    width: int = 1
    layers: Sequence[nn.Module] | None = None

    def copies(self, values: Sequence[Any], times: int) -> list[Any]:
        """Copies of `values`, since what comes next may work in place on them, with all examples so many times."""
        pairs = zip(values, self.varies, strict=True)
        return [repeated(v, times if varies else 1) if is_inputs(v) else v for v, varies in pairs]

    def example(self, values: Sequence[Any], i: int) -> list[Any]:
        """What the second part needs of one example alone."""
        pairs = zip(values, self.varies, strict=True)
        return [each(lambda part: part[i : i + 1], v) if varies and is_inputs(v) else v for v, varies in pairs]

    def passes(self, values: Sequence[Any], times: int) -> Any:
        """So many passes for each example: the second part of copies of `values`."""
        if self.layers is None or not self.folds or not is_cheap_gate(self.layers[0], values[0]):
            return self.after(*self.copies(values, times))
        h = masks.dropped_copies(values[0], self.layers[0].p, times)
        for layer in self.layers[1:]:
            h = layer(h)
        return h

    def rounds(self, values: Sequence[Any], m: int) -> Iterator[int]:
        """`m` masks for each example as the numbers of masks to take in each pass, so that a pass stays in the cache, and
        takes no more memory however many masks there are."""
        tensors = [
            part for v, varies in zip(values, self.varies, strict=True) if varies and is_inputs(v) for part in parts(v)
        ]
        n = max((len(part) for part in tensors), default=1)
        rows = min(ROWS, LARGEST // self.width, VALUES * n // max(1, sum(part.numel() for part in tensors)))
        most = max(1, rows // n) if self.folds else 1
        for start in range(0, m, most):
            yield min(most, m - start)


def is_cheap_gate(layer: nn.Module, x: Any) -> bool:
    """Whether `layer` makes of copies of `x` what `masks.dropped_copies` makes of `x`."""
    if type(layer) is not nn.Dropout or not (layer.training and 0 < layer.p <= masks.HIGHEST):
        return False
    if functional.has_hooks(layer):
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
    x : examples on the model's device; the first two are what the parts are tried with.
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


def in_two(model: nn.Module, x: Inputs) -> Parts:
    """The two parts of `model`, tried; or an error, an `OtherNumbers` where it was random numbers that kept it whole."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.no_grad(), seeded(0, device):
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
        if functional.has_hooks(module) or super().is_leaf_module(module, name):
            return True
        return gates.is_stochastic(module) and not (functional.drops_in_forward(module) and any(module.children()))


def traced(model: nn.Module, x: Inputs) -> Parts:
    """The two parts of `model`, not yet tried."""
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
    return Parts(
        before=compiled(part(first[len(given) :], given, tuple(between)), network),
        after=compiled(part(gated, between, output.args[0]), network),
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
        return bool(gates.stochastic_layers(network.get_submodule(node.target)))
    return node.target in functional.DRAWING


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


def tried(found: Parts, model: nn.Module, x: Inputs, device: torch.device) -> Sequence[Any]:
    """What the second part needs of `x`, after a trial of both parts.

    Raises
    ------
    ValueError : if from the same random numbers the parts return something else than `model`, or draw other numbers.
    """
    with seeded(0, device):
        expected, state = call(model, repeated(x, 1)), random_state(device)
    with seeded(0, device):
        start = random_state(device)
        values = found.before(repeated(x, 1))
        if random_state(device) != start:
            raise OtherNumbers("it draws random numbers that belong to no gate known here")
        if not same(found.after(*found.copies(values, 1)), expected):
            raise ValueError("in two parts it returns something else")
        if random_state(device) != state:  # the numbers of Python and NumPy go on, whatever the seed
            raise OtherNumbers("in two parts it draws other random numbers, or some are not PyTorch's")
    return values


def folding(found: Parts, values: Sequence[Any], pair: Inputs) -> tuple[bool, int]:
    """``found.folds`` and ``found.width``, from the `values` of a `pair` of examples: whether these become together what
    they became alone, when they draw what they drew alone."""

    def second_part(draws: Draws, values: Sequence[Any]) -> Any:
        with torch._C.DisableTorchFunction(), draws:  # without `masks.CheapMasks`, whose draws have no rows
            return found.after(*found.copies(values, 1))

    try:
        if not same(found.before(each(lambda part: part[:1].clone(), pair)), found.example(values, 0)):
            return False, 1
        one, other = Draws(), Draws()
        alone = second_part(one, found.example(values, 0)), second_part(other, found.example(values, 1))
        both = Draws(one, other)
        together = second_part(both, values)
        folds = same(together, tree_map(lambda a, b: torch.cat([a, b]) if isinstance(a, Tensor) else a, *alone))
        return folds, max([1, *(b - a for a, b in zip(one.sizes, both.sizes, strict=False))])
    except Exception as error:  # what counts its examples, for one, fails with another number of them
        log.debug("several masks cannot share a pass: %r", error)
        return False, 1


class Draws(TorchDispatchMode):
    """Notes what is drawn, and the size of all that is computed. After passes of one example each, the pass of all of them
    draws what they drew, row by row."""

    def __init__(self, *alone: "Draws"):
        super().__init__()
        self.drawn: list[Tensor] = []
        self.sizes: list[int] = []
        self.given = zip(*(draws.drawn for draws in alone), strict=True) if alone else None

    def __torch_dispatch__(self, operator: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if operator is torch.ops.aten.native_dropout.default:  # a GPU's, which draws and multiplies in one
            x, p, _ = args
            with self:
                kept = torch.empty_like(x).bernoulli_(1 - p)
                return x * kept / (1 - p), kept.bool()
        result = operator(*args, **(kwargs or {}))
        made = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        self.sizes += [value.numel() for value in made]
        if torch.Tag.nondeterministic_seeded in operator.tags:
            if self.given is not None:
                made[0].copy_(joined(next(self.given), made[0].shape))
            self.drawn.append(made[0].clone())
        return result


def joined(drawn: Sequence[Tensor], shape: torch.Size) -> Tensor:
    """What examples drew alone, as what they draw together: one tensor of a `shape` with a row for each.

    Raises
    ------
    ValueError : if it has no such rows, in any dimension.
    """
    own = drawn[0].shape
    for d in range(len(own)):
        if shape == (*own[:d], len(drawn) * own[d], *own[d + 1 :]):
            return torch.cat(drawn, d)
    raise ValueError(f"{list(shape)} numbers are drawn for {len(drawn)} examples, and {list(own)} for one")


def random_state(device: torch.device) -> list:
    """The random state of PyTorch, Python and NumPy, to be compared."""
    states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    _, numbers, position, *_ = np.random.get_state()
    return [*(state.numpy().tobytes() for state in states), random.getstate(), numbers.tobytes(), position]


def same(a: Any, b: Any) -> bool:
    """Whether two outputs are the same but for rounding."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        tolerance = max(1e-3, 2 * torch.finfo(a.dtype).eps) if a.is_floating_point() else 1e-3
        a, b, largest = a.double(), b.double(), a.double().abs().amax().item()
        return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance * largest, equal_nan=True)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
