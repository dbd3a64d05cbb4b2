"""Predictors against an enumeration of all masks that is written here in NumPy and shares no code with the package."""

import weakref
from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from helpers import predictors

K = 3


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


def enumerated(logits, model, x, sizes, rates, mean):
    """The mean over all masks, each weighted by its probability."""
    total = 0.0
    for bits in product([0, 1], repeat=sum(sizes)):
        bits = np.array(bits)
        keep = np.concatenate([np.full(size, 1 - rate) for size, rate in zip(sizes, rates, strict=True)])
        probability = np.where(bits == 1, keep, 1 - keep).prod()
        log_f = log_softmax(logits(model, x, np.split(bits, np.cumsum(sizes)[:-1]), rates), axis=-1)
        total = total + probability * (np.exp(log_f) if mean == "arithmetic" else log_f)
    return total if mean == "arithmetic" else np.exp(log_softmax(total, axis=-1))


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


@pytest.mark.parametrize("batch_size", [1, 3, 10, 1000])
def test_exact_does_not_depend_on_how_the_work_is_cut(batch_size):
    model, x = perceptron(0.3), torch.randn(7, 4)
    torch.testing.assert_close(predictors.exact(model, x, batch_size=batch_size), predictors.exact(model, x))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_weight_scaling_is_the_geometric_mean_of_softmax_regression(p):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Dropout(p), nn.Linear(8, K)), torch.randn(5, 8)
    geometric = predictors.exact(model, x, "geometric")
    torch.testing.assert_close(predictors.standard(model, x), geometric, atol=1e-6, rtol=0)


def test_monte_carlo_nears_exact_as_one_over_the_root_of_m():
    """Each of the 512 x 3 entries has the enumerated variance / m, so the mean square error over them is known, too."""
    model = perceptron(0.5)
    x = torch.randn(1, 4).expand(512, 4)
    ideal = predictors.exact(model, x[:1])
    second = sum_of_squares(model, x[:1])
    variance = (second - ideal.double() ** 2).mean().item()
    counts = [1, 4, 16, 64, 256]
    errors = [(predictors.monte_carlo(model, x, m, seed=m) - ideal).square().mean().item() for m in counts]
    slope = np.polyfit(np.log(counts), 0.5 * np.log(errors), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.05)
    np.testing.assert_allclose(errors, variance / np.array(counts), rtol=0.4)  # 512 draws: five standard errors


def sum_of_squares(model, x):
    """E_σ[f²], [N, K], by enumeration."""
    return predictors.exact(model, x, output=lambda z: z.softmax(-1) ** 2).double()


@pytest.mark.parametrize("predict", [predictors.monte_carlo, predictors.geometric])
def test_many_masks_come_close_to_exact(predict):
    model, x = perceptron(0.5, 0.3), torch.randn(6, 4)
    mean = "arithmetic" if predict is predictors.monte_carlo else "geometric"
    found = predict(model, x.repeat(200, 1), 500, seed=0).reshape(200, 6, K)
    found = found.mean(0) if mean == "arithmetic" else found.log().mean(0).softmax(-1)
    torch.testing.assert_close(found, predictors.exact(model, x, mean), atol=0.01, rtol=0)


@pytest.mark.parametrize("predict", [predictors.monte_carlo, predictors.geometric])
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


def test_large_inputs_are_worked_through_in_batches():
    model, x, seen = perceptron(0.5), torch.randn(10, 4), []
    model[0].register_forward_hook(lambda layer, inputs, output: seen.append(len(inputs[0])))
    assert predictors.monte_carlo(model, x, 2, batch_size=4).shape == (10, K)
    assert seen == [4, 4, 4, 4, 2, 2]


def test_monte_carlo_keeps_a_running_mean_and_never_all_outputs():
    model, alive, most = perceptron(0.5), weakref.WeakSet(), 0

    def count(layer, inputs, output):
        nonlocal most
        alive.add(output)
        most = max(most, len(alive))

    model[-1].register_forward_hook(count)
    predictors.monte_carlo(model, torch.randn(4, 4), 200)
    assert most <= 4


def test_predictors_leave_the_network_as_it_was():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, K))
    model.train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for predict in (predictors.standard, predictors.monte_carlo, predictors.geometric, predictors.exact):
        assert not predict(model, torch.randn(6, 4)).requires_grad
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_regression_averages_its_outputs():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2)), torch.randn(3, 4)
    identity = lambda z: z
    exact = predictors.exact(model, x, output=identity)
    torch.testing.assert_close(exact, predictors.standard(model, x, output=identity))


@pytest.mark.parametrize(
    "predict", [predictors.standard, predictors.monte_carlo, predictors.geometric, predictors.exact]
)
@pytest.mark.parametrize(
    ("x", "message"),
    [(torch.full((3, 4), torch.nan), "3 of the 3 inputs hold NaN"), (torch.zeros(0, 4), "no examples")],
)
def test_inputs_that_make_no_sense_are_refused(predict, x, message):
    with pytest.raises(ValueError, match=message):
        predict(perceptron(0.5), x)


def test_what_cannot_be_averaged_is_refused():
    x = torch.randn(2, 4)
    with pytest.raises(ValueError, match="no dropout in it"):
        predictors.monte_carlo(nn.Linear(4, K), x)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        predictors.monte_carlo(perceptron(0.5), x, m=0)
    with pytest.raises(ValueError, match=r"30 gates form 2\^30 masks.*monte_carlo"):
        predictors.exact(nn.Sequential(nn.Linear(4, 30), nn.Dropout(0.5), nn.Linear(30, K)), x)
    with pytest.raises(ValueError, match="not 'harmonic'"):
        predictors.exact(perceptron(0.5), x, "harmonic")
    shared = nn.Dropout(0.5)
    with pytest.raises(ValueError, match="used more than once"):
        predictors.exact(nn.Sequential(nn.Linear(4, 5), shared, nn.Linear(5, 5), shared, nn.Linear(5, K)), x)
