"""A network in two halves is the network, to the last random number, and its first half is not repeated."""

import itertools
import logging
import random
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer
from torchvision.ops import StochasticDepth

from helpers import folding, gates, networks, predictors, prefix
from helpers.dropconnect import DropConnect
from helpers.experiments.running import compile_whole
from tests.conftest import graphs_are_compiled

K = 3


class Residual(nn.Module):
    """Two blocks with BatchNorm, ReLUs that work in place, and a shortcut past the gates."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.conv, self.norm, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.depth, self.drop, self.head = StochasticDepth(0.5, "row"), nn.Dropout(0.5, inplace=True), nn.Linear(4, K)

    def forward(self, x):
        h = self.stem(x)
        y = self.norm(self.conv(h))
        y = self.depth(y)
        y += h
        return self.head(self.drop(self.relu(y).mean((2, 3))))


class Functional(nn.Module):
    """Dropout that is no layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, K)

    def forward(self, x):
        h = torch.flatten(F.relu(self.norm(self.conv(x))), 1)
        return self.head(F.dropout(h, 0.5, self.training))


class Branches(nn.Module):
    """A gate in one branch; the other comes later in the program and is computed once all the same."""

    def __init__(self):
        super().__init__()
        self.drop, self.left, self.right = nn.Dropout(0.5), nn.Linear(6, K), nn.Linear(6, K)

    def forward(self, x):
        y = self.left(self.drop(x))
        return y + self.right(x).relu()


class InPlaceBranches(Branches):
    """The gates of the first branch work in place, on what the second one sees."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5, inplace=True)

    def forward(self, x):
        h = x * 1
        y = self.left(self.drop(h))
        return y + self.right(h).relu()


class Remembers(nn.Module):
    """Keeps what it computed."""

    def __init__(self):
        super().__init__()
        self.body, self.drop, self.head, self.kept, self.history = (
            nn.Linear(6, 6),
            nn.Dropout(0.5),
            nn.Linear(6, K),
            None,
            [],
        )

    def forward(self, x):
        self.kept = self.body(x)
        self.history.append(self.kept)
        return self.head(self.drop(self.kept))


class StepsFirst(nn.Module):
    """Holds its sequences as [T, N, F], so that examples are not the rows of what meets the gates."""

    def __init__(self):
        super().__init__()
        self.body, self.drop, self.head = nn.Linear(6, 4), nn.Dropout(0.5), nn.Linear(4, K)

    def forward(self, x):
        h = self.body(x.transpose(0, 1).contiguous())
        return self.head(self.drop(h).mean(0))


class CountsItsExamples(nn.Module):
    """Uses the number of examples, computed before the gates, behind them."""

    def __init__(self):
        super().__init__()
        self.body, self.drop, self.head = nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, K)

    def forward(self, x):
        n = x.shape[0]
        h = self.drop(self.body(x))
        return self.head(h.reshape(n, 2, 3).flatten(1))


class Positions(nn.Module):
    """Adds a table that no example has a part in, before and behind the gates."""

    def __init__(self):
        super().__init__()
        self.table, self.drop, self.head = nn.Parameter(torch.randn(1, 6)), nn.Dropout(0.5), nn.Linear(6, K)

    def forward(self, x):
        table = self.table * 2
        return self.head(self.drop(x + table) + table)


class DropsWeights(nn.Module):
    """Draws one mask of weights for all examples of a pass."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 6), nn.Linear(6, K)

    def forward(self, x):
        return F.linear(self.body(x).tanh(), F.dropout(self.head.weight, 0.5, self.training), self.head.bias)


class DropsPositions(nn.Module):
    """Drops a table that belongs to no example, besides what belongs to each."""

    def __init__(self):
        super().__init__()
        self.table, self.drop, self.inner = nn.Embedding(5, 6), nn.Dropout(0.5), nn.Dropout(0.5)
        self.body, self.head = nn.Linear(6, 6), nn.Linear(30, K)

    def forward(self, x):
        h = self.inner(self.body(x)) + self.drop(self.table(torch.arange(x.shape[1])))
        return self.head(h.flatten(1))


class Branching(nn.Module):
    """Its path depends on its input."""

    def __init__(self):
        super().__init__()
        self.body, self.drop, self.head = nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, K)

    def forward(self, x):
        h = self.body(x)
        return self.head(self.drop(h if h.sum() > 0 else -h))


class Noisy(nn.Module):
    """Draws noise of its own, in every mode, where no gate is."""

    def __init__(self):
        super().__init__()
        self.body, self.drop, self.head = nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, K)

    def forward(self, x):
        h = self.body(x)
        return self.head(self.drop(h + torch.randn_like(h)))


class DropPath(nn.Module):
    """Drops examples with a tensor's own method, as many networks do."""

    def forward(self, x):
        return x * x.new_empty(len(x), 1).bernoulli_(0.5) if self.training else x


class DropsItsWeights(nn.Linear):
    """As `DropsWeights`, in a module without parts."""

    def forward(self, x):
        return F.linear(x, F.dropout(self.weight, 0.5, self.training), self.bias)


class Locked(nn.Module):
    """Draws one mask for all rows."""

    def forward(self, x):
        return x * torch.bernoulli(torch.full(x.shape[1:], 0.5)) if self.training else x


class SharedDropout(nn.Dropout):
    """Draws a mask for each row, and uses one."""

    def forward(self, x):
        return x * F.dropout(torch.ones_like(x), self.p, self.training)[:1]


class FusedDropout(nn.Dropout):
    """Draws gates as a GPU does."""

    def forward(self, x):
        return torch.native_dropout(x, self.p, True)[0] if self.training else x


class GaussianDropout(nn.Dropout):
    """Draws something else than its parent."""

    def forward(self, x):
        return x * (1 + torch.randn_like(x)) if self.training else x


def hooked_to_share():
    """Its gates are drawn for each row, and its hook draws one for all of them."""
    model = nn.Sequential(linear(), nn.Dropout(0.5), nn.Linear(6, K))
    model[1].register_forward_hook(lambda layer, inputs, output: output * F.dropout(torch.ones(6), 0.5, layer.training))
    return model


def between_gates(layer, gate=nn.Dropout):
    return nn.Sequential(linear(), nn.ReLU(), gate(0.5), layer, gate(0.5), nn.Linear(6, K))


def of_the_batch(gate, *more):
    """Behind a gate, BatchNorm that keeps no statistics: in eval mode too it takes those of all rows of a pass."""
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    return nn.Sequential(nn.Conv2d(3, 4, 3), gate, norm, *more, nn.Flatten(), nn.Linear(144, K))


def hooked():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, K))
    model[0].register_forward_hook(lambda layer, inputs, output: 2 * output)
    model[3].register_forward_pre_hook(lambda layer, inputs: (inputs[0] + 1,))
    return model


def hooked_as_a_whole():
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, K))
    model.register_forward_hook(lambda layer, inputs, output: 2 * output)
    return model


def with_a_forward_of_its_own():
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, K))
    model.forward = lambda x: 2 * model[2](model[1](model[0](x)))
    return model


def twice(x, layer):
    return layer(layer(x))


def channels_last():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(32, K)).to(
        memory_format=torch.channels_last
    )


VECTOR, STEPS, IMAGE = (6,), (5, 6), (3, 8, 8)
linear = partial(nn.Linear, 6, 6)

# What runs once: a layer of the first half, by name, or nothing.


def mobilenet():
    """Untrained it says the same of every image under every mask; with a louder head it does not."""
    model = torchvision.models.mobilenet_v3_small(num_classes=K).eval()
    first, last = model.classifier[0], model.classifier[3]
    with torch.no_grad():
        h = model.avgpool(model.features(torch.rand(4, 3, 32, 32))).flatten(1)
        first.weight.mul_(2 / (h @ first.weight.T).std())
        nn.init.normal_(last.weight, std=0.1)
    return model.train()


NETWORKS = {
    "sequence": (
        lambda: nn.Sequential(linear(), nn.ReLU(), nn.Dropout(0.5), linear(), nn.Dropout(0.2), nn.Linear(6, K)),
        VECTOR,
        "0",
    ),
    "in a sequence": (
        lambda: nn.Sequential(
            nn.Sequential(linear(), nn.ReLU(True)), nn.Sequential(nn.Dropout(0.5, True)), nn.Linear(6, K)
        ),
        VECTOR,
        "0.0",
    ),
    "behind a ReLU in place": (
        lambda: nn.Sequential(linear(), nn.Dropout(0.5, True), nn.ReLU(True), nn.Linear(6, K)),
        VECTOR,
        "0",
    ),
    "shared layer": (lambda: SharedLayer(), VECTOR, "body"),
    "DropConnect": (lambda: nn.Sequential(linear(), nn.Tanh(), DropConnect(6, K, 0.5)), VECTOR, "0"),
    "channels last": (channels_last, IMAGE, "0"),
    "residual": (Residual, IMAGE, "conv"),
    "functional": (Functional, IMAGE, "conv"),
    "branches": (Branches, VECTOR, "right"),
    "branches in place": (InPlaceBranches, VECTOR, None),
    "remembers": (Remembers, VECTOR, "body"),
    "steps first": (StepsFirst, STEPS, "body"),
    "counts": (CountsItsExamples, VECTOR, "body"),
    "positions": (Positions, VECTOR, None),
    "drops weights": (DropsWeights, VECTOR, "body"),
    "drops positions": (DropsPositions, STEPS, None),
    "LSTM": (lambda: Encoder(nn.LSTM(6, 4, batch_first=True)), STEPS, "recurrent"),
    "LSTM with dropout": (lambda: Encoder(nn.LSTM(6, 4, 2, dropout=0.5, batch_first=True)), STEPS, None),
    "DropPath": (lambda: nn.Sequential(linear(), DropPath(), nn.Linear(6, K)), VECTOR, "0"),
    "hooked": (hooked, VECTOR, "0"),
    "hooked as a whole": (hooked_as_a_whole, VECTOR, None),
    "a forward of its own": (with_a_forward_of_its_own, VECTOR, "0"),
    "control flow": (Branching, VECTOR, None),
    "noise": (Noisy, VECTOR, None),
    "weights of a layer": (lambda: nn.Sequential(linear(), nn.Tanh(), DropsItsWeights(6, K)), VECTOR, "0"),
    "locked": (lambda: nn.Sequential(linear(), Locked(), nn.Linear(6, K)), VECTOR, "0"),
    "depth for all": (lambda: between_gates(StochasticDepth(0.5, "batch")), VECTOR, "0"),
    "depth for each": (lambda: between_gates(StochasticDepth(0.5, "row")), VECTOR, "0"),
    "shared": (lambda: nn.Sequential(linear(), SharedDropout(), nn.Linear(6, K)), VECTOR, "0"),
    "hooked to share": (hooked_to_share, VECTOR, "0"),
    "batch statistics": (lambda: of_the_batch(nn.Dropout(0.5)), IMAGE, "0"),
    "batch statistics between": (lambda: of_the_batch(FusedDropout(0.5), FusedDropout(0.5)), IMAGE, "0"),
    "fused": (lambda: between_gates(linear(), FusedDropout), VECTOR, "0"),
    "Gaussian": (lambda: between_gates(linear(), GaussianDropout), VECTOR, "0"),
    "transformer": (
        lambda: nn.Sequential(
            linear(), nn.TransformerEncoderLayer(6, 2, 8, 0.5, batch_first=True), nn.Flatten(), nn.Linear(30, K)
        ),
        STEPS,
        "0",
    ),
    "ViT": (
        lambda: VisionTransformer(8, 4, 2, 2, 8, 16, dropout=0.1, attention_dropout=0.1, num_classes=K),
        IMAGE,
        "conv_proj",
    ),
    "MobileNetV3": (mobilenet, (3, 32, 32), "features"),
    "LeNet": (networks.LeNet, (1, 28, 28), "conv1"),
}


class SharedLayer(nn.Module):
    """Uses a layer before the gates and behind them."""

    def __init__(self):
        super().__init__()
        self.body, self.shared, self.drop, self.head = linear(), linear(), nn.Dropout(0.5), nn.Linear(6, K)

    def forward(self, x):
        return self.head(self.shared(self.drop(twice(self.body(x), self.shared))))


class Encoder(nn.Module):
    def __init__(self, recurrent):
        super().__init__()
        self.recurrent, self.drop, self.head = recurrent, nn.Dropout(0.5), nn.Linear(4, K)

    def forward(self, x):
        return self.head(self.drop(self.recurrent(x)[0][:, -1]))


@pytest.fixture(params=NETWORKS)
def case(request):
    make, shape, once = NETWORKS[request.param]
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(5, *shape)
    if request.param == "ViT":
        nn.init.normal_(model.heads.head.weight)  # torchvision starts it at zero
    return model, x, once


def from_seed(run):
    torch.manual_seed(1)
    with torch.no_grad():
        return run()


def test_the_parts_return_what_the_network_returns(case):
    """From the same random numbers; the inputs stay as they are."""
    model, x, _ = case
    with gates.sampling(model):
        halves = prefix.halved(model, x)
        expected = from_seed(lambda: model(x.clone()))
        found = from_seed(lambda: halves.after(*halves.copies(halves.before(x.clone()), 1)))
        torch.testing.assert_close(found, expected)
        with torch.no_grad():
            assert not torch.allclose(model(x.clone()), expected), "there would be nothing to see"


def test_passes_are_the_second_part_of_copies(case):
    """From the same random numbers, though the copies are not always made."""
    model, x, _ = case
    with gates.sampling(model):
        halves = prefix.halved(model, x)
        values = from_seed(lambda: halves.before(x.clone()))
        times = 3 if halves.folds else 1
        expected = from_seed(lambda: halves.after(*halves.copies(values, times)))
        torch.testing.assert_close(from_seed(lambda: halves.passes(values, times)), expected)


def test_copies_are_not_made_where_a_gate_comes_first():
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.3), nn.Linear(6, 2))
    with gates.sampling(model):
        halves = prefix.halved(model, torch.randn(5, 4))
        halves.copies = None
        assert halves.passes(halves.before(torch.randn(5, 4)), 7).shape == (35, 2)


def test_what_the_gates_do_not_reach_is_computed_once_and_each_copy_meets_gates_of_its_own(case):
    model, x, once = case
    ran = []
    with gates.sampling(model), torch.no_grad():
        if once is not None:
            model.get_submodule(once).register_forward_hook(lambda layer, inputs, output: ran.append(1))
        halves = prefix.halved(model, x)
        ran.clear()
        values = halves.before(x.clone())
        times = 40 if halves.folds else 1
        y = [halves.passes(values, times).view(times, 5, -1) for _ in range(40 // times)]
    assert len(ran) == (once is not None)
    y = torch.cat(y)
    assert len(y.flatten(1).unique(dim=0)) > 10, (
        "of forty copies of five examples, which have 32 ways to be dropped or more"
    )
    standard = y.mean(0)
    with gates.deterministic(model), torch.no_grad():
        assert standard.shape == model(x.clone()).shape


def test_with_their_gates_at_rest_all_copies_are_the_deterministic_pass(case):
    """Where gates are layers: then the copies stand in the right order, and nothing has mixed two examples."""
    model, x, _ = case
    if isinstance(model, Functional | Noisy | DropsWeights) or any(
        isinstance(module, DropPath) for module in model.modules()
    ):
        pytest.skip("its halves were traced while it drops")
    with gates.sampling(model):
        halves = prefix.halved(model, x)
    with gates.deterministic(model), torch.no_grad():
        times = 3 if halves.folds else 1
        expected = model(x.clone()).repeat(times, 1)
        torch.testing.assert_close(halves.after(*halves.copies(halves.before(x.clone()), times)), expected)
        torch.testing.assert_close(halves.passes(halves.before(x.clone()), times), expected)


@pytest.mark.parametrize(
    ("name", "folds"),
    [
        *(("steps first", False), ("counts", False), ("ViT", True), ("positions", True), ("residual", True)),
        *(("drops weights", False), ("drops positions", False), ("control flow", False), ("functional", True)),
        *(("weights of a layer", False), ("locked", False), ("shared", False), ("hooked to share", False)),
        *(("depth for all", False), ("depth for each", True), ("batch statistics", False), ("fused", True)),
        *(
            ("batch statistics between", False),
            ("Gaussian", True),
            ("LSTM with dropout", True),
            ("DropConnect", True),
        ),
    ],
)
def test_copies_are_made_only_where_examples_are_rows(name, folds):
    make, shape, _ = NETWORKS[name]
    model = make().eval()
    with gates.sampling(model):
        assert prefix.halved(model, torch.randn(5, *shape)).folds == folds


@pytest.mark.parametrize(
    "name",
    ["weights of a layer", "locked", "depth for all", "shared", "hooked to share", "batch statistics"],
)
def test_where_masks_cannot_share_a_pass_their_mean_is_that_of_passes_one_by_one(name):
    """To the last random number."""
    make, shape, _ = NETWORKS[name]
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(5, *shape)
    with gates.sampling(model):
        expected = from_seed(lambda: sum(model(x).softmax(-1) for _ in range(8)) / 8)
    torch.testing.assert_close(predictors.monte_carlo(model, x, 8, seed=1), expected)


class Masked(nn.Module):
    """A network with a class that no example may have; `mixes` what examples have in common into them behind the gate."""

    def __init__(self, fill, mixes=False):
        super().__init__()
        self.a, self.drop, self.c = nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, K)
        self.fill, self.mixes = fill, mixes
        self.register_buffer("never", torch.arange(K) == 1)

    def forward(self, x):
        if isinstance(x, torch.Tensor):  # and no symbol of what follows the code
            x = x / 20
        h = self.drop(self.a(x).relu())
        return self.c(h - h.mean(0) if self.mixes else h).masked_fill(self.never, self.fill)


@pytest.mark.parametrize("fill", [-1e9, float("-inf")])
def test_a_masked_class_does_not_hide_that_halves_return_something_else(fill):
    torch.manual_seed(0)
    model, x = Masked(fill), 20 * torch.randn(4, 6)
    with gates.sampling(model):
        expected = from_seed(lambda: sum(model(x).softmax(-1) for _ in range(8)) / 8)
    torch.testing.assert_close(predictors.monte_carlo(model, x, 8, seed=1), expected)


@pytest.mark.parametrize("fill", [-1e9, float("-inf")])
def test_a_masked_class_does_not_hide_that_examples_are_mixed(fill):
    model = Masked(fill, mixes=True)
    with gates.sampling(model):
        assert not prefix.halved(model, torch.randn(5, 6)).folds


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_are_the_same_but_for_rounding(dtype):
    a = torch.tensor([[3.0, 0.5, -1e9], [2.0, -0.001, float("nan")]], dtype=dtype)
    rounded, other = a.clone(), a.clone()
    rounded[0, 0] *= 1 + torch.finfo(dtype).eps
    other[0, 1] += 0.1
    assert folding.same(a, a) and folding.same(a, rounded) and folding.same(a[:0], a[:0])
    assert not folding.same(a, other) and not folding.same(a, a[:1]) and not folding.same(a, a.nan_to_num())
    smallest = torch.finfo(dtype).tiny / 4  # what is left of a probability has few digits
    assert folding.same(torch.tensor([1.0, smallest], dtype=dtype), torch.tensor([1.0, 2 * smallest], dtype=dtype))


class Skips(nn.Module):
    """Skips its layer or not, as a random number has it."""

    def __init__(self, draw, drops_first):
        super().__init__()
        self.fc, self.draw, self.drops_first = linear(), draw, drops_first

    def forward(self, x):
        y = F.dropout(self.fc(x), 0.1, self.training) if self.drops_first else None
        if self.training and self.draw() < 0.5:
            return x
        return x + (y if self.drops_first else F.dropout(self.fc(x), 0.1, self.training))


class MaskOfNumPy(nn.Module):
    """Draws what no seed of PyTorch repeats, and is run as it is, not followed."""

    def forward(self, x):
        return F.dropout(x, 0.5) * (np.random.rand() < 0.9) if self.training else x


SOURCES = {"PyTorch": lambda: torch.rand(1), "Python": random.random, "NumPy": lambda: np.random.rand()}


@pytest.mark.parametrize("drops_first", [True, False])
@pytest.mark.parametrize("draw", SOURCES.values(), ids=SOURCES)
def test_a_random_path_is_not_taken_once_and_for_all(draw, drops_first):
    """Whichever one is met on the way: over ten seeds that is either one, but for one time in five hundred."""
    model, x = nn.Sequential(linear(), nn.Dropout(0.5), Skips(draw, drops_first), nn.Linear(6, K)), torch.randn(5, 6)
    with gates.sampling(model):
        for seed in range(10):
            torch.manual_seed(seed), random.seed(seed), np.random.seed(seed)
            halves = prefix.halved(model, x)
            assert halves.before(x)[0] is x and not halves.folds


def test_numbers_that_no_seed_repeats_are_not_taken_for_gates():
    np.random.seed(0)
    model, x = nn.Sequential(linear(), MaskOfNumPy(), nn.Linear(6, K)), torch.randn(5, 6)
    with gates.sampling(model):
        halves = prefix.halved(model, x)
    assert halves.before(x)[0] is x and not halves.folds


@pytest.mark.parametrize("call", range(6))
def test_numbers_that_another_thread_draws_meanwhile_change_nothing(call, monkeypatch):
    """Or records of one run would differ from machine to machine."""
    calls, state = itertools.count(), prefix.random_state

    def interrupted(device):
        if next(calls) == call:
            random.random()
        return state(device)

    monkeypatch.setattr(prefix, "random_state", interrupted)
    model, x = nn.Sequential(linear(), nn.Dropout(0.5), nn.Linear(6, K)), torch.randn(5, 6)
    with gates.sampling(model):
        halves = prefix.halved(model, x)
    assert halves.folds and halves.before(x)[0] is not x


@pytest.mark.parametrize(
    ("after", "m"),
    [
        ((nn.Linear(64, 10_000),), 6),  # masks whose outputs are 2^22 values at most
        ((nn.Linear(64, 10_000), nn.ReLU(), nn.Linear(10_000, K)), 6),
        ((nn.Linear(64, 100_000),), 1),
        ((nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), 100),
    ],
    ids=["outputs", "on the way", "at least one", "narrow"],
)
def test_a_pass_has_no_more_masks_than_its_widest_layer_allows(after, m):
    model, x = nn.Sequential(nn.Linear(20, 64), nn.Dropout(0.5), *after), torch.randn(64, 20)
    with gates.sampling(model), torch.no_grad():
        halves = prefix.halved(model, x)
        assert halves.folds and max(halves.rounds(halves.before(x), 100)) == m


def test_a_network_that_runs_whole_is_told_about_in_the_log_alone(caplog):
    make, shape, _ = NETWORKS["control flow"]
    model = make().eval()
    with caplog.at_level(logging.DEBUG, "helpers.prefix"), gates.sampling(model):
        prefix.halved(model, torch.randn(5, *shape))
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert "runs whole in every pass: " in record.message


def contents(model):
    return [{name: id(value) for name, value in vars(module).items()} for module in model.modules()]


def test_the_network_stays_as_it_was(case):
    """No symbol is left in it, no hook, no mode, no number."""
    model, x, _ = case
    if isinstance(model, Remembers):
        model(x)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    modes = [module.training for module in model.modules()]
    with gates.sampling(model):
        before = contents(model)
        prefix.halved(model, x)
        changed = {
            name
            for now, then in zip(contents(model), before, strict=True)
            for name in now
            if now[name] != then.get(name)
        }
    assert changed <= {"kept"}, "which an ordinary pass has set"
    if isinstance(model, Remembers):
        assert all(type(value) is torch.Tensor for value in [model.kept, *model.history])
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    assert [module.training for module in model.modules()] == modes


def test_the_global_random_state_is_left_alone(case):
    model, x, _ = case
    before = torch.get_rng_state()
    with gates.sampling(model):
        prefix.halved(model, x)
    assert torch.equal(torch.get_rng_state(), before)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.drop, self.head = linear(), linear(), nn.Dropout(0.5), nn.Linear(6, K)

    def forward(self, left, right=None, scale=None):
        h = self.left(left) if right is None else self.left(left) * self.right(right)
        h = self.drop(h)
        return self.head(h if scale is None else h * scale)


@pytest.mark.parametrize(
    "x",
    [
        {"left": torch.randn(5, 6)},
        {"left": torch.randn(5, 6), "right": torch.randn(5, 6)},
        {"scale": torch.randn(5, 1), "left": torch.randn(5, 6)},
        (torch.randn(5, 6), torch.randn(5, 6)),
        [torch.randn(5, 6), torch.randn(5, 6), torch.randn(5, 1)],
    ],
    ids=["one by name", "two by name", "one of them behind the gates", "tuple", "list"],
)
def test_several_inputs_are_followed_like_one(x):
    model, ran = TwoInputs().eval(), []

    def run():
        return model(**x) if isinstance(x, dict) else model(*x)

    with gates.sampling(model), torch.no_grad():
        halves = prefix.halved(model, x)
        model.left.register_forward_hook(lambda layer, inputs, output: ran.append(1))
        halves = prefix.halved(model, x)
        ran.clear()
        found = from_seed(lambda: halves.after(*halves.copies(halves.before(x), 1)))
        assert halves.folds and len(ran) == 1
        torch.testing.assert_close(found, from_seed(run))
        assert halves.after(*halves.copies(halves.before(x), 4)).shape == (20, K)


class SetsItsWeights(nn.Module):
    """As AWD-LSTM: each pass leaves the weights that it has dropped in another layer."""

    def __init__(self):
        super().__init__()
        self.raw, self.rnn, self.head = (
            nn.Parameter(torch.randn(32, 8)),
            nn.LSTM(4, 8, batch_first=True),
            nn.Linear(8, 3),
        )
        del self.rnn.weight_hh_l0

    def forward(self, x):
        self.rnn.weight_hh_l0 = nn.functional.dropout(self.raw, 0.5, self.training)
        return self.head(self.rnn(x)[0][:, -1])


def test_weights_that_a_forward_sets_are_drawn_in_every_pass():
    """Against the plain loop: the difference of two means of 2,000 deviates by .003. With one mask for all it is .1."""
    torch.manual_seed(0)
    model, x = SetsItsWeights(), torch.randn(8, 5, 4)
    with torch.no_grad(), gates.sampling(model):
        plain = sum(model(x).softmax(-1) for _ in range(2000)) / 2000
    assert torch.allclose(predictors.monte_carlo(model, x, 2000, seed=0), plain, atol=0.02)


def test_a_compiled_network_is_halved_as_it_was_before():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)), torch.randn(4, 5)
    with torch.no_grad():
        expected = model[:2](x)
    compile_whole(model, backend="aot_eager")  # which draws other numbers
    with gates.sampling(model):
        with graphs_are_compiled(), torch.no_grad():
            model(x)
        halves = prefix.halved(model, x)
    assert halves.folds
    torch.testing.assert_close(halves.before(x)[0], expected)
