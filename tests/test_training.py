"""Algorithm 1 against the same algorithm by hand, and what an interrupted or senseless run comes to."""

import copy
import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from helpers import datasets, gates, precision, sgd
from helpers.distillation import distill
from helpers.training import train

N, D, K = 20, 6, 3


def examples(n=N):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, D, generator=generator), torch.randint(K, (n,), generator=generator)


def network(seed=0):
    """Dropout, and BatchNorm, which has buffers of its own to remember."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, K))


def assert_same_to_the_bit(model, other):
    expected = other.state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert not [name for name, value in model.state_dict().items() if not torch.equal(value, expected[name])]


class Perturb:
    """Noise on the inputs; fails in its `fails_at`-th call; remembers its batches."""

    def __init__(self, fails_at=None):
        self.fails_at, self.batches = fails_at, []

    def __call__(self, x):
        if len(x) == 1:
            return x  # the look at one example before the first step
        if len(self.batches) + 1 == self.fails_at:
            raise InterruptedError
        self.batches.append(x.clone())
        return x + 0.1 * torch.randn_like(x)


# The algorithm


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def descend_by_hand(layer, steps, momentum, weight_decay):
    """SGD on z = W x + b in NumPy. `steps` yields the learning rate, x [n, D], and from z [n, K] to dloss/dz [n, K]."""
    W, b = (p.detach().double().numpy().copy() for p in (layer.weight, layer.bias))
    VW, Vb = 0, 0
    for lr, x, gradient in steps:
        dz = gradient(x @ W.T + b)
        VW = momentum * VW + dz.T @ x + weight_decay * W
        Vb = momentum * Vb + dz.sum(0) + weight_decay * b
        W, b = W - lr * VW, b - lr * Vb
    return W, b


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize(
    ("lr", "rates"),
    [(0.5, [0.5, 0.5, 0.5, 0.5, 0.05, 0.05]), ({0: 0.5, 1: 0.2, 5: 0.1}, [0.5, 0.2, 0.2, 0.2, 0.2, 0.1])],
)
def test_training_is_algorithm_1(p, lr, rates):
    """Softmax regression on dropped inputs, from the batches and the gates that were drawn, epoch by epoch."""
    inputs, labels = examples()
    model = nn.Sequential(nn.Dropout(p), nn.Linear(D, K)).double()
    start, drawn = nn.Linear(D, K).double(), []
    start.load_state_dict(model[1].state_dict())
    model[0].register_forward_hook(
        lambda layer, x, gated: drawn.append((x[0].clone(), gated.clone())) if layer.training else None
    )
    train(
        model, inputs.double(), labels, epochs=6, lr=lr, batch_size=8, momentum=0.8, weight_decay=0.03, progress=False
    )

    assert len(drawn) == 6 * 3

    def steps():
        for step, (x, gated) in enumerate(drawn):
            assert ((gated == 0) | torch.isclose(gated, x / (1 - p))).all()
            onehot = np.eye(K)[[labels[(inputs.double() == row).all(1)].item() for row in x]]
            yield rates[step // 3], gated.numpy(), lambda z, onehot=onehot: (softmax(z) - onehot) / len(onehot)

    W, b = descend_by_hand(start, steps(), momentum=0.8, weight_decay=0.03)
    np.testing.assert_allclose(model[1].weight.detach().numpy(), W, atol=1e-6)
    np.testing.assert_allclose(model[1].bias.detach().numpy(), b, atol=1e-6)
    assert abs(W - start.weight.detach().numpy()).max() > 0.1


def test_every_epoch_sees_every_example_once_in_another_order():
    """False alarm: two of three orders of 20 coincide, 1e-18."""
    inputs, labels = examples()
    perturb = Perturb()
    train(network(), inputs, labels, epochs=3, batch_size=8, perturb=perturb, progress=False)
    assert [len(x) for x in perturb.batches] == [8, 8, 4] * 3
    epochs = [torch.cat(perturb.batches[i : i + 3]) for i in (0, 3, 6)]
    for epoch in epochs:
        assert torch.equal(epoch[epoch[:, 0].argsort()], inputs[inputs[:, 0].argsort()])
    assert not any(torch.equal(epochs[i], epochs[j]) for i, j in [(0, 1), (0, 2), (1, 2)])


def test_each_example_of_each_batch_meets_gates_of_its_own():
    """False alarms: a rate beyond 5 σ, 6e-7; two of 120 masks of 200 gates coincide, 1e-36."""
    model = nn.Sequential(nn.Dropout(0.3), nn.Linear(200, K)).eval()  # training is for `train` to turn on
    masks = []
    model[0].register_forward_hook(lambda layer, x, gated: masks.append(gated != 0) if layer.training else None)
    train(model, torch.ones(40, 200), torch.zeros(40, dtype=torch.int64), epochs=3, batch_size=16, progress=False)
    masks = torch.cat(masks)
    assert masks.shape == (120, 200)
    assert abs(masks.double().mean() - 0.7) < 5 * (0.21 / masks.numel()) ** 0.5
    assert len(masks.unique(dim=0)) == 120


@pytest.mark.parametrize(
    ("epochs", "stages"),
    [(30, {0: 1.0, 20: 0.1}), (300, {0: 1.0, 200: 0.1}), (3, {0: 1.0, 2: 0.1}), (2, {0: 1.0, 1: 0.1})],
)
def test_a_number_stands_for_the_paper_s_two_stages(epochs, stages):
    assert sgd.schedule(1.0, epochs) == pytest.approx(stages)


def test_a_single_epoch_runs_at_the_rate_that_was_asked_for():
    stages = sgd.schedule(0.7, 1)
    assert [rate for epoch, rate in stages.items() if epoch < 1] == [0.7]


@pytest.mark.parametrize("lr", [0, -0.1, {}, {1: 0.1}, {0: 0.1, 5: 0}, float("nan"), float("inf")])
def test_a_schedule_that_makes_no_sense_is_refused(lr):
    with pytest.raises(ValueError, match="learning rates must be positive and finite and start at epoch 0"):
        train(network(), *examples(), lr=lr, progress=False)


def test_training_learns_digits_and_returns_the_network_in_eval_mode():
    data = datasets.load("digits")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10))
    result = train(model, data.inputs(data.train.images), data.train.labels, epochs=10, lr=0.05, progress=False)
    assert result is model
    assert not any(module.training for module in model.modules())
    error = (model(data.inputs(data.test.images)).argmax(-1) != data.test.labels).float().mean()
    assert error < 0.15  # 0.9 by chance


# Random numbers


def test_the_seed_alone_decides_the_run():
    first, again, other = (train(network(), *examples(), epochs=2, seed=seed, progress=False) for seed in (0, 0, 1))
    assert_same_to_the_bit(again, first)
    assert not torch.equal(other[0].weight, first[0].weight)


@pytest.mark.parametrize("perturb", [None, Perturb(fails_at=2)], ids=["to the end", "with an error"])
def test_the_global_random_state_is_left_alone(perturb):
    before = torch.get_rng_state()
    with pytest.raises(InterruptedError) if perturb else nullcontext():
        train(network(), *examples(), epochs=2, batch_size=8, perturb=perturb, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


# Checkpoints

RUN = {"epochs": 5, "lr": 0.1, "batch_size": 8, "progress": False}  # three steps an epoch


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "net.ckpt"


@pytest.mark.parametrize("step", [7, 8, 9, 13])
def test_an_interrupted_run_comes_to_the_weights_of_an_uninterrupted_one(step, path):
    whole = train(network(), *examples(), perturb=Perturb(), **RUN)
    with pytest.raises(InterruptedError):
        train(network(), *examples(), perturb=Perturb(fails_at=step), checkpoint=path, **RUN)

    torch.manual_seed(99)  # as in another process, with a network that was initialised otherwise
    rest = Perturb()
    resumed = train(network(seed=5), *examples(), perturb=rest, checkpoint=path, **RUN)
    assert len(rest.batches) == 15 - (step - 1) // 3 * 3
    assert_same_to_the_bit(resumed, whole)


def test_the_checkpoint_makes_no_difference_to_the_run(path):
    assert_same_to_the_bit(train(network(), *examples(), checkpoint=path, **RUN), train(network(), *examples(), **RUN))
    assert [file.name for file in path.parent.iterdir()] == ["net.ckpt"]


class WithExtraState(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.kept = network(), None

    def forward(self, x):
        return self.layers(x)

    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        self.kept = state


def test_a_network_with_extra_state_is_resumed_with_it(path):
    done = train(WithExtraState(), *examples(), checkpoint=path, **RUN)
    again = train(WithExtraState(), *examples(), checkpoint=path, **RUN)
    assert again.kept == {"version": 1}
    assert_same_to_the_bit(again.layers, done.layers)
    student = distill(done, examples()[0], epochs=1, checkpoint=path.with_name("student"), progress=False)
    assert student.layers


def test_a_finished_run_is_returned_without_a_step(path):
    done = train(network(), *examples(), perturb=Perturb(), checkpoint=path, **RUN)
    again = train(network(seed=5), *examples(), perturb=Perturb(fails_at=1), checkpoint=str(path), **RUN)
    assert_same_to_the_bit(again, done)
    assert not again.training
    assert "optimizer" not in torch.load(path, weights_only=True)  # which nothing needs any more


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 6}, ["epochs", "lr"]),
        ({"lr": 0.2}, ["lr"]),
        ({"batch_size": 4}, ["batch_size"]),
        ({"momentum": 0.5}, ["momentum"]),
        ({"weight_decay": 0.0}, ["weight_decay"]),
        ({"seed": 1}, ["seed"]),
        ({"perturb": nn.Identity()}, ["perturb"]),
        ({"model": nn.Sequential(nn.Linear(D, K))}, ["parameters", "trained", "network", "rates"]),
        ({"inputs": examples()[0] + 1}, ["data"]),
        ({"labels": (examples()[1] + 1) % K}, ["data"]),
    ],
    ids=lambda part: ",".join(part),
)
def test_another_run_s_checkpoint_is_refused(change, named, path):
    run = {"model": network(), "inputs": examples()[0], "labels": examples()[1], "checkpoint": path, **RUN}
    train(**run)
    with pytest.raises(ValueError, match="belongs to another configuration") as caught:
        train(**{**run, "model": network(), **change})
    differences = [line.split(":")[0].strip() for line in str(caught.value).splitlines() if " there, " in line]
    assert differences == named


def test_a_checkpoint_of_a_network_with_other_layers_is_refused_though_its_parameters_have_the_same_names(path):
    train(network(), *examples(), checkpoint=path, **RUN)
    other = network()
    other[2] = nn.Tanh()
    with pytest.raises(ValueError, match=r"network: 'Sequential [0-9a-f]{8}' there"):
        train(other, *examples(), checkpoint=path, **RUN)


def test_a_checkpoint_of_the_same_network_with_another_dropout_rate_is_refused(path):
    train(network(), *examples(), checkpoint=path, **RUN)
    other = network()
    other[3].p = 0.1
    with pytest.raises(ValueError, match=r"rates: {'3': 0.5} there, {'3': 0.1} here"):
        train(other, *examples(), checkpoint=path, **RUN)


@pytest.mark.parametrize("number", [{"lr": np.float64(0.1)}, {"lr": {0: np.float64(0.1)}}, {"seed": np.int64(1)}])
def test_settings_that_are_numpy_numbers_can_be_resumed(number, path):
    done = train(network(), *examples(), checkpoint=path, **{**RUN, **number})
    assert_same_to_the_bit(train(network(), *examples(), checkpoint=path, **{**RUN, **number}), done)


# What makes no sense


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (examples()[0], examples()[1][:-1], r"expected labels \[20\], one per input, got \[19\]"),
        (examples()[0], examples()[1][:, None], r"expected labels \[20\], one per input, got \[20, 1\]"),
        (examples()[0], examples()[1] + 1, "labels must be whole numbers from 0 to 2.*from 1 to 3"),
        (examples()[0], examples()[1] - 1, "labels must be whole numbers from 0 to 2.*from -1 to 1"),
        (examples()[0], examples()[1].float(), "labels must be whole numbers from 0 to 2.*float32"),
        (examples()[0][:0], examples()[1][:0], "there are no examples"),
        (
            examples()[0].index_fill(0, torch.tensor([2, 5]), np.nan),
            examples()[1],
            "2 of the 20 inputs hold NaN or infinity",
        ),
        (
            examples()[0].index_fill(0, torch.tensor([2, 5]), np.inf),
            examples()[1],
            "2 of the 20 inputs hold NaN or infinity",
        ),
        (examples()[0].index_fill(0, torch.tensor([0, 5]), np.nan), examples()[1], "2 of the 20 inputs hold NaN"),
        (examples()[0], examples()[1].int(), "labels must be .* of type int64"),
        (examples()[0], examples()[1] > 0, "labels must be .* of type int64"),
    ],
)
def test_examples_that_make_no_sense_are_refused_before_the_first_step(inputs, labels, message):
    model = network()
    with pytest.raises(ValueError, match=message):
        train(model, inputs, labels, progress=False)
    assert_same_to_the_bit(model, network())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        train(network(), *examples(), progress=False, **setting)


@pytest.mark.parametrize(
    ("n", "symptom"), [(20, "became infinite or NaN in epoch 2"), (100, r"loss became (nan|inf) in epoch 2, step \d+")]
)
def test_a_run_that_diverges_stops_and_keeps_the_last_good_checkpoint(n, symptom, path):
    """After the epoch if it is short, within it if it is long."""
    rates = {0: 0.01, 1: 1e30}
    with pytest.raises(FloatingPointError, match=rf"{symptom}: the learning rate 1e\+30 is probably too large"):
        train(network(), *examples(n), epochs=4, lr=rates, batch_size=2, checkpoint=path, progress=False)
    saved = torch.load(path, weights_only=True)
    assert saved["epoch"] == 1
    assert all(value.isfinite().all() for value in saved["model"].values())


@pytest.mark.parametrize("mode", [True, False])
def test_after_a_run_that_diverges_the_modes_are_as_before(mode):
    model = network().train(mode)
    with pytest.raises(FloatingPointError):
        train(model, *examples(), epochs=2, lr=1e30, progress=False)
    assert {module.training for module in model.modules()} == {mode}


@pytest.mark.parametrize("seed", [None, -1])
def test_a_seed_from_which_a_run_cannot_be_repeated_is_refused(seed):
    with pytest.raises(ValueError, match=f"a whole number from 0 on, .* not {seed}"):
        train(network(), *examples(), epochs=1, lr=0.1, seed=seed, progress=False)


def test_a_run_whose_last_step_diverges_does_not_pass_for_good(path):
    """Its loss was still finite, but its weights are infinite after it."""
    inputs, labels = examples()
    with pytest.raises(FloatingPointError):
        train(nn.Linear(D, K), inputs * 1000, labels, epochs=1, lr=1e37, checkpoint=path, progress=False)
    assert not path.exists()


# The progress bar


def slow(x):
    time.sleep(0.02)
    return x


def test_the_progress_bar_shows_what_is_done_the_loss_and_the_rate(capsys):
    train(network(), *examples(), epochs=5, lr=0.03, batch_size=8, perturb=slow)
    shown = capsys.readouterr().err
    assert "training" in shown
    assert "/15" in shown
    assert "loss=" in shown
    assert "lr=0.03" in shown
    assert "lr=0.003" in shown


def test_no_progress_bar_no_output(capsys):
    train(network(), *examples(), epochs=2, progress=False)
    assert capsys.readouterr() == ("", "")


# Faster arithmetic


def small_convolutional(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.Dropout(0.5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(72, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10)),
    )


def loss_after(model, x, y):
    with torch.no_grad():
        return F.cross_entropy(model.eval()(x), y).item()


def test_bfloat16_and_cheap_masks_leave_the_loss_where_it_was(monkeypatch):
    """Six runs of ours against six of the plain loop, from the same weights, with masks and orders of their own. False
    alarm: the mean difference beyond 5 standard errors (t with 5 degrees of freedom), 4e-3; the seeds are fixed. Five
    standard errors are less than a fifth of the loss."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    data = datasets.load("digits")
    x, y = data.inputs(data.train.images), data.train.labels

    def plain(model):
        optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        for _ in range(3):
            for rows in torch.randperm(len(x)).split(32):
                loss = F.cross_entropy(model(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return loss_after(model, x, y)

    how = {"epochs": 3, "lr": {0: 0.01}, "batch_size": 32, "weight_decay": 5e-4, "progress": False}
    expected, found = [], []
    for seed in range(6):
        found.append(
            loss_after(train(small_convolutional(seed), x, y, autocast=torch.bfloat16, seed=seed, **how), x, y)
        )
        expected.append(plain(small_convolutional(seed)))
    difference = np.subtract(found, expected)
    error = difference.std(ddof=1) / len(difference) ** 0.5
    assert abs(difference.mean()) < 5 * error
    assert 5 * error < 0.2 * np.mean(expected)


def test_autocast_keeps_parameters_and_what_is_saved_in_float32(tmp_path):
    inputs, labels = examples()
    model = train(
        network(), inputs, labels, epochs=1, autocast=torch.bfloat16, checkpoint=tmp_path / "a.pt", progress=False
    )
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    with pytest.raises(ValueError, match=r"autocast: 'torch.bfloat16' there, 'None' here"):
        train(network(), inputs, labels, epochs=1, checkpoint=tmp_path / "a.pt", progress=False)


def test_a_perturbation_that_works_in_place_leaves_the_examples_alone():
    x, y = examples()
    before = x.clone()
    train(network(), x, y, epochs=1, perturb=lambda batch: batch.add_(1), progress=False)
    assert torch.equal(x, before)


def test_a_batchnorm_whose_statistics_are_not_finite_is_found():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert sgd.not_finite(model) is None
    model[1].running_var[0] = torch.inf
    assert sgd.not_finite(model) == "1.running_var"


class Checkpointed(nn.Module):
    """Computes its activations a second time on the way back, where they must meet the same gates."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=False)


def test_activations_that_are_computed_anew_meet_the_same_gates(monkeypatch):
    """Against the same network that keeps them, whose gates are PyTorch's own here, too."""
    monkeypatch.setattr(gates, "cheap_masks", lambda model: nullcontext())
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
    x, y = torch.randn(20, 4), torch.randint(3, (20,))
    models = [copy.deepcopy(body), Checkpointed(copy.deepcopy(body))]
    plain, again = (train(model, x, y, epochs=3, lr=0.1, progress=False) for model in models)
    for p, q in zip(plain.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    monkeypatch.undo()
    anew = train(Checkpointed(copy.deepcopy(body)), x, y, epochs=3, lr=0.1, progress=False)
    assert all(torch.equal(p, q) for p, q in zip(again.parameters(), anew.parameters(), strict=True))


def forward_of_its_own():
    layer = nn.Dropout(0.5)
    layer.forward = lambda x: torch.utils.checkpoint.checkpoint(F.dropout, x, 0.5, layer.training, use_reentrant=False)
    return layer


@pytest.mark.parametrize("layer", [checkpoint_wrapper(nn.Dropout(0.5)), forward_of_its_own()], ids=["wrapper", "own"])
def test_the_gradient_goes_through_the_gates_that_the_pass_drew(layer):
    """Of a thousand units that are dropped by a half."""
    x = torch.ones(1000, requires_grad=True)
    model = nn.Sequential(layer)
    assert gates.recomputes(model)
    with gates.sampling(model):
        y = model(x)
    y.sum().backward()
    assert torch.equal(y, x.grad)


def test_losses_of_networks_in_double_precision_are_in_double_precision():
    """Against a step of plain gradient descent."""
    torch.manual_seed(0)
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.arange(8) % 3
    model = nn.Linear(4, 3, dtype=torch.float64)
    other = copy.deepcopy(model)
    F.cross_entropy(other(x), y).backward()
    train(model, x, y, epochs=1, lr=0.1, batch_size=8, weight_decay=0.0, progress=False)
    torch.testing.assert_close(model.weight, other.weight - 0.1 * other.weight.grad, atol=1e-15, rtol=0)


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch_size": 0}, {"lr": -1.0}])
def test_a_refused_call_leaves_the_mode(change):
    model = nn.Linear(4, 3).eval()
    with pytest.raises(ValueError, match="must be"):
        train(model, torch.randn(6, 4), torch.tensor([0, 1, 2] * 2), **{"epochs": 1, "progress": False, **change})
    assert not model.training
