"""A network in two parts is the network, to the last random number, and its first part is not repeated."""

import logging
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer
from torchvision.ops import StochasticDepth

from helpers import gates, networks, prefix
from helpers.dropconnect import DropConnect

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

# What runs once: a layer of the first part, by name, or nothing.
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
    "MobileNetV3": (partial(torchvision.models.mobilenet_v3_small, num_classes=K), (3, 32, 32), "features"),
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
        parts = prefix.split(model, x)
        expected = from_seed(lambda: model(x.clone()))
        found = from_seed(lambda: parts.after(*parts.copies(parts.before(x.clone()), 1)))
        torch.testing.assert_close(found, expected)


def test_passes_are_the_second_part_of_copies(case):
    """From the same random numbers, though the copies are not always made."""
    model, x, _ = case
    with gates.sampling(model):
        parts = prefix.split(model, x)
        values = from_seed(lambda: parts.before(x.clone()))
        times = 3 if parts.folds else 1
        expected = from_seed(lambda: parts.after(*parts.copies(values, times)))
        torch.testing.assert_close(from_seed(lambda: parts.passes(values, times)), expected)


def test_copies_are_not_made_where_a_gate_comes_first():
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.3), nn.Linear(6, 2))
    with gates.sampling(model):
        parts = prefix.split(model, torch.randn(5, 4))
        parts.copies = None
        assert parts.passes(parts.before(torch.randn(5, 4)), 7).shape == (35, 2)


def test_what_the_gates_do_not_reach_is_computed_once_and_each_copy_meets_gates_of_its_own(case):
    model, x, once = case
    ran = []
    with gates.sampling(model), torch.no_grad():
        if once is not None:
            model.get_submodule(once).register_forward_hook(lambda layer, inputs, output: ran.append(1))
        parts = prefix.split(model, x)
        ran.clear()
        values = parts.before(x.clone())
        times = 40 if parts.folds else 1
        y = [parts.passes(values, times).view(times, 5, -1) for _ in range(40 // times)]
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
        pytest.skip("its parts were traced while it drops")
    with gates.sampling(model):
        parts = prefix.split(model, x)
    with gates.deterministic(model), torch.no_grad():
        times = 3 if parts.folds else 1
        expected = model(x.clone()).repeat(times, 1)
        torch.testing.assert_close(parts.after(*parts.copies(parts.before(x.clone()), times)), expected)
        torch.testing.assert_close(parts.passes(parts.before(x.clone()), times), expected)


@pytest.mark.parametrize(
    ("name", "folds"),
    [
        *(("steps first", False), ("counts", False), ("ViT", True), ("positions", True), ("residual", True)),
        *(("drops weights", False), ("drops positions", False), ("control flow", False), ("functional", True)),
    ],
)
def test_copies_are_made_only_where_examples_are_rows(name, folds):
    make, shape, _ = NETWORKS[name]
    model = make().eval()
    with gates.sampling(model):
        assert prefix.split(model, torch.randn(5, *shape)).folds == folds


@pytest.mark.parametrize("name", ["control flow", "noise"])
def test_a_network_that_runs_whole_is_told_about_in_the_log_alone(name, caplog):
    make, shape, _ = NETWORKS[name]
    model = make().eval()
    with caplog.at_level(logging.DEBUG, "helpers.prefix"), gates.sampling(model):
        prefix.split(model, torch.randn(5, *shape))
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
        prefix.split(model, x)
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
        prefix.split(model, x)
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
        parts = prefix.split(model, x)
        model.left.register_forward_hook(lambda layer, inputs, output: ran.append(1))
        parts = prefix.split(model, x)
        ran.clear()
        found = from_seed(lambda: parts.after(*parts.copies(parts.before(x), 1)))
        assert parts.folds and len(ran) == 1
        torch.testing.assert_close(found, from_seed(run))
        assert parts.after(*parts.copies(parts.before(x), 4)).shape == (20, K)
