"""Predictors against an enumeration of all masks that is written here in NumPy and shares no code with the package."""

import gc
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch import nn

from helpers import halves, predictors

K = 3
EVERY = [predictors.standard, predictors.monte_carlo, predictors.geometric, predictors.exact]
SAMPLING = [predictors.monte_carlo, predictors.geometric]


def identity(z):
    return z


def perceptron(p, second=None):
    """4 inputs, 5 hidden units under gates of rate p, K logits; with a second gated layer of 3 units if asked for."""
    torch.manual_seed(1)
    layers = [nn.Linear(4, 5), nn.Tanh(), nn.Dropout(p)]
    if second is not None:
        layers += [nn.Linear(5, 3), nn.ReLU(), nn.Dropout(second), nn.Linear(3, K)]
    else:
        layers += [nn.Linear(5, K)]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


def convolutional(p):
    """2 x 4 x 4 images, 6 channels under gates of rate p, K logits."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.Dropout2d(p), nn.ReLU(), nn.Flatten(), nn.Linear(24, K))


def weights_of(model):
    return [p.detach().double().numpy() for p in model.parameters()]


def perceptron_logits(model, x, masks, rates):
    """Logits [N, K] of `perceptron` in NumPy, with the units that `masks` drops set to zero and the rest rescaled."""
    (a, b, *rest), x = weights_of(model), x.double().numpy()
    h = np.tanh(x @ a.T + b) * masks[0] / (1 - rates[0])
    if len(masks) == 2:
        c, d, *rest = rest
        h = np.maximum(h @ c.T + d, 0) * masks[1] / (1 - rates[1])
    return h @ rest[0].T + rest[1]


def convolutional_logits(model, x, masks, rates):
    """The same for `convolutional`: a channel is a 2 x 2 map that is dropped as a whole."""
    (w, b, c, d), x = weights_of(model), x.double().numpy()
    maps = np.empty((len(x), 6, 2, 2))
    for n, k, i, j in np.ndindex(maps.shape):
        maps[n, k, i, j] = (x[n, :, i : i + 3, j : j + 3] * w[k]).sum() + b[k]
    maps = np.maximum(maps * masks[0][:, None, None] / (1 - rates[0]), 0)
    return maps.reshape(len(x), -1) @ c.T + d


def ensemble(logits, model, x, sizes, rates):
    """Logits [M, N, K] of the networks that all M masks make, and the probabilities [M] of the masks."""
    masks = np.array(list(product([0, 1], repeat=sum(sizes))))
    keep = np.concatenate([np.full(size, 1 - rate) for size, rate in zip(sizes, rates, strict=True)])
    z = np.stack([logits(model, x, np.split(mask, np.cumsum(sizes)[:-1]), rates) for mask in masks])
    return z, np.where(masks == 1, keep, 1 - keep).prod(1)


def enumerated(logits, model, x, sizes, rates, mean):
    """The mean over all masks, each weighted by its probability."""
    z, probabilities = ensemble(logits, model, x, sizes, rates)
    log_f = log_softmax(z, axis=-1)
    if mean == "arithmetic":
        return np.tensordot(probabilities, np.exp(log_f), 1)
    return np.exp(log_softmax(np.tensordot(probabilities, log_f, 1), axis=-1))


CASES = {
    "units": (perceptron, perceptron_logits, (5,), lambda p: (p,), (4,)),
    "two layers": (lambda p: perceptron(p, 0.3), perceptron_logits, (5, 3), lambda p: (p, 0.3), (4,)),
    "channels": (convolutional, convolutional_logits, (6,), lambda p: (p,), (2, 4, 4)),
}


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("case", CASES)
def test_exact_is_the_enumeration_of_all_masks(case, p, mean):
    make, logits, sizes, rates, shape = CASES[case]
    model, x = make(p), torch.randn(7, *shape)
    expected = enumerated(logits, model, x, sizes, rates(p), mean)
    np.testing.assert_allclose(predictors.exact(model, x, mean).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_standard_is_the_network_whose_gates_are_their_means(case):
    make, logits, sizes, rates, shape = CASES[case]
    model, x = make(0.4), torch.randn(7, *shape)
    means = [np.full(size, 1 - rate) for size, rate in zip(sizes, rates(0.4), strict=True)]
    expected = np.exp(log_softmax(logits(model, x, means, rates(0.4)), axis=-1))
    np.testing.assert_allclose(predictors.standard(model, x).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 10, 50, 51, 200])
@pytest.mark.parametrize("size", [1.0, 1e3, 1e30])
def test_softmax_and_its_gradient_are_those_of_scipy_and_pytorch(k, size):
    torch.manual_seed(0)
    z = (size * torch.randn(7, 3, k, dtype=torch.float64)).requires_grad_()
    weights, p = torch.randn(7, 3, k, dtype=torch.float64), predictors.softmax(z)
    np.testing.assert_allclose(p.detach().numpy(), np.exp(log_softmax(z.detach().numpy(), axis=-1)), atol=1e-14)
    (found,) = torch.autograd.grad((p * weights).sum(), z)
    (expected,) = torch.autograd.grad((z.softmax(-1) * weights).sum(), z)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)


def test_standard_needs_no_dropout():
    model, x = nn.Linear(4, K), torch.randn(2, 4)
    torch.testing.assert_close(predictors.standard(model, x), model(x).detach().softmax(-1))


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
@pytest.mark.parametrize("batch_size", [1, 3, 10, 33, 1000])
def test_exact_does_not_depend_on_how_the_work_is_cut(batch_size, mean):
    model, x, seen = perceptron(0.3), torch.randn(7, 4), []
    expected = enumerated(perceptron_logits, model, x, (5,), (0.3,), mean)
    model[-1].register_forward_hook(lambda layer, inputs, output: seen.append(len(inputs[0])))
    np.testing.assert_allclose(predictors.exact(model, x, mean, batch_size=batch_size).numpy(), expected, atol=1e-6)
    assert max(seen) <= max(batch_size, 2), "two copies of an example are what a network's halves are tried with"


class GatesForEachStep(nn.Module):
    """2 steps of 2 features: its one dropout layer meets the steps of all examples as rows of one matrix [2N, 2]."""

    def __init__(self):
        super().__init__()
        self.drop, self.linear = nn.Dropout(0.5), nn.Linear(4, K)

    def forward(self, x):
        return self.linear(self.drop(x.flatten(0, 1)).view(len(x), 4))


@pytest.mark.parametrize("batch_size", [1, 100])
def test_exact_refuses_gates_that_it_would_tie(batch_size):
    with pytest.raises(ValueError, match="'drop' meets 2 rows for one example"):
        predictors.exact(GatesForEachStep(), torch.randn(3, 2, 2), batch_size=batch_size)


def test_twenty_gates_can_be_enumerated_and_one_more_cannot():
    """The mean output of a linear network is that of one without gates, whatever the rate."""
    x = torch.randn(1, 20)
    model = nn.Sequential(nn.Dropout(0.3), nn.Linear(20, K))
    mean = predictors.exact(model, x, output=identity)
    torch.testing.assert_close(mean, model[1](x).detach(), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"21 gates form 2\^21 masks.*limit is 20.*monte_carlo"):
        predictors.exact(nn.Sequential(nn.Dropout(0.3), nn.Linear(21, K)), torch.randn(1, 21))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(p=st.floats(0.01, 0.99), seed=st.integers(0, 2**32))
def test_weight_scaling_is_the_geometric_mean_of_softmax_regression(p, seed):
    torch.manual_seed(seed)
    model, x = nn.Sequential(nn.Dropout(p), nn.Linear(8, K)), torch.randn(5, 8)
    geometric = predictors.exact(model, x, "geometric")
    torch.testing.assert_close(predictors.standard(model, x), geometric, atol=1e-6, rtol=0)


# What a predictor averages over its masks before anything else is done to it, so that its error is known exactly: a
# probability, and a logarithm of odds, which the renormalisation of the geometric mean leaves alone.
STATISTIC = {
    predictors.monte_carlo: lambda log_f: np.exp(log_f[..., 0]),
    predictors.geometric: lambda log_f: log_f[..., 0] - log_f[..., 1],
}
ROWS = 2000


@cache
def errors_and_moments(predict, m, batch_size):
    """Errors of ROWS predictions for the same example, and the variance and fourth moment of one pass by enumeration."""
    model, x, statistic = perceptron(0.3), torch.tensor([[0.5, -1.0, 0.3, 0.8]]), STATISTIC[predict]
    z, probabilities = ensemble(perceptron_logits, model, x, (5,), (0.3,))
    values = statistic(log_softmax(z[:, 0], axis=-1))
    mean = probabilities @ values
    predicted = predict(model, x.expand(ROWS, 4), m, seed=m, batch_size=batch_size).double().log().numpy()
    return statistic(predicted) - mean, *(probabilities @ (values - mean) ** k for k in (2, 4))


@pytest.mark.parametrize("predict", SAMPLING)
@pytest.mark.parametrize(("m", "batch_size"), [(1, ROWS), (4, ROWS), (4, 1), (4, 7), (64, ROWS), (4096, ROWS)])
def test_errors_are_those_of_m_independent_masks_for_each_example(predict, m, batch_size):
    """Their mean, mean square and correlation between neighbours, in standard errors.

    The mean shows a bias and masks that examples or batches share; the mean square shows a wrong number of masks, even
    3 for 4. False alarms: 6 standard errors, below 1e-7.
    """
    error, variance, fourth = errors_and_moments(predict, m, batch_size)
    mean_square, spread = variance / m, (fourth + 3 * (m - 1) * variance**2) / m**3 - (variance / m) ** 2
    assert abs(error.mean()) < 6 * np.sqrt(mean_square / ROWS)
    assert abs((error**2).mean() - mean_square) < 6 * np.sqrt(spread / ROWS)
    assert abs((error[1:] * error[:-1]).mean()) < 6 * mean_square / np.sqrt(ROWS)


@pytest.mark.parametrize("predict", SAMPLING)
def test_the_error_falls_as_one_over_the_root_of_m(predict):
    """False alarms: the slope's standard error is 0.003, and 0.02 more than 6 of them."""
    counts = 4 ** np.arange(1, 7)
    errors = [np.sqrt((errors_and_moments(predict, int(m), ROWS)[0] ** 2).mean()) for m in counts]
    assert np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(-0.5, abs=0.02)


@pytest.mark.parametrize("predict", SAMPLING)
def test_a_seed_repeats_the_masks_and_leaves_the_global_state_alone(predict):
    model, x = perceptron(0.5), torch.randn(9, 4)
    before = torch.get_rng_state()
    first = predict(model, x, 5, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(predict(model, x, 5, seed=3), first)
    assert not torch.equal(predict(model, x, 5, seed=4), first)
    torch.manual_seed(0)
    drawn = predict(model, x, 5)
    assert not torch.equal(predict(model, x, 5), drawn)
    torch.manual_seed(0)
    assert torch.equal(predict(model, x, 5), drawn)


@pytest.mark.parametrize("predict", SAMPLING)
@pytest.mark.parametrize(("m", "batch_size"), [(1, 4), (2, 4), (2, 10), (2, 64)])
def test_large_inputs_are_worked_through_in_batches(predict, m, batch_size):
    model, x, seen = perceptron(0.5), torch.randn(10, 4), []
    model[-1].register_forward_hook(lambda layer, inputs, output: seen.append(len(inputs[0])))
    assert predict(model, x, m, batch_size=batch_size).shape == (10, K)
    trials = [2, 2, 1, 1, 2]  # of the network, of its parts, and of the second one with each example alone and both
    if batch_size == 4:
        trials = [2, 2, *trials]  # first, whether an example depends on the other
    assert seen == trials + [m * size for size in ([4, 4, 2] if batch_size == 4 else [10])]


@pytest.mark.parametrize("predict", SAMPLING)
def test_masks_share_a_pass_as_long_as_it_is_small(predict, monkeypatch):
    model, x, seen = perceptron(0.5), torch.randn(10, 4), []
    model[-1].register_forward_hook(lambda layer, inputs, output: seen.append(len(inputs[0])))
    monkeypatch.setattr(halves, "VALUES", 10 * 5 * 3)  # three masks for ten examples of the five units that meet gates
    predict(model, x, 8)
    assert seen[5:] == [30, 30, 20]
    monkeypatch.setattr(halves, "VALUES", 1)
    predict(model, x, 3)
    assert seen[-3:] == [10, 10, 10]
    monkeypatch.setattr(halves, "VALUES", 10**9)
    monkeypatch.setattr(halves, "ROWS", 50)
    predict(model, x, 7)
    assert seen[-2:] == [50, 20]


@pytest.mark.parametrize("predict", [*SAMPLING, lambda model, x, m: predictors.exact(model, x)])
def test_what_comes_before_the_first_gate_runs_once(predict):
    model, ran = perceptron(0.5, 0.3), []
    model[0].register_forward_hook(lambda layer, inputs, output: ran.append(len(inputs[0])))
    predict(model, torch.randn(6, 4), 30)
    assert ran[-1] == 6
    assert sum(ran[:-1]) <= 10, "once for the answer, and some copies of two examples to find gates and try the parts"


@pytest.mark.parametrize("predict", EVERY)
def test_layers_that_work_in_place_do_not_spoil_what_comes_before_the_gates(predict):
    torch.manual_seed(0)
    first, last, x = nn.Linear(4, 5), nn.Linear(5, K), torch.randn(6, 4)
    apart = nn.Sequential(first, nn.Dropout(0.5), nn.ReLU(), last)
    inplace = nn.Sequential(first, nn.Dropout(0.5, inplace=True), nn.ReLU(inplace=True), last)
    seed = {} if predict in (predictors.standard, predictors.exact) else {"m": 20, "seed": 0}
    torch.testing.assert_close(predict(inplace, x, **seed), predict(apart, x, **seed))


def test_standard_goes_through_large_inputs_in_order():
    model, x, seen = perceptron(0.5), torch.randn(150, 4), []
    model[0].register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    predictors.standard(model, x)
    assert len(seen) > 1
    assert torch.equal(torch.cat(seen), x)


def numbers_in_memory():
    """Values in all tensors that Python holds."""
    gc.collect()
    return sum(value.numel() for value in gc.get_objects() if issubclass(type(value), torch.Tensor))


@pytest.mark.parametrize("predict", SAMPLING)
def test_memory_does_not_grow_with_the_number_of_masks(predict, monkeypatch):
    """Not one of 10,000 outputs is kept, neither as it is nor as a probability, a logarithm or a row of a larger one."""
    monkeypatch.setattr(halves, "VALUES", 1)  # so that each pass has one mask
    model, passes, held = perceptron(0.5), -5, {}  # after five that try the network's halves

    def count(layer, inputs, output):
        nonlocal passes
        passes += 1
        if passes in (10, 9_990):
            held[passes] = numbers_in_memory()

    model[-1].register_forward_hook(count)
    predict(model, torch.randn(4, 4), 10_000, seed=0)
    assert passes == 10_000
    assert held[9_990] == held[10]


@pytest.mark.parametrize("predict", EVERY)
def test_predictors_leave_the_network_as_it_was(predict):
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, K))
    model.train()
    model[0].eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    predict(model, torch.randn(6, 4))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("predict", EVERY)
@pytest.mark.parametrize("passes", [1, 2, 3])
def test_an_interrupted_predictor_leaves_the_network_as_it_was(predict, passes):
    model = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, K).eval())
    left = iter(range(passes - 1))

    def fails(layer, inputs):
        if next(left, None) is None:
            raise InterruptedError

    model[2].register_forward_pre_hook(fails)
    modes = [module.training for module in model.modules()]
    seeds = {"seed": 1} if predict in SAMPLING else {}
    before = torch.get_rng_state()
    with pytest.raises(InterruptedError):
        predict(model, torch.zeros(30, 4), batch_size=10, **seeds)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model[:2])
    assert len(model[2]._forward_pre_hooks) == 1 and not model[2]._forward_hooks
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("predict", [predictors.monte_carlo, predictors.exact])
@pytest.mark.parametrize("before", [(), (nn.Linear(4, 4),), (nn.Linear(4, 4), nn.ReLU(inplace=True))], ids=len)
def test_a_mask_that_works_in_place_meets_the_same_units_in_every_pass(predict, before):
    """False alarms: with 4,000 masks, 6 standard errors are below 6 × 0.5 / √4000 = 0.05."""
    torch.manual_seed(0)
    model, x = nn.Sequential(*before, nn.Dropout(0.5, inplace=True), nn.Linear(4, K)), torch.randn(6, 4)
    h, layer = nn.Sequential(*before)(x.clone()).detach(), model[-1]
    z = [layer(h * torch.tensor(mask) * 2).detach() for mask in product([0, 1], repeat=4)]
    m, tolerance = ({"m": 4000, "seed": 0}, 0.05) if predict is predictors.monte_carlo else ({}, 1e-6)
    torch.testing.assert_close(predict(model, x, **m), torch.stack(z).softmax(-1).mean(0), atol=tolerance, rtol=0)


@pytest.mark.parametrize("predict", EVERY)
def test_inputs_are_left_as_they_were(predict):
    model, x = nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(4, K)), torch.randn(6, 4)
    before = x.clone()
    predict(model, x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("predict", EVERY)
def test_predictions_are_ordinary_tensors_that_a_student_can_learn_from(predict):
    model, x = perceptron(0.5), torch.randn(6, 4)
    target = predict(model, x)
    assert not target.requires_grad
    student = nn.Linear(4, K)
    (student(x).softmax(-1) * target).sum().backward()
    assert student.weight.grad.abs().sum() > 0


class RemembersItsTable(nn.Module):
    """Computes a table in its first pass and keeps it, as rotary position encodings do."""

    def __init__(self):
        super().__init__()
        self.table, self.drop, self.linear = None, nn.Dropout(0.5), nn.Linear(4, K)

    def forward(self, x):
        if self.table is None:
            self.table = torch.arange(4.0).cos()
        return self.linear(self.drop(x)) * self.linear(self.table)


@pytest.mark.parametrize("predict", [predictors.standard, *SAMPLING])
def test_a_network_that_was_averaged_can_be_trained_on(predict):
    model, x = RemembersItsTable(), torch.randn(6, 4)
    predict(model, x)
    model(x).sum().backward()


def test_a_regression_averages_its_outputs():
    model, x = perceptron(0.5, 0.3), torch.randn(6, 4)
    z, probabilities = ensemble(perceptron_logits, model, x, (5, 3), (0.5, 0.3))
    expected = np.tensordot(probabilities, z, 1)
    np.testing.assert_allclose(predictors.exact(model, x, output=identity).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("predict", [predictors.standard, predictors.exact])
def test_batch_norm_uses_its_running_statistics_whatever_the_mode(predict):
    norm = nn.BatchNorm1d(4)
    norm.running_mean, norm.running_var = torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.tensor([4.0, 0.25, 1.0, 2.0])
    model, x = nn.Sequential(norm, nn.Dropout(0.3), nn.Linear(4, K)).train(), torch.randn(6, 4)
    weight, bias = weights_of(model[2])
    expected = (x - norm.running_mean).double().numpy() / np.sqrt(norm.running_var.numpy() + 1e-5) @ weight.T + bias
    np.testing.assert_allclose(predict(model, x, output=identity).numpy(), expected, atol=1e-5)


def test_monte_carlo_of_a_regression_averages_its_outputs():
    """False alarms: 24 comparisons of 6 standard errors, 5e-8."""
    model, x = perceptron(0.3), torch.randn(8, 4)
    z, probabilities = ensemble(perceptron_logits, model, x, (5,), (0.3,))
    mean = np.tensordot(probabilities, z, 1)
    error = np.sqrt(np.tensordot(probabilities, (z - mean) ** 2, 1) / 2000)
    found = predictors.monte_carlo(model, x, 2000, seed=0, output=identity).numpy()
    assert (abs(found - mean) < 6 * error).all()


def test_outputs_that_are_probabilities_already_are_taken_as_they_are():
    model, x = perceptron(0.3), torch.randn(8, 4)
    expected = enumerated(perceptron_logits, model, x, (5,), (0.3,), "geometric")
    found = predictors.exact(nn.Sequential(model, nn.Softmax(-1)), x, "geometric", output=identity)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("predict", EVERY)
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((3, 4), torch.nan), "3 of the 3 inputs hold NaN"),
        (torch.eye(4).index_fill(0, torch.tensor([2]), torch.inf), "1 of the 4 inputs hold NaN or infinity"),
        (torch.zeros(0, 4), "no examples"),
    ],
)
def test_inputs_that_make_no_sense_are_refused(predict, x, message):
    with pytest.raises(ValueError, match=message):
        predict(perceptron(0.5), x)


@pytest.mark.parametrize("predict", [predictors.monte_carlo, predictors.geometric, predictors.exact])
def test_a_network_with_no_dropout_is_refused(predict):
    with pytest.raises(ValueError, match="no dropout in it"):
        predict(nn.Linear(4, K), torch.randn(2, 4))


@pytest.mark.parametrize("m", [0, -1])
@pytest.mark.parametrize("predict", SAMPLING)
def test_no_masks_are_refused(predict, m):
    with pytest.raises(ValueError, match=f"at least 1, not {m}"):
        predict(perceptron(0.5), torch.randn(2, 4), m=m)


def test_what_cannot_be_enumerated_is_refused():
    x = torch.randn(2, 4)
    with pytest.raises(ValueError, match=r"30 gates form 2\^30 masks.*monte_carlo"):
        predictors.exact(nn.Sequential(nn.Linear(4, 30), nn.Dropout(0.5), nn.Linear(30, K)), x)
    with pytest.raises(ValueError, match="not 'harmonic'"):
        predictors.exact(perceptron(0.5), x, "harmonic")
    shared = nn.Dropout(0.5)
    with pytest.raises(ValueError, match="used more than once"):
        predictors.exact(nn.Sequential(nn.Linear(4, 5), shared, nn.Linear(5, 5), shared, nn.Linear(5, K)), x)


# What a network returns


class Wrapped(nn.Module):
    """Logits in a dictionary, as networks of other libraries return them."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return {"logits": self.network(x), "features": x}


def inside(found):
    return found["logits"].softmax(-1)


@pytest.mark.parametrize("predictor", EVERY)
def test_output_takes_the_logits_out_of_whatever_a_network_returns(predictor):
    model, x = perceptron(0.5), torch.randn(4, 4)
    seed = {"seed": 3} if predictor in SAMPLING else {}
    torch.testing.assert_close(predictor(Wrapped(model), x, output=inside, **seed), predictor(model, x, **seed))
    with pytest.raises(TypeError, match="returns a dict, not logits"):
        predictor(Wrapped(model), x)


@pytest.mark.parametrize("predictor", [*EVERY, predictors.fast_dropout])
@pytest.mark.parametrize("shape", ["[N, 1]", "[N]"])
def test_one_number_per_example_is_no_logits(predictor, shape):
    layers = [nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1)]
    if predictor is predictors.fast_dropout and shape == "[N]":
        pytest.skip("it takes no layer after the last nn.Linear")
    model = nn.Sequential(*layers, *[nn.Flatten(0)] * (shape == "[N]"))
    with pytest.raises(ValueError, match="one number per example"):
        predictor(model, torch.randn(5, 3))


def test_fast_dropout_refuses_images_of_logits():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 4))
    with pytest.raises(ValueError, match="the softmax would be taken over the last dimension"):
        predictors.fast_dropout(model, torch.randn(2, 5, 5, 3))


def test_exact_refuses_probabilities_where_it_expects_logits():
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2), nn.Softmax(-1))
    with pytest.raises(ValueError, match="taken twice"):
        predictors.exact(model, torch.randn(5, 3))


def test_a_sigmoid_has_a_geometric_mean_only_together_with_its_complement():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1)), torch.randn(5, 3)
    for predictor in (predictors.geometric, lambda *args, **how: predictors.exact(*args, "geometric", **how)):
        with pytest.raises(ValueError, match="renormalised over the classes"):
            predictor(model, x, output=torch.sigmoid)
    both = predictors.exact(model, x, "geometric", output=lambda z: torch.cat([z.sigmoid(), (-z).sigmoid()], -1))
    # The renormalised geometric mean of sigmoids is the sigmoid of the mean logit, which weight scaling has exactly.
    torch.testing.assert_close(both[:, :1], predictors.standard(model, x, output=torch.sigmoid))


def test_whole_numbers_where_a_network_takes_others_are_named():
    with pytest.raises(TypeError, match=r"torch\.uint8 and the network's parameters torch\.float32"):
        predictors.standard(perceptron(0.5), torch.zeros(4, 4, dtype=torch.uint8))


def test_an_error_of_another_kind_is_left_as_it_is():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(7, 2))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        predictors.standard(model, torch.zeros(4, 2, dtype=torch.int64))


@pytest.mark.parametrize("predict", [predictors.standard, predictors.monte_carlo, predictors.exact])
@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_have_at_least_one_example(predict, batch_size):
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2))
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, not {batch_size}"):
        predict(model, torch.randn(5, 4), batch_size=batch_size)


def test_an_error_of_shapes_is_not_put_down_to_types():
    class Converts(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5), nn.Linear(3, 2))

        def forward(self, x):
            return self.layers(x.float())

    assert predictors.standard(Converts(), torch.randn(2, 5).double()).shape == (2, 2)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        predictors.standard(Converts(), torch.randn(2, 6).double())


def test_exact_refuses_a_network_that_mixes_the_examples_of_a_batch():
    """And one example alone meets itself under other masks."""
    normalised = nn.BatchNorm2d(5, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Dropout2d(0.5), normalised, nn.Flatten(), nn.Linear(20, K))
    for x in (torch.randn(6, 2, 4, 4), torch.randn(1, 2, 4, 4)):
        with pytest.raises(ValueError, match="depends on the rest of its batch"):
            predictors.exact(model, x)


def test_exact_refuses_a_network_that_mixes_examples_before_its_first_gate():
    normalised = nn.BatchNorm2d(5, track_running_stats=False)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3), normalised, nn.Flatten(), nn.Linear(20, 4), nn.Dropout(0.5), nn.Linear(4, K)
    )
    with pytest.raises(ValueError, match="depends on the rest of its batch"):
        predictors.exact(model, torch.randn(6, 2, 4, 4))


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_a_network_that_returns_other_numbers_than_logits_is_refused_by_their_type(dtype):
    class Returns(nn.Linear):
        def forward(self, x):
            return super().forward(x).to(dtype)

    with pytest.raises(TypeError, match=f"returns a {dtype}, not logits"):
        predictors.standard(Returns(4, K), torch.randn(2, 4))


class ReturnsMore(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, K)

    def forward(self, x):
        return {"logits": nn.functional.dropout(self.linear(x), 0.5, self.training)}


@pytest.mark.parametrize("predict", [predictors.standard, *SAMPLING])
def test_a_network_that_returns_more_than_logits_is_refused_in_the_same_words(predict):
    with pytest.raises(TypeError, match=r"returns a dict, not logits \[N, K\]"):
        predict(ReturnsMore(), torch.randn(2, 4))


def test_a_scripted_part_takes_part():
    """Against the network without scripts."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, K))
    scripted = nn.Sequential(torch.jit.script(plain[0]), plain[1], plain[2])
    x = torch.randn(3, 4)
    expected = predictors.monte_carlo(plain, x, 5, seed=0)
    torch.testing.assert_close(predictors.monte_carlo(scripted, x, 5, seed=0), expected)
