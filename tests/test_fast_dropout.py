"""Fast dropout against enumeration of masks, quadrature and samples."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import expit, softmax
from torch import nn
from torch.nn.utils import prune

from helpers import moments, networks, predictors

SAMPLES = 10**6
many = settings(deadline=None, derandomize=True, max_examples=30)


def doubles(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def perceptron(seed, p, scale=2.0):
    """4 inputs, two layers of 6 ReLU units under gates of rate p, 3 logits; float64."""
    torch.manual_seed(seed)
    hidden = [nn.Linear(4, 6), nn.ReLU(), nn.Dropout(p), nn.Linear(6, 6), nn.ReLU(), nn.Dropout(p)]
    model = nn.Sequential(*hidden, nn.Linear(6, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


# ---- moments through a layer --------------------------------------------------------------------------------------


@many
@given(p=st.floats(0.01, 0.99), seed=st.integers(0, 2**32))
def test_dropout_and_a_linear_layer_are_exact(p, seed):
    """Mean and covariance of the logits, against all 2^5 masks."""
    torch.manual_seed(seed)
    model, x = nn.Sequential(nn.Dropout(p), nn.Linear(5, 3)).double(), doubles(2, 5, seed=seed)
    mean, covariance = (moment.detach().numpy() for moment in moments.logit_moments(model, x))
    masks = np.array(list(product([0, 1], repeat=5)))
    weights = np.where(masks == 1, 1 - p, p).prod(1)
    w, b = (parameter.detach().numpy() for parameter in model[1].parameters())
    for i in range(2):
        z = (masks * x[i].numpy() / (1 - p)) @ w.T + b
        np.testing.assert_allclose(mean[i], weights @ z, rtol=1e-10, atol=1e-10)
        expected = np.cov(z.T, aweights=weights, ddof=0)
        np.testing.assert_allclose(covariance[i], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_gated_random_units_and_a_linear_layer_agree_with_a_million_samples(p):
    """Units that vary before they are gated, of which none is Gaussian: mean and variance, in standard errors.

    False alarms: 8 comparisons of 5 standard errors, 5e-6.
    """
    rng = np.random.default_rng(0)
    x = rng.gamma(2.0, [0.5, 1.0, 2.0], (SAMPLES, 3)) * [1, -1, 1]
    w, b = rng.normal(size=(4, 3)), rng.normal(size=4)
    z = (x * (rng.random(x.shape) >= p) / (1 - p)) @ w.T + b
    layer = nn.Linear(3, 4).double()
    layer.weight.data, layer.bias.data = torch.tensor(w), torch.tensor(b)
    units = torch.tensor([[1.0, -2.0, 4.0]]), torch.tensor([[0.5, 2.0, 8.0]])  # of Gamma(2, θ): 2θ and 2θ²
    gated = moments.dropped(*(moment.double() for moment in units), p)
    assert_agree_with_samples(*moments.through("", layer, *gated), z)


@pytest.mark.parametrize("mean", [-3.0, -0.5, 0.0, 1.0, 4.0])
def test_rectified_gaussians_agree_with_a_million_samples(mean):
    """False alarms: 2 comparisons of 5 standard errors, 1e-6."""
    z = np.random.default_rng(1).normal(mean, 1.5, (SAMPLES, 1)).clip(0)
    at = torch.tensor([[mean]]).double(), torch.tensor([[1.5**2]]).double()
    assert_agree_with_samples(*moments.rectified(*at), z)


def assert_agree_with_samples(mean, var, samples, errors=5):
    """Moments [1, d] within so many standard errors of those of `samples` [n, d]."""
    mean, var, n = mean[0].detach().numpy(), var[0].detach().numpy(), len(samples)
    centred = samples - mean
    assert (abs(centred.mean(0)) < errors * samples.std(0) / np.sqrt(n)).all()
    spread = (centred**2).std(0) / np.sqrt(n)
    assert (abs((centred**2).mean(0) - var) < errors * spread).all()


@many
@given(u=st.floats(-6, 6), s=st.floats(0.01, 100))
def test_rectified_gaussians_agree_with_quadrature(u, s):
    at = torch.tensor(u * s, dtype=torch.float64), torch.tensor(s * s, dtype=torch.float64)
    mean, var = (moment.item() / unit for moment, unit in zip(moments.rectified(*at), (s, s * s), strict=True))

    def expectation(f):
        positive = integrate.quad(lambda t: f(t) * stats.norm.pdf(t, u), 0, 15, points=[max(u, 0)], epsabs=1e-13)[0]
        return positive + f(0.0) * stats.norm.cdf(-u)

    assert mean == pytest.approx(expectation(lambda t: t), abs=1e-9)
    assert var == pytest.approx(expectation(lambda t: (t - mean) ** 2), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rectified_units_far_from_zero_or_without_variance(dtype):
    mean = torch.tensor([-1e4, -50.0, -1.0, 0.0, 1.0, 50.0, 1e4], dtype=dtype)
    for var in (0.0, 1e-30, 1e-4):
        found, spread = moments.rectified(mean, torch.full_like(mean, var))
        torch.testing.assert_close(found, mean.relu(), atol=1e-2 * max(var, 1e-20) ** 0.5 + 0.4 * var**0.5, rtol=1e-6)
        torch.testing.assert_close(spread[4:], torch.full_like(spread[4:], var))
        assert (spread[:3] == 0).all()


def test_units_that_are_always_dropped_are_zero():
    mean, var = moments.dropped(doubles(3), doubles(3).square(), 1.0)
    assert (mean == 0).all() and (var == 0).all()


@pytest.mark.parametrize(
    "options", [{"padding": 1, "stride": 2}, {"groups": 2, "bias": False}, {"padding_mode": "circular", "padding": 1}]
)
def test_a_convolution_is_the_linear_layer_that_it_is(options):
    torch.manual_seed(0)
    conv, mean, var = nn.Conv2d(2, 4, 3, **options).double(), doubles(1, 2, 5, 5), doubles(1, 2, 5, 5).square()
    matrix = torch.autograd.functional.jacobian(conv, mean).flatten(4).flatten(0, 3)
    found, spread = moments.through("", conv, mean, var)
    torch.testing.assert_close(found, conv(mean))
    torch.testing.assert_close(spread.flatten(), matrix.square() @ var.flatten())


# ---- from Gaussian logits to probabilities ------------------------------------------------------------------------


def test_without_variance_it_is_the_softmax():
    z = doubles(7, 4) * 5
    torch.testing.assert_close(moments.expected_softmax(z, torch.zeros(7, 4, 4).double()), z.softmax(-1))


@many
@given(mean=st.floats(-8, 8), s=st.floats(0, 6))
def test_two_classes_agree_with_quadrature(mean, s):
    """E[sigmoid(d)] for d ~ N(mean, s²), to a percentage point."""
    z, covariance = torch.tensor([[mean, 0.0]]).double(), torch.tensor([[[s * s, 0.0], [0.0, 0.0]]]).double()
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    expected = weights @ expit(mean + s * nodes) / weights.sum()
    assert moments.expected_softmax(z, covariance)[0, 0].item() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("classes", [3, 10])
def test_many_classes_agree_with_samples(classes, spread):
    """Total variation to 20,000 samples, over 50 random means and covariances: a tenth of that of the softmax of the
    mean, on the mean over them. The samples' own is 0.003 to 0.01."""
    mean, root = 2 * doubles(50, classes), doubles(50, classes, classes, seed=1) * spread / classes**0.5
    samples = mean[:, None] + doubles(50, 10_000, classes, seed=2) @ root.mT
    expected = (samples.softmax(-1).mean(1) + (2 * mean[:, None] - samples).softmax(-1).mean(1)) / 2
    distance = lambda q: ((q - expected).abs().sum(-1) / 2).mean()
    found = moments.expected_softmax(mean, root @ root.mT)
    assert distance(found) < distance(mean.softmax(-1)) / 10


def test_little_variance_is_exact_to_third_order():
    """Against the second term of the Taylor series: what is left over falls with the fourth power of the deviations."""
    mean, root = doubles(6, 5), doubles(6, 5, 5, seed=1)

    def left_over(scale):
        covariance = scale**2 * root @ root.mT
        curvature = torch.stack(
            [
                torch.stack([torch.autograd.functional.hessian(lambda z: z.softmax(-1)[k], m) for k in range(5)])  # noqa: B023
                for m in mean
            ]
        )
        series = mean.softmax(-1) + (curvature * covariance.unsqueeze(1)).sum((-1, -2)) / 2
        return (moments.expected_softmax(mean, covariance) - series).abs().max()

    assert left_over(0.02) < left_over(0.04) / 14
    assert left_over(0.04) < 1e-4


@many
@given(seed=st.integers(0, 2**32), shift=st.floats(-100, 100))
def test_probabilities_do_not_depend_on_a_shift(seed, shift):
    mean, root = doubles(4, 5, seed=seed), doubles(4, 5, 5, seed=seed + 1)
    q = moments.expected_softmax(mean, root @ root.mT)
    assert torch.allclose(q.sum(-1), torch.ones(4).double())
    torch.testing.assert_close(moments.expected_softmax(mean + shift, root @ root.mT), q)


@pytest.mark.parametrize("k", [1, 2, 10, 100])
def test_the_points_have_the_moments_of_a_normal_distribution(k):
    points = moments.normal_points(k)
    torch.testing.assert_close(points.mean(0), torch.zeros(k).double())
    torch.testing.assert_close(points.T @ points / len(points), torch.eye(k).double())


# ---- the predictor ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.2, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_closer_to_the_ideal_than_weight_scaling(seed, p):
    """Two ReLU layers under 12 gates, all 4,096 masks: at most half as far on the mean, by KL and by total variation."""
    model, x = perceptron(seed, p), doubles(20, 4, seed=seed)
    ideal = predictors.exact(model, x)

    def distances(q):
        return (ideal * (ideal.log() - q.log())).sum(-1).mean(), (ideal - q).abs().sum(-1).mean()

    fast, scaled = distances(predictors.fast_dropout(model, x)), distances(predictors.standard(model, x))
    assert all(near < far / 2 for near, far in zip(fast, scaled, strict=True))


def test_it_is_the_standard_prediction_where_the_rate_vanishes():
    model, x = perceptron(0, 1e-9), doubles(9, 4)
    torch.testing.assert_close(predictors.fast_dropout(model, x), predictors.standard(model, x), atol=1e-6, rtol=0)


def test_two_layers_in_numpy():
    """The moments of the logits written once more, with scipy's normal distribution."""
    model, x = perceptron(5, 0.3), doubles(6, 4)
    a, b, c, d, e, f = (parameter.detach().numpy() for parameter in model.parameters())
    h = np.maximum(x.numpy() @ a.T + b, 0)
    mu, s = h @ c.T + d, np.sqrt(h**2 * (0.3 / 0.7) @ c.T**2)
    s = np.maximum(s, 1e-300)
    mean = mu * stats.norm.cdf(mu / s) + s * stats.norm.pdf(mu / s)
    square = (mu**2 + s**2) * stats.norm.cdf(mu / s) + mu * s * stats.norm.pdf(mu / s)
    var = square / 0.7 - mean**2
    logits, covariance = mean @ e.T + f, np.einsum("ki,ni,li->nkl", e, var, e)
    found = moments.logit_moments(model, x)
    np.testing.assert_allclose(found[0].detach().numpy(), logits, rtol=1e-9)
    np.testing.assert_allclose(found[1].detach().numpy(), covariance, rtol=1e-9)
    torch.testing.assert_close(predictors.fast_dropout(model, x), moments.expected_softmax(*found).detach())


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_give_the_same(batch_size):
    model, x = perceptron(0, 0.5), doubles(10, 4)
    torch.testing.assert_close(
        predictors.fast_dropout(model, x, batch_size=batch_size), predictors.fast_dropout(model, x)
    )


def test_layers_in_nested_sequences_and_layers_used_twice():
    model, x = perceptron(0, 0.5), doubles(5, 4)
    relu, drop = nn.ReLU(), nn.Dropout(0.5)
    nested = nn.Sequential(nn.Sequential(model[0], relu), nn.Sequential(drop, model[3], relu), drop, model[6])
    torch.testing.assert_close(predictors.fast_dropout(nested, x), predictors.fast_dropout(model, x))


def test_what_comes_before_the_first_gate_may_be_anything():
    """LeNet pools before its only dropout layer: the logits' moments are exact, and E[softmax] nearly so."""
    torch.manual_seed(0)
    model, x = networks.LeNet(p=0.5), torch.randn(3, 1, 28, 28)
    fast, ideal = predictors.fast_dropout(model, x), predictors.monte_carlo(model, x, 100_000, seed=0)
    assert fast.dtype == torch.float32
    assert (fast - ideal).abs().max() < (predictors.standard(model, x) - ideal).abs().max() / 2
    mean, _ = moments.logit_moments(model, x)
    torch.testing.assert_close(mean, model.eval()(x))


def test_logits_that_overflow_the_exponential_are_no_matter():
    model, x = perceptron(0, 0.5, scale=300.0).float(), torch.randn(8, 4)
    q = predictors.fast_dropout(model, x)
    assert q.isfinite().all()
    torch.testing.assert_close(q.sum(-1), torch.ones(8))


def test_the_network_and_its_inputs_are_left_as_they_were():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)).train()
    x, state = torch.randn(6, 4), {name: value.clone() for name, value in model.state_dict().items()}
    before = x.clone()
    q = predictors.fast_dropout(model, x)
    assert not q.requires_grad
    assert torch.equal(x, before)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop, self.linear = nn.Dropout(0.5), nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(self.drop(x))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Dropout(0.5), nn.Tanh(), nn.Linear(4, 3)), "'1', Tanh.*Use monte_carlo"),
        (nn.Sequential(nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4)), nn.Linear(4, 3)), "'0.1', BatchNorm1d"),
        (nn.Sequential(nn.AlphaDropout(0.5), nn.Linear(4, 3)), "'0', AlphaDropout"),
        (nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3), nn.Softmax(-1)), "'2', Softmax.*ends in nn.Linear"),
        (Custom(), "for Custom. It takes an nn.Sequential"),
    ],
)
def test_layers_without_a_closed_form_are_refused(model, message):
    with pytest.raises(TypeError, match=message):
        predictors.fast_dropout(model, torch.randn(2, 4))


@pytest.mark.parametrize("i", [0, 1, 2])
def test_a_hook_which_may_make_anything_of_a_unit_is_refused(i):
    model = nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 3))
    model[i].register_forward_hook(lambda layer, args, y: 2 * y)
    with pytest.raises(TypeError, match=f"'{i}', .*without hooks"):
        predictors.fast_dropout(model, torch.randn(2, 4))


@pytest.mark.parametrize("i", [0, 1, 2])
def test_a_hook_which_may_make_anything_of_what_enters_a_unit_is_refused(i):
    model = nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 3))
    model[i].register_forward_pre_hook(lambda layer, args: (10 * args[0],))
    with pytest.raises(TypeError, match=f"'{i}', .*without hooks"):
        predictors.fast_dropout(model, torch.randn(2, 4))


MODIFIED = {
    "hook": lambda layer: layer.register_forward_hook(lambda layer, args, y: 5 * y),
    "pre-hook": lambda layer: layer.register_forward_pre_hook(lambda layer, args: (5 * args[0],)),
    "forward": lambda layer: setattr(layer, "forward", lambda z, forward=layer.forward: 5 * forward(z)),
}


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("change", MODIFIED)
def test_a_sequence_with_gates_that_is_modified_is_refused(inner, change):
    modified = nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 3))
    MODIFIED[change](modified)
    model = nn.Sequential(nn.Linear(4, 4), modified) if inner else modified
    with pytest.raises(TypeError, match=r"Sequential.*without hooks"):
        predictors.fast_dropout(model, torch.randn(2, 4))


@pytest.mark.parametrize("change", MODIFIED)
def test_a_sequence_before_the_gates_that_is_modified_is_called_as_it_is(change):
    modified, rest = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), [nn.Dropout(0.5), nn.Linear(4, 3)]
    MODIFIED[change](modified)
    x = torch.randn(2, 4)
    found = predictors.fast_dropout(nn.Sequential(modified, *rest), x)
    torch.testing.assert_close(found, predictors.fast_dropout(nn.Sequential(*rest), modified(x)))


def test_pooling_after_a_gate_is_refused():
    with pytest.raises(TypeError, match="'pool1', MaxPool2d"):
        predictors.fast_dropout(networks.LeNetAll(), torch.randn(2, 1, 28, 28))


def test_a_network_without_gates_and_bad_inputs_are_refused():
    with pytest.raises(ValueError, match="no dropout in it"):
        predictors.fast_dropout(nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 4))
    with pytest.raises(ValueError, match="NaN"):
        predictors.fast_dropout(perceptron(0, 0.5), torch.full((2, 4), torch.nan))


def test_softmax_regression_by_enumeration():
    """Fourteen gates on one layer: the moments are exact, so what is left is that so few terms are not quite Gaussian."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Dropout(0.5), nn.Linear(14, 3)).double(), 2 * doubles(30, 14)
    masks = np.array(list(product([0, 1], repeat=14)))
    w, b = (parameter.detach().numpy() for parameter in model[1].parameters())
    ideal = softmax((masks[:, None] * x.numpy() * 2) @ w.T + b, axis=-1).mean(0)
    assert abs(predictors.fast_dropout(model, x).numpy() - ideal).max() < 0.03
    assert abs(predictors.standard(model, x).numpy() - ideal).max() > 0.1


@pytest.mark.parametrize("how", ["pruned", "normalised"])
def test_a_layer_whose_weight_is_computed_counts_with_that_weight(how):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)
    )
    x = torch.randn(4, 5)
    for layer in (model[2], model[5]):
        if how == "pruned":
            prune.l1_unstructured(layer, "weight", 0.5)
        else:
            nn.utils.parametrizations.weight_norm(layer)
    plain = nn.Sequential(
        nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)
    )
    for layer, source in zip(plain, model, strict=True):
        if isinstance(layer, nn.Linear):
            layer.load_state_dict({"weight": source.weight.detach(), "bias": source.bias.detach()})
    torch.testing.assert_close(predictors.fast_dropout(model, x), predictors.fast_dropout(plain, x))


def test_a_linear_layer_with_a_forward_of_its_own_is_refused():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    in_between = nn.Sequential(nn.Dropout(0.5), Doubled(5, 4), nn.ReLU(), nn.Linear(4, 3))
    at_the_end = nn.Sequential(nn.Dropout(0.5), Doubled(5, 4))
    for model in (in_between, at_the_end):
        with pytest.raises(TypeError, match="Doubled"):
            predictors.fast_dropout(model, torch.randn(2, 5))


def test_half_precision_is_computed_in_single():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    x = torch.randn(4, 5)
    expected = predictors.fast_dropout(model, x)
    found = predictors.fast_dropout(model.bfloat16(), x.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
