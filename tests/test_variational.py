"""Variational layers: their divergence against quadrature, their noise against sampled weights, conversion and pruning.

Statistical tests have fixed seeds and bounds of six standard errors, which right code breaks once in 5e8 comparisons.
"""

import copy
import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import IntegrationWarning, quad
from scipy.stats import norm
from torch import nn
from torch.nn.utils import prune

from helpers import gates, networks, predictors, variational
from helpers.distillation import distill
from helpers.variational import Conv2d, Linear, MultiplicativeLinear

GRID = torch.linspace(-8, 8, 65, dtype=torch.float64)


def divergence_by_quadrature(log_alpha):
    """Eq. 13 with the constant for which it vanishes as α → ∞: minus log α / 2 + E log|ε| + (γ + log 2) / 2."""
    scale = math.exp(log_alpha / 2)

    def integrand(z):
        return norm.pdf(z) * math.log(abs(1 + scale * z))

    ends = sorted({-38.0, max(-38.0, -1 / scale), 0.0, 38.0})  # the logarithm's singularity is at an end
    expectation = sum(quad(integrand, a, b, limit=300)[0] for a, b in pairwise(ends))
    return expectation - log_alpha / 2 + (np.euler_gamma + math.log(2)) / 2


@pytest.fixture(scope="module")
def truth():
    with warnings.catch_warnings():
        # Where the mass is far from the singularity, QUADPACK warns that it cannot judge its own error; kl_exact judges it.
        warnings.simplefilter("ignore", IntegrationWarning)
        return torch.tensor([divergence_by_quadrature(a) for a in GRID.tolist()], dtype=torch.float64)


# ---- the divergence -------------------------------------------------------------------------------------------------


def test_the_exact_divergence_agrees_with_quadrature(truth):
    torch.testing.assert_close(variational.kl_exact(GRID), truth, atol=1e-7, rtol=0)


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_the_exact_divergence_of_many_is_that_of_each(values):
    together = variational.kl_exact(torch.tensor(values, dtype=torch.float64))
    alone = [variational.kl_exact(torch.tensor(value, dtype=torch.float64)).item() for value in values]
    assert together.tolist() == pytest.approx(alone, abs=1e-9)


def test_equation_14_is_within_a_hundredth_of_quadrature_and_no_nearer(truth):
    """Its published constants miss the truth by up to 0.0094, at log α = -3.5; from log α = 2 on, and at -6.5, by less
    than 0.0023."""
    error = variational.kl(GRID) - truth
    assert 0.009 < error.abs().max() < 0.0095
    assert abs(GRID[error.abs().argmax()] + 3.5) < 0.3
    assert error[GRID >= 2].abs().max() < 2.3e-3
    assert error[GRID <= -6.5].abs().max() < 2e-3
    assert (error.abs() / truth)[GRID <= -2].max() < 0.005


def test_the_divergence_is_positive_falls_with_alpha_and_vanishes():
    values = variational.kl(torch.linspace(-20, 20, 200, dtype=torch.float64))
    assert (values > 0).all()
    assert (values.diff() < 0).all()
    assert values[-1] < 1e-8


def test_the_older_approximations_hold_for_small_alpha_only(truth):
    small, large = GRID <= 0, GRID >= 2
    for older in (variational.kl_cubic, variational.kl_bound):
        assert (older(GRID) - truth)[large].abs().max() > 1
    assert (variational.kl_cubic(GRID) - truth)[small].abs().max() < 0.05
    assert (variational.kl_bound(GRID) >= truth)[GRID <= 0.75].all()


def test_the_divergence_s_gradient_is_its_slope():
    a = GRID.clone().requires_grad_()
    assert torch.autograd.gradcheck(variational.kl, a)


# ---- the layers -----------------------------------------------------------------------------------------------------


def layer_of(kind, seed=0):
    torch.manual_seed(seed)
    plain = nn.Linear(6, 4) if kind is not Conv2d else nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=2)
    layer = kind(plain).double()
    with torch.no_grad():
        (layer.free_log_alpha if kind is MultiplicativeLinear else layer.log_sigma2).normal_(-2, 1)
    return layer.train()


def input_of(layer):
    shape = (4, 7, 7) if isinstance(layer, Conv2d) else (6,)
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [Linear, Conv2d, MultiplicativeLinear])
def test_the_noise_has_the_moments_of_sampled_weights(kind):
    """Mean and variance of every output, against outputs of plain layers whose weights were drawn from q(w)."""
    layer, draws = layer_of(kind), 20_000
    x = input_of(layer)
    with torch.no_grad():
        local = layer(x.expand(draws, *x.shape))
        plain, sampled = layer.plain(), []
        for _ in range(draws // 10):
            w = layer.weight + layer.sigma2.sqrt() * torch.randn_like(layer.weight)
            sampled.append(torch.func.functional_call(plain, {"weight": w}, x[None])[0])
        sampled = torch.stack(sampled)
    variance = sampled.var(0)
    for n, part in ((draws, local), (len(sampled), sampled)):
        mean_error = (variance / n).sqrt()
        assert ((part.mean(0) - layer.eval()(x[None])[0]).abs() < 6 * mean_error + 1e-4).all()
    spread = variance * math.sqrt(2 / draws + 2 / len(sampled))
    assert ((local.var(0) - variance).abs() < 6 * spread).all()


@pytest.mark.parametrize("kind", [Linear, MultiplicativeLinear])
def test_the_variance_is_that_of_equation_17(kind):
    layer = layer_of(kind)
    with torch.no_grad():
        layer.weight.uniform_(0.3, 1.0)  # so that no α is clipped
    x = input_of(layer)
    alpha, theta = layer.log_alpha.exp(), layer.weight
    delta = (alpha * theta**2) @ x**2
    torch.testing.assert_close(layer.sigma2 @ x**2, delta)


def test_local_noise_gives_gradients_of_lower_variance_than_one_weight_for_a_batch():
    """The gradient of a batch's squared error by θ, 2,000 times; its variance is several times smaller (Kingma et al. 2015)."""
    layer = layer_of(Linear)
    x, t = torch.randn(50, 6, dtype=torch.float64), torch.randn(50, 4, dtype=torch.float64)

    def gradients(forward, n=2000):
        return torch.stack([torch.autograd.grad((forward(x) - t).square().mean(), layer.weight)[0] for _ in range(n)])

    def one_weight(x):
        return x @ (layer.weight + layer.sigma2.sqrt() * torch.randn_like(layer.weight)).T + layer.bias

    local, shared = gradients(layer), gradients(one_weight)
    error = ((local.var(0) + shared.var(0)) / 2000).sqrt()
    assert ((local.mean(0) - shared.mean(0)).abs() < 6 * error).all()  # the same gradient on average
    assert (local.var(0).mean() * 5 < shared.var(0).mean()).item()


def test_every_example_has_noise_of_its_own_and_eval_mode_none():
    layer = layer_of(Linear)
    x = input_of(layer).expand(5, -1)
    assert len(layer(x).unique(dim=0)) == 5
    layer.eval()
    torch.testing.assert_close(layer(x), layer.plain()(x), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [Linear, Conv2d, MultiplicativeLinear])
@pytest.mark.parametrize("extreme", [-100.0, 100.0])
def test_at_its_clip_alpha_is_finite_and_so_are_all_gradients(kind, extreme):
    layer = layer_of(kind)
    with torch.no_grad():
        layer.weight.view(-1)[:3] = torch.tensor([0.0, 1e-300, 1e3], dtype=torch.float64)
        (layer.free_log_alpha if kind is MultiplicativeLinear else layer.log_sigma2).fill_(extreme)
    assert layer.log_alpha.abs().max() <= variational.LIMIT
    if kind is not MultiplicativeLinear and extreme > 0:
        return  # σ² = e^100 is no network any more
    (layer(input_of(layer)[None]).square().sum() + variational.kl(layer.log_alpha).sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


def test_alpha_is_restricted_where_that_is_asked_for():
    layer = MultiplicativeLinear(nn.Linear(3, 2), log_alpha=2.0, largest=0.0)
    assert (layer.log_alpha == 0).all()


def test_another_padding_than_zeros_is_refused():
    with pytest.raises(ValueError, match="pads with zeros"):
        Conv2d(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"))


# ---- networks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def lenet():
    torch.manual_seed(0)
    return networks.LeNet(p=0.0).eval()


@pytest.fixture
def images():
    return torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_there_and_back_predicts_the_same(lenet, images):
    there = variational.variational(lenet)
    assert list(variational.layers(there)) == ["conv1", "conv2", "fc1", "fc2"]
    assert not any(isinstance(layer, variational.PLAIN) for layer in there.modules())
    back = variational.pruned(there, math.inf)
    assert str(back) == str(lenet)
    for network in (there, back):
        torch.testing.assert_close(predictors.standard(network, images), predictors.standard(lenet, images))
    assert back.conv1.weight.data_ptr() != there.conv1.weight.data_ptr() != lenet.conv1.weight.data_ptr()


def test_a_pruned_network_predicts_like_the_variational_one_without_its_small_weights(lenet, images):
    there = variational.variational(lenet)
    masks = variational.kept(there, threshold=-3.0)
    assert all(0.01 < 1 - mask.double().mean() < 0.999 for mask in masks.values())
    back = variational.pruned(there, threshold=-3.0)
    assert variational.sparsity(back) == variational.sparsity(there, -3.0)
    assert variational.compression(back) == variational.compression(there, -3.0) > 1
    with torch.no_grad():
        for name, layer in variational.layers(there).items():
            layer.weight[~masks[name]] = 0
    torch.testing.assert_close(predictors.standard(back, images), predictors.standard(there, images))


def test_only_the_layers_that_were_asked_for_change_and_one_used_twice_stays_one():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), shared, nn.ReLU(), shared, nn.Dropout(0.5))
    made = variational.variational(model, {nn.Linear: Linear})
    assert [type(layer).__name__ for layer in made] == ["Conv2d", "Flatten", "Linear", "ReLU", "Linear", "Dropout"]
    assert isinstance(made[0], nn.Conv2d)
    assert made[2] is made[4]
    assert isinstance(model[2], nn.Linear)
    assert len(variational.layers(made)) == 1


@pytest.mark.parametrize("first", [nn.Linear(4, 4), nn.Embedding(4, 4)], ids=lambda layer: type(layer).__name__)
def test_tied_weights_are_not_untied_without_a_word(first):
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(4, 4), nn.Conv2d(1, 1, 3))
    model[2].weight = first.weight
    with pytest.raises(ValueError, match=r"layers \['0', '2'\] share a parameter.*layer\.weight = nn\.Parameter"):
        variational.variational(model)
    made = variational.variational(model, {nn.Conv2d: Conv2d})
    assert made[2].weight is made[0].weight
    made[2].weight = nn.Parameter(made[2].weight.detach().clone())
    assert "2" in variational.layers(variational.variational(made))


def test_a_lone_layer_is_a_network_too():
    made = variational.variational(nn.Linear(3, 2))
    assert isinstance(made, Linear)
    assert isinstance(variational.pruned(made), nn.Linear)


@pytest.mark.parametrize("model", [nn.Sequential(nn.Flatten(), nn.ReLU()), nn.MultiheadAttention(4, 2)])
def test_nothing_to_make_variational_is_an_error(model):
    with pytest.raises(ValueError, match="nothing to make variational"):
        variational.variational(model)


def test_a_plain_network_has_no_divergence_and_nothing_to_prune_by(lenet):
    with pytest.raises(ValueError, match="no variational layer"):
        variational.total_kl(lenet)
    with pytest.raises(ValueError, match="no rates to prune by"):
        variational.pruned(lenet)


@given(st.integers(0, 10_000), st.floats(-8, 8))
@settings(max_examples=25, deadline=None)
def test_weights_are_kept_exactly_where_log_alpha_is_below_the_threshold(seed, threshold):
    layer = layer_of(Linear, seed)
    small = variational.pruned(layer, threshold) if (layer.log_alpha < threshold).any() else None
    if small is not None:
        assert torch.equal(small.weight != 0, layer.log_alpha < threshold)
        assert torch.equal(small.weight[small.weight != 0], layer.weight[layer.log_alpha < threshold])


@pytest.mark.parametrize("at_the_clip", [False, True])
def test_a_layer_that_would_be_emptied_keeps_its_best_weight_and_says_so(at_the_clip):
    model = variational.variational(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)))
    with torch.no_grad():
        model[2].log_sigma2.fill_(20.0 if at_the_clip else 2 * model[2].weight.abs().max().log().item() + 3.5)
    with pytest.warns(UserWarning, match=r"every weight of '2' has log α ≥ 3"):
        small = variational.pruned(model)
    kept = small[2].weight.nonzero()
    assert len(kept) == 1
    assert small[2].weight.abs().max() == model[2].weight.abs().max()
    assert predictors.standard(small, torch.randn(4, 5)).isfinite().all()


def test_a_convolution_that_would_be_emptied_keeps_its_best_weight_too(lenet):
    model = variational.variational(lenet)
    with torch.no_grad():
        model.conv2.log_sigma2.fill_(20.0)
    with pytest.warns(UserWarning, match="'conv2'"):
        weight = variational.pruned(model).conv2.weight
    assert weight.abs().max() == lenet.conv2.weight.abs().max()
    assert (weight != 0).sum() == 1


# ---- as a teacher ---------------------------------------------------------------------------------------------------


def noisy_network():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    model = variational.variational(plain)
    with torch.no_grad():
        for layer in variational.layers(model).values():
            layer.weight.mul_(3)
            layer.log_sigma2.fill_(-1.0)
    return model.eval()


def test_gates_know_variational_layers():
    model, x = noisy_network(), torch.randn(6, 4)
    assert list(gates.stochastic_layers(model)) == ["0", "2"]
    assert gates.rates(model) == {}
    with gates.sampling(model):
        assert not torch.equal(model(x), model(x))
    assert not model.training
    with gates.deterministic(model):
        assert torch.equal(model(x), model(x))
    with pytest.raises(TypeError, match="cannot be set"), gates.fixed(model, {"0": x, "2": x}):
        pass
    quiet = gates.remove(copy.deepcopy(model)).train()
    assert not gates.stochastic_layers(quiet)
    torch.testing.assert_close(quiet(x), model(x), rtol=0, atol=0)


def test_monte_carlo_averages_over_the_posterior():
    """Against the mean over plain networks with sampled weights. Bound: six standard errors of the difference."""
    model, x, m = noisy_network(), torch.randn(20, 4), 4000
    q = predictors.monte_carlo(model, x, m, seed=0)
    plain, draws = variational.pruned(model, math.inf), []
    with torch.no_grad():
        for _ in range(m):
            drawn = {
                f"{name}.weight": layer.weight + layer.sigma2.sqrt() * torch.randn_like(layer.weight)
                for name, layer in variational.layers(model).items()
            }
            draws.append(torch.func.functional_call(plain, drawn, x).softmax(-1))
    draws = torch.stack(draws)
    assert ((q - draws.mean(0)).abs() < 6 * (2 * draws.var(0) / m).sqrt()).all()
    assert (q - predictors.standard(model, x)).abs().max() > 0.03


@pytest.mark.parametrize("student", ["a copy", "plain"])
def test_distill_takes_a_variational_teacher(student):
    model, x = noisy_network(), torch.randn(500, 4)
    before = copy.deepcopy(model.state_dict())
    own = None if student == "a copy" else variational.pruned(model, math.inf)
    q = distill(model, x, student=own, epochs=30, lr=0.05, progress=False)
    assert not gates.stochastic_layers(q)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    ideal = predictors.monte_carlo(model, x, 500, seed=1)

    def distance(p):
        return (ideal * (ideal.log() - p.log())).sum(-1).mean()

    assert distance(predictors.standard(q, x)) < distance(predictors.standard(model, x)) / 3


def has_a_hook():
    layer = nn.Linear(4, 3)
    layer.register_forward_hook(lambda layer, args, y: 2 * y)
    return layer


def with_another_forward():
    layer = nn.Linear(4, 3)
    layer.forward = lambda x: 2 * x[..., :3]
    return layer


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize(
    "layer",
    [
        has_a_hook,
        lambda: prune.l1_unstructured(nn.Linear(4, 3), "weight", 0.5),
        lambda: nn.utils.weight_norm(nn.Linear(4, 3)),
        with_another_forward,
    ],
    ids=["hook", "pruned", "weight norm", "forward"],
)
def test_a_layer_that_is_more_than_its_parameters_is_refused(layer):
    """Its posterior would not be trained, or would be another layer's."""
    with pytest.raises(ValueError, match="has a hook or a forward put in place of its own, or computes its weight"):
        variational.variational(nn.Sequential(layer()))
