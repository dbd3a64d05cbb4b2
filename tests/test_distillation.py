"""Algorithm 2 against the same algorithm by hand and against the ideal predictor, and what it leaves as it was."""

import copy
import threading
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchvision.ops import StochasticDepth

from helpers import bregman, datasets, gates, precision, predictors
from helpers.distillation import distill
from helpers.training import train
from tests.test_training import Perturb, assert_same_to_the_bit, descend_by_hand, softmax

N, D, K = 20, 6, 3
INPUTS = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
SHORT = {"epochs": 2, "lr": 0.1, "batch_size": 8, "progress": False}  # three steps an epoch


def seeded_network(*make, seed=0, scale=1.0):
    """The layers that `make` makes, with the same weights each time."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = nn.Sequential(*(layer() for layer in make))
        for p in model.parameters():
            p.mul_(scale)
    return model


def teacher_network(seed=0, p=0.5, classes=K):
    """A teacher with BatchNorm, in eval mode, as after training."""
    model = seeded_network(
        lambda: nn.Linear(D, 8),
        lambda: nn.BatchNorm1d(8),
        nn.ReLU,
        lambda: nn.Dropout(p),
        lambda: nn.Linear(8, classes),
        seed=seed,
    )
    model(INPUTS)  # statistics to remember
    return model.eval()


def student_network(seed=3, classes=K):
    """Smaller than the teacher, without dropout, in training mode."""
    return seeded_network(
        lambda: nn.Linear(D, 4, bias=False),
        lambda: nn.BatchNorm1d(4),
        nn.ReLU,
        lambda: nn.Linear(4, classes),
        seed=seed,
    )


def kl_to(ideal, q):
    return bregman.kl(ideal, q).mean().item()


# The algorithm


def gradient_of_kl(f):
    return lambda z: (softmax(z) - f) / len(f)


def gradient_of_squared_euclidean(f):
    def gradient(z):
        q = softmax(z)
        d = 2 * (q - f)
        return q * (d - (q * d).sum(1, keepdims=True)) / len(f)

    return gradient


@pytest.mark.parametrize(
    ("loss", "gradient"),
    [(bregman.kl, gradient_of_kl), (bregman.squared_euclidean, gradient_of_squared_euclidean)],
    ids=["KL", "squared Euclidean"],
)
@pytest.mark.parametrize("samples", [1, 3])
def test_distillation_is_algorithm_2(loss, gradient, samples):
    """A linear student, from the batches and the gates that were drawn: its target is a mean of softmaxes."""
    teacher, student = (
        seeded_network(lambda: nn.Dropout(0.4), lambda: nn.Linear(D, K)).double(),
        nn.Linear(D, K).double(),
    )
    start, seen, drawn = copy.deepcopy(student), [], []

    def note(layer, x, gated):
        if layer.training:
            drawn.append((x[0].clone(), gated.clone()))

    teacher[0].register_forward_hook(note)
    student.register_forward_pre_hook(lambda layer, x: seen.append(x[0].clone()))
    perturb = Perturb()
    settings = {"epochs": 3, "lr": {0: 0.5, 2: 0.1}, "batch_size": 8, "momentum": 0.8, "weight_decay": 0.03}
    distill(
        teacher,
        INPUTS.double(),
        student=student,
        loss=loss,
        samples=samples,
        perturb=perturb,
        progress=False,
        **settings,
    )

    assert len(seen) == 9
    assert len(drawn) == 9 * samples
    W, b = (p.detach().numpy() for p in (teacher[1].weight, teacher[1].bias))

    def steps():
        for step, x in enumerate(seen):
            assert not torch.equal(x, perturb.batches[step])
            passes = drawn[step * samples : (step + 1) * samples]
            assert all(torch.equal(entered, x) for entered, _ in passes)  # both see what the perturbation returned
            f = sum(softmax(gated.numpy() @ W.T + b) for _, gated in passes) / samples
            yield (0.5 if step < 6 else 0.1), x.numpy(), gradient(f)

    W_student, b_student = descend_by_hand(start, steps(), momentum=0.8, weight_decay=0.03)
    np.testing.assert_allclose(student.weight.detach().numpy(), W_student, atol=1e-6)
    np.testing.assert_allclose(student.bias.detach().numpy(), b_student, atol=1e-6)
    assert abs(W_student - start.weight.detach().numpy()).max() > 0.1


def test_every_step_and_every_sample_draws_gates_afresh_for_each_example():
    """False alarms: a rate beyond 5 σ, 6e-7; two of 240 masks of 200 gates coincide, 1e-50."""
    teacher = nn.Sequential(nn.Dropout(0.4), nn.Linear(200, K))
    masks = []
    teacher[0].register_forward_hook(lambda layer, x, gated: masks.append(gated != 0) if layer.training else None)
    distill(teacher, torch.ones(40, 200), student=nn.Linear(200, K), samples=2, epochs=3, batch_size=16, progress=False)
    masks = torch.cat(masks)
    assert masks.shape == (240, 200)
    assert len(masks.unique(dim=0)) == 240
    assert abs(masks.double().mean() - 0.6) < 5 * (0.24 / masks.numel()) ** 0.5


FIVE = torch.cat([torch.eye(4), torch.ones(1, 4)])  # inputs on which a linear student can have any outputs
LINEAR = (lambda: nn.Dropout(0.5), lambda: nn.Linear(4, 3))
RELU = (lambda: nn.Linear(4, 6), nn.ReLU, lambda: nn.Dropout(0.5), lambda: nn.Linear(6, 3))


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("loss", [bregman.kl, bregman.squared_euclidean], ids=lambda loss: loss.name)
@pytest.mark.parametrize("layers", [LINEAR, RELU], ids=["linear", "ReLU"])
def test_the_student_comes_to_the_exact_mean_over_all_masks(layers, loss, samples):
    """False alarms: in 100 seeds of each of the eight cases the ratio was at most 0.052 (median 0.004)."""
    teacher = seeded_network(*layers, scale=4)
    lr = {0: 0.2 if loss is bregman.kl else 0.5, 25: 0.02, 35: 0.005}
    student = distill(
        teacher, FIVE.repeat(100, 1), loss=loss, samples=samples, epochs=40, lr=lr, batch_size=50, progress=False
    )
    exact = predictors.exact(teacher, FIVE)
    assert kl_to(exact, student(FIVE).softmax(-1)) < 0.1 * kl_to(exact, predictors.standard(teacher, FIVE))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_unseen_digits_the_student_is_far_nearer_to_the_ideal_than_weight_scaling(seed):
    """False alarm: the ratio was 0.064 to 0.080 in six seeds."""
    data = datasets.load("digits")
    x, unseen = data.inputs(data.train.images), data.inputs(data.test.images)
    layers = (nn.Flatten, lambda: nn.Linear(64, 64), nn.ReLU, lambda: nn.Dropout(0.5), lambda: nn.Linear(64, 10))
    teacher = train(
        seeded_network(*layers, seed=seed), x, data.train.labels, epochs=20, lr=0.05, seed=seed, progress=False
    )
    student = distill(teacher, x, epochs=30, lr=0.05, seed=seed, progress=False)
    ideal = predictors.monte_carlo(teacher, unseen, 2000, seed, batch_size=500)
    assert kl_to(ideal, student(unseen).softmax(-1)) < kl_to(ideal, predictors.standard(teacher, unseen)) / 3


def test_a_teacher_that_returns_probabilities_is_distilled_with_its_own_output():
    """As the same teacher that returns logits, but for rounding."""
    teacher = seeded_network(*LINEAR)
    with_softmax = nn.Sequential(*copy.deepcopy(teacher), nn.Softmax(-1))
    plain = distill(teacher, FIVE, **SHORT)
    other = distill(with_softmax, FIVE, output=lambda probabilities: probabilities, **SHORT)
    torch.testing.assert_close(other(FIVE), plain(FIVE).softmax(-1))


# Kinds of teachers


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(D, 2, dropout=0.5, batch_first=True), nn.Linear(D, K)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


class LastStep(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.recurrent, self.head = kind(D, 8, num_layers=2, dropout=0.5, batch_first=True), nn.Linear(8, K)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.block, self.depth, self.head = nn.Linear(D, D), StochasticDepth(0.5, "row"), nn.Linear(D, K)

    def forward(self, x):
        return self.head(x + self.depth(self.block(x).relu()))


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(D, 2, 8, dropout=0.3, batch_first=True)
        self.head = nn.Linear(D, K)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


KINDS = {
    "attention": ([Attention], [4, D]),
    "transformer": ([Pooled], [4, D]),
    "LSTM": ([lambda: LastStep(nn.LSTM)], [4, D]),
    "GRU": ([lambda: LastStep(nn.GRU)], [4, D]),
    "AlphaDropout": ([lambda: nn.Linear(D, 8), nn.SELU, lambda: nn.AlphaDropout(0.3), lambda: nn.Linear(8, K)], [D]),
    "StochasticDepth": ([Residual], [D]),
    "RReLU": ([lambda: nn.Linear(D, 8), lambda: nn.RReLU(-1.0, 2.0), lambda: nn.Linear(8, K)], [D]),
    "BatchNorm": (
        [lambda: nn.Linear(D, 8), lambda: nn.BatchNorm1d(8), nn.ReLU, lambda: nn.Dropout(0.5), lambda: nn.Linear(8, K)],
        [D],
    ),
    "Dropout2d": (
        [lambda: nn.Conv2d(1, 6, 3), nn.ReLU, lambda: nn.Dropout2d(0.5), nn.Flatten, lambda: nn.Linear(24, K)],
        [1, 4, 4],
    ),
}


@pytest.mark.parametrize(("layers", "shape"), KINDS.values(), ids=KINDS)
def test_teachers_of_every_kind_are_distilled_and_left_as_they_were(layers, shape):
    """False alarms: in 20 seeds of each kind the ratio was at most 0.29 (medians 0.014 to 0.28)."""
    teacher = seeded_network(*layers, scale=3)
    before = copy.deepcopy(teacher)
    x = torch.randn(32, *shape, generator=torch.Generator().manual_seed(2))
    student = distill(teacher, x, epochs=60, lr=0.02, batch_size=16, samples=4, progress=False)
    assert_same_to_the_bit(teacher, before)
    ideal = predictors.monte_carlo(teacher, x, 500, seed=0)
    standard = kl_to(ideal, predictors.standard(teacher, x))
    assert standard < np.inf
    assert kl_to(ideal, student(x).softmax(-1)) < standard / 2


# What happens to the teacher


@pytest.mark.parametrize("frozen", [False, True])
def test_the_teacher_keeps_weights_statistics_and_gradients(frozen):
    teacher = teacher_network().train().requires_grad_(not frozen)
    before = copy.deepcopy(teacher)
    distill(teacher, INPUTS, **SHORT)
    assert_same_to_the_bit(teacher, before)
    assert [(p.grad, p.requires_grad) for p in teacher.parameters()] == [(None, not frozen)] * 6


@pytest.mark.parametrize("fails_at", [None, 2])
def test_the_teacher_keeps_its_modes_also_after_an_exception(fails_at):
    teacher = teacher_network()
    teacher.training, teacher[1].training, teacher[3].training = (
        True,
        True,
        False,
    )  # a mixture that nothing else would make
    before = {name: module.training for name, module in teacher.named_modules()}
    with pytest.raises(InterruptedError) if fails_at else nullcontext():
        distill(teacher, INPUTS, perturb=Perturb(fails_at), **SHORT)
    assert {name: module.training for name, module in teacher.named_modules()} == before


# What the student is


@pytest.mark.parametrize("frozen", [False, True])
def test_the_default_student_is_a_trainable_deterministic_copy_in_eval_mode(frozen):
    teacher = teacher_network().requires_grad_(not frozen)
    student = distill(teacher, INPUTS, **SHORT)
    assert not any(module.training for module in student.modules())
    assert all(p.requires_grad for p in student.parameters())
    assert list(student.state_dict()) == list(teacher.state_dict())
    addresses = [{value.data_ptr() for value in model.state_dict().values()} for model in (student, teacher)]
    assert not addresses[0] & addresses[1]
    assert not {id(module) for module in student.modules()} & {id(module) for module in teacher.modules()}
    assert list(gates.stochastic_layers(teacher)) == ["3"]
    student.train()
    assert torch.equal(student(INPUTS), student(INPUTS))


def test_the_default_student_starts_from_the_teacher_and_learns_all_but_batchnorm_statistics():
    teacher = teacher_network()
    student = distill(teacher, INPUTS, **{**SHORT, "lr": 1e-30})
    torch.testing.assert_close(student.state_dict(), teacher.state_dict(), rtol=0, atol=1e-20)
    student = distill(teacher, INPUTS, **SHORT)
    same = [name for name, value in student.state_dict().items() if torch.equal(value, teacher.state_dict()[name])]
    assert same == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_a_given_student_is_trained_in_place_and_its_batchnorm_learns_in_training_mode_only(mode):
    student = student_network().train(mode)
    result = distill(teacher_network(), INPUTS, student=student, **SHORT)
    assert result is student
    assert not any(module.training for module in student.modules())
    changed = {
        name
        for name, value in student.state_dict().items()
        if not torch.equal(value, student_network().state_dict()[name])
    }
    statistics = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert changed == student.state_dict().keys() - (set() if mode else statistics)


def test_a_smaller_student_comes_nearer_to_the_ideal():
    """False alarm: in 100 seeds the ratio was at most 0.015 (median 0.008)."""
    teacher, student = teacher_network(), student_network()
    ideal = predictors.exact(teacher, INPUTS)
    before = kl_to(ideal, student_network().eval()(INPUTS).softmax(-1))
    distill(teacher, INPUTS, student=student, epochs=100, lr=0.2, batch_size=10, samples=4, progress=False)
    assert kl_to(ideal, student(INPUTS).softmax(-1)) < before / 10


# Random numbers and checkpoints


@pytest.mark.parametrize("perturb", [None, Perturb(fails_at=2)], ids=["to the end", "with an error"])
def test_the_global_random_state_is_left_alone(perturb):
    teacher, before = teacher_network(), torch.get_rng_state()
    with pytest.raises(InterruptedError) if perturb else nullcontext():
        distill(teacher, INPUTS, perturb=perturb, **SHORT)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_seed_alone_decides_the_run():
    first, again, other = (distill(teacher_network(), INPUTS, seed=seed, **SHORT) for seed in (0, 0, 1))
    assert_same_to_the_bit(again, first)
    assert not torch.equal(other[0].weight, first[0].weight)


LABELS = torch.arange(N) % K


@pytest.mark.parametrize("shuffle", [False, True])
def test_labels_in_a_loader_make_no_difference_to_the_bit(shuffle):
    with_labels, without = (
        distill(teacher_network(), DataLoader(data, 8, shuffle=shuffle), **SHORT)
        for data in (TensorDataset(INPUTS, LABELS), TensorDataset(INPUTS))
    )
    assert_same_to_the_bit(with_labels, without)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(INPUTS)


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: DataLoader(data, 8)], ids=["data set", "loader"])
@pytest.mark.parametrize("progress", [False, True])
def test_a_stream_without_a_length_is_distilled_as_the_same_examples_in_a_loader(wrap, progress):
    expected = distill(teacher_network(), DataLoader(INPUTS, 8), **SHORT)
    assert_same_to_the_bit(distill(teacher_network(), wrap(Stream()), **{**SHORT, "progress": progress}), expected)


RUN = {**SHORT, "epochs": 5}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "student.ckpt"


@pytest.mark.parametrize("student", [lambda seed: None, student_network], ids=["copy", "BatchNorm that learns"])
@pytest.mark.parametrize("step", [7, 8, 9])
def test_an_interrupted_run_comes_to_the_weights_of_an_uninterrupted_one(student, step, path):
    whole = distill(teacher_network(), INPUTS, student=student(3), perturb=Perturb(), **RUN)
    with pytest.raises(InterruptedError):
        distill(teacher_network(), INPUTS, student=student(3), perturb=Perturb(step), checkpoint=path, **RUN)

    torch.manual_seed(99)  # as in another process
    rest = Perturb()
    resumed = distill(teacher_network(), INPUTS, student=student(4), perturb=rest, checkpoint=path, **RUN)
    assert len(rest.batches) == 9
    assert_same_to_the_bit(resumed, whole)


@pytest.mark.parametrize(
    "given", [lambda: TensorDataset(INPUTS), lambda: DataLoader(INPUTS, 8, shuffle=True)], ids=["Dataset", "DataLoader"]
)
def test_an_interrupted_run_over_examples_of_another_form_does_so_too(given, path):
    whole = distill(teacher_network(), given(), perturb=Perturb(), **RUN)
    with pytest.raises(InterruptedError):
        distill(teacher_network(), given(), perturb=Perturb(8), checkpoint=path, **RUN)
    torch.manual_seed(99)
    assert_same_to_the_bit(distill(teacher_network(), given(), perturb=Perturb(), checkpoint=path, **RUN), whole)


def test_an_objective_that_fails_interrupts_like_anything_else(path):
    """The loss fails in step 8; the third epoch begins again."""
    calls = []

    def loss(y, q):
        calls.append(y)
        if len(calls) == 8:
            raise InterruptedError
        return bregman.kl(y, q)

    whole = distill(teacher_network(), INPUTS, loss=lambda y, q: bregman.kl(y, q), **RUN)
    with pytest.raises(InterruptedError):
        distill(teacher_network(), INPUTS, loss=loss, checkpoint=path, **RUN)
    assert_same_to_the_bit(distill(teacher_network(), INPUTS, loss=loss, checkpoint=path, **RUN), whole)


def test_a_finished_run_is_returned_without_a_step(path):
    done = distill(teacher_network(), INPUTS, perturb=Perturb(), checkpoint=path, **RUN)
    again = distill(teacher_network(), INPUTS, perturb=Perturb(fails_at=1), checkpoint=str(path), **RUN)
    assert_same_to_the_bit(again, done)


def softmax_when_warm(z):
    return (z / 10).softmax(-1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"teacher": teacher_network(seed=1)}, ["teacher"]),
        ({"inputs": INPUTS + 1}, ["data"]),
        ({"samples": 2}, ["samples"]),
        ({"loss": bregman.squared_euclidean}, ["loss"]),
        ({"perturb": datasets.mirror}, ["perturb"]),
        ({"batch_size": 4}, ["batch_size"]),
        ({"student": student_network()}, ["parameters", "trained", "student", "student's mode"]),
        ({"output": softmax_when_warm}, ["output"]),
    ],
    ids=["teacher", "data", "samples", "loss", "perturb", "batch_size", "student", "output"],
)
def test_another_run_s_checkpoint_is_refused(change, named, path):
    run = {"teacher": teacher_network(), "inputs": INPUTS, "checkpoint": path, **RUN}
    distill(**run)
    with pytest.raises(ValueError, match="belongs to another configuration") as caught:
        distill(**{**run, **change})
    differences = [line.split(":")[0].strip() for line in str(caught.value).splitlines() if " there, " in line]
    assert differences == named


def test_a_checkpoint_of_the_same_teacher_with_another_dropout_rate_is_refused(path):
    teacher = teacher_network()
    distill(teacher, INPUTS, checkpoint=path, **RUN)
    teacher[3].p = 0.1
    with pytest.raises(ValueError, match=r"rates: {'3': 0.5} there, {'3': 0.1} here"):
        distill(teacher, INPUTS, checkpoint=path, **RUN)


def test_a_damaged_checkpoint_is_named(path):
    path.parent.mkdir()
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(
        ValueError, match=r"student.ckpt is not a checkpoint that can be read .*; delete it to start afresh"
    ):
        distill(teacher_network(), INPUTS, checkpoint=path, **RUN)


# What makes no sense


def nan_in(model):
    with torch.no_grad():
        model[4].weight[0, 0] = float("nan")
    return model


WITH_NAN = INPUTS.index_fill(0, torch.tensor([2, 5]), float("nan"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"teacher": nn.Sequential(nn.Linear(D, K))}, ValueError, "Sequential has no dropout in it"),
        ({"teacher": teacher_network(p=0.0)}, ValueError, "Sequential has no dropout in it"),
        ({"teacher": nan_in(teacher_network())}, ValueError, "teacher's '4.weight' holds NaN or infinity"),
        ({"student": teacher_network()}, ValueError, r"student drops units itself, in \['3'\]; call gates.remove"),
        ({"student": student_network(classes=2)}, ValueError, r"teacher returns \[8, 3\] and the student \[8, 2\]"),
        ({"teacher": teacher_network(classes=10), "student": student_network(classes=9)}, ValueError, "must agree"),
        ({"inputs": WITH_NAN}, ValueError, "2 of the 20 inputs hold NaN or infinity"),
        ({"inputs": DataLoader(WITH_NAN, 4)}, ValueError, "1 of the 4 inputs hold NaN or infinity"),
        ({"inputs": INPUTS[:0]}, ValueError, "there are no examples"),
        ({"inputs": TensorDataset(INPUTS[:0])}, ValueError, "the data set is empty"),
        ({"inputs": DataLoader(INPUTS[:0], 4)}, ValueError, "the data set is empty"),
        ({"inputs": DataLoader(INPUTS, 64, drop_last=True)}, ValueError, "the data set is empty"),
        ({"inputs": TensorDataset(LABELS, INPUTS)}, TypeError, "cannot tell the inputs in a batch"),
        ({"inputs": LABELS}, TypeError, "looks like labels"),
        ({"inputs": (INPUTS, LABELS)}, TypeError, "expected a tensor .*, not tuple"),
        ({"samples": 0}, ValueError, "must be at least 1, not 0"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, not 0"),
        ({"lr": -1.0}, ValueError, "learning rates must be positive"),
        ({"lr": [0.1, 0.01]}, TypeError, r"a number or {epoch: rate from then on}, not \[0.1, 0.01\]"),
        ({"loss": nn.CrossEntropyLoss()}, ValueError, r"the loss returns \[\], not \[8\].*in the other order"),
        ({"loss": nn.KLDivLoss(reduction="none")}, ValueError, r"the loss returns \[8, 3\], not \[8\]"),
        ({"perturb": lambda x: None}, TypeError, "expected a tensor, .* not NoneType"),
        ({"lr": 1e6}, FloatingPointError, "became .* in epoch .*learning rate 1e[+]06 is probably too large"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, not 0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(change, error, message):
    run = {"teacher": teacher_network(), "inputs": INPUTS, **SHORT, **change}
    modes = [module.training for module in run["teacher"].modules()]
    with pytest.raises(error, match=message):
        distill(**run)
    assert [module.training for module in run["teacher"].modules()] == modes


def test_a_run_whose_last_step_diverges_does_not_pass_for_good(path):
    """√ has an infinite slope at 0, where the student starts: the loss is finite, but its gradient is NaN."""
    teacher = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 2))
    nn.init.zeros_(teacher[1].weight)
    with pytest.raises(FloatingPointError):
        distill(
            teacher,
            torch.ones(64, 1),
            student=copy.deepcopy(teacher[1]),
            loss=lambda y, q: (y - q).square().sum(-1).sqrt(),
            epochs=1,
            checkpoint=path,
            progress=False,
        )
    assert not path.exists()


def test_the_progress_bar_shows_what_is_done_the_loss_and_the_rate(capsys):
    distill(teacher_network(), INPUTS, **{**SHORT, "epochs": 30, "progress": True})
    shown = capsys.readouterr().err
    assert "distilling" in shown
    assert "/90" in shown
    distill(teacher_network(), INPUTS, **SHORT)
    assert capsys.readouterr() == ("", "")


# Faster arithmetic


def test_bfloat16_leads_to_almost_the_same_student(monkeypatch):
    """The same seed, so the same masks: rounding is all that differs, and is small beside what distillation changes."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    how = {"epochs": 5, "lr": 0.05, "batch_size": 8, "progress": False}
    teacher = teacher_network()
    students = [
        distill(teacher, INPUTS, student=student_network(), autocast=dtype, **how) for dtype in (None, torch.bfloat16)
    ]
    assert {p.dtype for p in students[1].parameters()} == {torch.float32}
    full, half, start = (predictors.standard(student, INPUTS) for student in (*students, student_network()))
    assert 0 < (full - half).abs().max() < 0.1 * (full - start).abs().max()


# What may not be, and what may


def test_a_teacher_whose_mask_of_attention_is_made_of_infinities_is_distilled():
    class Causal(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(4))
            self.network = teacher_network()

        def forward(self, x):
            return self.network(x) + self.mask.softmax(-1).sum() * 0

    student = distill(train(Causal(), INPUTS, torch.zeros(N, dtype=torch.int64), **SHORT), INPUTS, **SHORT)
    assert student.mask.isinf().any()


def test_outputs_are_compared_and_not_what_the_networks_return():
    def output(z):
        return torch.cat([z.sigmoid(), (-z).sigmoid()], -1)

    one_logit = teacher_network(classes=1)
    distill(one_logit, INPUTS, output=output, **SHORT)
    with pytest.raises(ValueError, match=r"the teacher returns \[8, 2\] and the student \[8, 3\]"):
        distill(
            one_logit, INPUTS, student=student_network(), output=lambda z: output(z) if z.shape[-1] == 1 else z, **SHORT
        )


def test_a_student_that_would_change_its_teacher_is_refused_and_may_share_what_is_frozen():
    teacher = teacher_network()
    first = next(layer for layer in teacher.modules() if isinstance(layer, nn.Linear))
    student = nn.Sequential(first, nn.ReLU(), nn.Linear(first.out_features, K))
    with pytest.raises(ValueError, match=r"shares \['0.weight', '0.bias'\] with its teacher"):
        distill(teacher, INPUTS, student=student, **SHORT)
    first.requires_grad_(False)
    before = first.weight.clone()
    distill(teacher, INPUTS, student=student, **SHORT)
    assert torch.equal(first.weight, before)


def another_tensor(student, teacher):
    student[0].weight.data = teacher[0].weight.data


def assigned(student, teacher):
    student.load_state_dict(teacher.state_dict(), assign=True)
    student.requires_grad_()


def statistics(student, teacher):
    student[1].running_mean = teacher[1].running_mean


@pytest.mark.parametrize(
    ("share", "name"), [(another_tensor, "0.weight"), (assigned, "0.weight"), (statistics, "mean")]
)
def test_what_lies_in_the_same_memory_is_shared(share, name):
    teacher, student = teacher_network(), gates.remove(teacher_network(seed=1)).train()
    share(student, teacher)
    before = copy.deepcopy(teacher)
    with pytest.raises(ValueError, match=rf"shares \[.*{name}.*\] with its teacher, which would change"):
        distill(teacher, INPUTS, student=student, **SHORT)
    assert_same_to_the_bit(teacher, before)


def constants(student, teacher):
    for network in (teacher, student):
        network.register_buffer("positions", torch.arange(3))
    student.positions = teacher.positions


@pytest.mark.parametrize(("share", "training"), [(statistics, False), (constants, True)])
def test_buffers_that_stay_as_they_are_may_be_shared(share, training):
    teacher, student = teacher_network(), gates.remove(teacher_network(seed=1)).train(training)
    share(student, teacher)
    before = copy.deepcopy(teacher)
    distill(teacher, INPUTS, student=student, **SHORT)
    assert_same_to_the_bit(teacher, before)


def test_a_copy_that_holds_on_to_the_teacher_s_layers_is_refused():
    teacher = teacher_network()
    last = teacher[4]
    last.forward = lambda x: nn.functional.linear(x, last.weight, last.bias)
    with pytest.raises(ValueError, match=r"computes with \['4.weight', '4.bias'\] of the teacher"):
        distill(teacher, INPUTS, **SHORT)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_where_no_gradient_can_be_had_that_is_said():
    with torch.inference_mode(), pytest.raises(ValueError, match="no gradient reaches the student's parameters"):
        distill(teacher_network(), INPUTS, **SHORT)


def test_a_loss_that_is_not_made_for_the_outputs_is_not_laid_on_the_learning_rate():
    with pytest.raises(FloatingPointError, match="in the first step, before any weight was changed"):
        distill(teacher_network(), INPUTS, output=lambda z: z, **SHORT)


def test_coarse_parameters_are_warned_of():
    with pytest.warns(UserWarning, match=r"trained in torch.bfloat16, in which small steps are rounded away"):
        distill(teacher_network().bfloat16(), INPUTS.bfloat16(), **SHORT)


def test_a_checkpoint_of_a_student_with_other_layers_is_refused(path):
    def network(activation):
        return seeded_network(lambda: nn.Linear(D, 4), activation, lambda: nn.Linear(4, K))

    distill(teacher_network(), INPUTS, student=network(nn.ReLU), checkpoint=path, **SHORT)
    with pytest.raises(ValueError, match="belongs to another configuration"):
        distill(teacher_network(), INPUTS, student=network(nn.Tanh), checkpoint=path, **SHORT)


def test_inputs_get_no_gradient():
    x = INPUTS.clone().requires_grad_()
    distill(teacher_network(), x, **SHORT)
    assert x.grad is None


@pytest.mark.parametrize(
    ("this", "that"),
    [
        ({"loss": bregman.PNorm(1.5)}, {"loss": bregman.PNorm(4.0)}),
        ({"perturb": lambda x: x + 0.1}, {"perturb": lambda x: x + 0.2}),
        ({"inputs": TensorDataset(INPUTS)}, {"inputs": TensorDataset(INPUTS[:10])}),
        ({"student": student_network().eval()}, {"student": student_network().train()}),
    ],
    ids=["another loss", "another perturbation", "other examples", "a student in another mode"],
)
def test_a_checkpoint_of_another_distillation_is_refused(this, that, tmp_path):
    def run(inputs=INPUTS, **how):
        distill(teacher_network(), inputs, checkpoint=tmp_path / "x.pt", **how, **SHORT)

    run(**this)
    run(**this)
    with pytest.raises(ValueError, match="belongs to another configuration"):
        run(**that)


def test_a_checkpoint_of_a_student_of_which_less_was_trained_is_refused(tmp_path):
    student = student_network()
    distill(teacher_network(), INPUTS, student=student, checkpoint=tmp_path / "x.pt", **SHORT)
    next(student.parameters()).requires_grad_(False)
    with pytest.raises(ValueError, match="belongs to another configuration"):
        distill(teacher_network(), INPUTS, student=student, checkpoint=tmp_path / "x.pt", **SHORT)


def test_networks_that_work_in_place_leave_the_loader_s_tensors_alone():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = teacher_network()

        def forward(self, x):
            x -= 1
            return self.layers(x)

    batches = [torch.zeros(5, D), torch.zeros(3, D)]
    distill(Shifted(), DataLoader(batches, batch_size=None), epochs=2, progress=False)
    assert all((batch == 0).all() for batch in batches)


def test_a_student_with_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="no parameter of the Sequential can be trained"):
        distill(teacher_network(), INPUTS, student=student_network().requires_grad_(False), **SHORT)


def test_a_checkpoint_that_cannot_be_written_is_found_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("no folder")
    steps = []
    with pytest.raises(OSError, match="cannot write the checkpoint"):
        distill(
            teacher_network(),
            INPUTS,
            perturb=lambda x: steps.append(1) or x,
            checkpoint=tmp_path / "file" / "run.pt",
            **SHORT,
        )
    assert not steps


class OneShot(IterableDataset):
    """As a generator, it can be gone through once."""

    def __init__(self):
        self.rest = iter(INPUTS)

    def __iter__(self):
        return self.rest


def image_network():
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.Dropout(0.5), nn.Conv2d(8, 4, 1))


def probabilities_network(dtype):
    return nn.Sequential(*teacher_network(), nn.Softmax(-1)).to(dtype)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": image_network(), "inputs": torch.randn(6, 3, 5, 5)}, r"returns \[6, 4, 5, 5\].*movedim"),
        (
            {"teacher": nn.Sequential(*teacher_network(classes=1), nn.Flatten(0)), "output": torch.sigmoid},
            r"compared are \[8\], .*unsqueeze",
        ),
        ({"inputs": OneShot()}, "no batch in epoch 2: they can be gone through only once"),
        *(
            ({"teacher": probabilities_network(dtype), "inputs": INPUTS.to(dtype)}, "softmax would be taken twice")
            for dtype in (torch.float32, torch.bfloat16, torch.float64)
        ),
    ],
    ids=["images", "one number", "one shot", "float32", "bfloat16", "float64"],
)
def test_what_would_be_wrong_in_silence_is_refused_in_words(change, message):
    with pytest.raises(ValueError, match=message):
        distill(**{"teacher": teacher_network(), "inputs": INPUTS, **SHORT, **change})


class InADictionary(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return {"logits": self.network(x)}


@pytest.mark.parametrize(
    "change",
    [{"teacher": InADictionary(teacher_network())}, {"student": InADictionary(nn.Linear(D, K))}],
    ids=["teacher", "student"],
)
def test_a_network_that_returns_no_tensor_is_refused_by_what_it_returns(change):
    with pytest.raises(TypeError, match=r"returns a dict, not logits.*found\['logits'\]"):
        distill(**{"teacher": teacher_network(), "inputs": INPUTS, **SHORT, **change})


def test_images_are_distilled_class_by_class():
    """With convolutions of one pixel each pixel is an example, so that the ideal can be counted."""
    torch.manual_seed(0)
    model, x = image_network(), torch.randn(64, 3, 3, 3)
    with torch.no_grad():
        model[2].weight.mul_(6)  # so that there is something to learn
    pixels = lambda z: predictors.softmax(z.movedim(1, -1))
    student = distill(model, x, output=pixels, epochs=30, lr=0.2, batch_size=8, progress=False)
    flat = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 4))
    for i in (0, 2):
        flat[i].load_state_dict(
            {key: value.flatten(1) if value.ndim > 1 else value for key, value in model[i].state_dict().items()}
        )
    ideal = predictors.exact(flat, x.movedim(1, -1).flatten(0, 2))

    def distance(network):
        q = predictors.standard(network, x, output=pixels).flatten(0, 2)
        return kl_to(ideal, q)

    assert distance(student) < distance(model) / 2


@pytest.mark.parametrize("device", [None, "cpu", "cpu:0"])
def test_however_the_device_is_spelt_no_shared_parameter_is_trained(device):
    teacher = teacher_network()
    weight = teacher[0].weight.clone()
    with pytest.raises(ValueError, match=r"shares \['0.weight', '0.bias'\] with its teacher, which would change"):
        distill(teacher, INPUTS, student=nn.Sequential(teacher[0], nn.Linear(8, K)), device=device, **SHORT)
    assert torch.equal(teacher[0].weight, weight)


def test_a_shared_parameter_is_not_taken_to_another_device():
    teacher = teacher_network()
    student = nn.Sequential(teacher[0].requires_grad_(False), nn.Linear(8, K))
    with pytest.raises(ValueError, match="would be moved with it"):
        distill(teacher, INPUTS, student=student, device="meta", **SHORT)
    assert teacher[0].weight.device.type == "cpu"


def test_numbers_of_numpy_are_numbers(path):
    run = {"epochs": np.int64(2), "batch_size": np.int64(8), "samples": np.int64(1), "seed": np.int64(0)}
    run |= {"lr": np.float64(0.1), "momentum": np.float32(0.5), "progress": False}
    student = distill(teacher_network(), INPUTS, checkpoint=path, **run)
    again = distill(teacher_network(), INPUTS, checkpoint=path, **run)
    assert_same_to_the_bit(student, again)


def test_a_checkpoint_in_the_home_folder_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    distill(teacher_network(), INPUTS, checkpoint="~/student.ckpt", **SHORT)
    assert (tmp_path / "student.ckpt").exists()


def test_distillation_records_the_gradients_that_it_needs():
    student = distill(teacher_network(), INPUTS, **SHORT)
    with torch.no_grad():
        assert_same_to_the_bit(distill(teacher_network(), INPUTS, **SHORT), student)


class ReturnsNothing(nn.Sequential):
    def train(self, mode=True):
        super().train(mode)


@pytest.mark.parametrize("own", [True, False])
def test_a_network_whose_train_returns_nothing_is_returned_all_the_same(own):
    teacher = ReturnsNothing(*teacher_network())
    student = distill(teacher, INPUTS, student=ReturnsNothing(*student_network()) if own else None, **SHORT)
    assert isinstance(student, ReturnsNothing) and not student.training


class Remembers(nn.Sequential):
    def forward(self, x):
        self.last = super().forward(x)
        return self.last


def test_a_network_that_cannot_be_copied_is_refused_in_words():
    teacher = Remembers(*teacher_network())
    teacher(INPUTS)
    with pytest.raises(ValueError, match=r"cannot be copied .*torch.no_grad"):
        distill(teacher, INPUTS, **SHORT)


def test_a_network_that_holds_what_cannot_be_copied_is_refused_in_words():
    teacher = teacher_network()
    teacher.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"cannot be copied .*such as a lock"):
        distill(teacher, INPUTS, **SHORT)


@pytest.mark.parametrize(
    ("loss", "output"), [(bregman.kl, predictors.softmax), (bregman.logistic, torch.sigmoid)], ids=["kl", "logistic"]
)
def test_predictions_that_are_rounded_to_one_can_be_distilled(loss, output):
    teacher = seeded_network(lambda: nn.Dropout(0.5), lambda: nn.Linear(D, K), scale=1000.0)
    student = distill(teacher, INPUTS, loss=loss, output=output, **SHORT)
    assert all(p.isfinite().all() for p in student.parameters())


class DropsWhatEnters(nn.LSTM):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.5, self.training))[0][:, -1]


def test_a_recurrent_layer_that_drops_in_its_own_code_is_distilled():
    torch.manual_seed(0)
    teacher, x = nn.Sequential(DropsWhatEnters(4, 5, batch_first=True), nn.Linear(5, 3)), torch.randn(8, 6, 4)
    student = distill(teacher, x, epochs=1, progress=False)
    assert not any(module.training for module in student.modules())


def test_an_interruption_leaves_the_modes_of_the_student():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.last = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x):
            return self.last(self.lstm(x)[0][:, -1])

    def interrupt(x):
        raise KeyboardInterrupt

    teacher = nn.Sequential(nn.Flatten(), nn.Linear(24, 9), nn.Dropout(0.5), nn.Linear(9, 3))
    student = Reader().eval()
    with pytest.raises(KeyboardInterrupt):
        distill(teacher, torch.randn(8, 6, 4), student=student, perturb=interrupt, progress=False)
    assert not student.lstm.training


def test_parameters_that_are_whole_numbers_are_left_alone():
    teacher = teacher_network()
    teacher.register_parameter("steps", nn.Parameter(torch.tensor(7), requires_grad=False))
    student = distill(teacher, INPUTS, epochs=1, progress=False)
    assert student.steps == 7


@pytest.mark.parametrize("output", [lambda z: z.softmax(-1), nn.Softmax(-1)])
def test_a_softmax_of_one_s_own_may_round_to_zero(output):
    """Where teacher and student both say so; the logits are 400 apart."""
    teacher = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 3))
    with torch.no_grad():
        teacher[1].bias.copy_(torch.tensor([200.0, 0.0, -200.0]))
    student = distill(teacher, torch.randn(8, 2), output=output, epochs=1, progress=False)
    assert all(p.isfinite().all() for p in student.parameters())


class ReturnsADictionary(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Dropout(0.5), nn.Linear(D, K))

    def forward(self, x):
        return {"logits": self.body(x)}


def test_networks_that_return_more_than_logits_are_distilled_by_way_of_output():
    student = distill(
        ReturnsADictionary(),
        torch.randn(20, D),
        output=lambda z: predictors.softmax(z["logits"]),
        epochs=1,
        progress=False,
    )
    assert student(torch.randn(3, D))["logits"].shape == (3, K)


def test_recurrent_layers_of_a_student_are_in_training_mode_while_it_learns():
    """As the backward pass of cuDNN asks for; on a processor nothing else would show it."""
    torch.manual_seed(0)
    teacher, modes = LastStep(nn.LSTM), []
    student = gates.remove(copy.deepcopy(teacher)).eval()
    student.recurrent.register_forward_pre_hook(lambda layer, args: modes.append(layer.training))
    distill(teacher, torch.randn(8, 4, D), student=student, epochs=1, progress=False)
    assert modes
    assert all(modes)
    assert not student.recurrent.training
