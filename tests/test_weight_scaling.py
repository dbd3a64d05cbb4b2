"""Where weight scaling is the renormalised geometric mean over all masks, to 1e-10 in float64, and where it is not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers import predictors

many = settings(deadline=None, derandomize=True, max_examples=20)
rate, seeds = st.floats(0.02, 0.95), st.integers(0, 2**32)


def gap(*layers, seed, inputs=6, mean="geometric"):
    """The largest difference between weight scaling and a mean over all masks, on four inputs."""
    torch.manual_seed(seed)
    model = nn.Sequential(*(make() for make in layers)).double()
    x = torch.randn(4, inputs, dtype=torch.float64)
    return (predictors.exact(model, x, mean=mean) - predictors.standard(model, x)).abs().max().item()


def linear(n, k):
    return lambda: nn.Linear(n, k)


def dropout(p):
    return lambda: nn.Dropout(p)


@many
@given(p=rate, seed=seeds)
def test_softmax_regression_is_exact(p, seed):
    assert gap(dropout(p), linear(6, 3), seed=seed) < 1e-10


@many
@given(p=rate, q=rate, r=rate, seed=seeds)
def test_deep_linear_networks_are_exact(p, q, r, seed):
    layers = dropout(p), linear(6, 4), dropout(q), linear(4, 3), dropout(r), linear(3, 3)
    assert gap(*layers, seed=seed) < 1e-10


@many
@given(p=rate, seed=seeds)
def test_gates_before_the_last_layer_only_are_exact_whatever_comes_before(p, seed):
    assert gap(linear(6, 8), nn.Tanh, linear(8, 8), nn.ReLU, dropout(p), linear(8, 3), seed=seed) < 1e-10


@many
@given(p=rate, q=rate, seed=seeds)
def test_a_relu_between_gates_of_the_same_units_is_exact(p, q, seed):
    assert gap(linear(6, 6), dropout(p), nn.ReLU, dropout(q), linear(6, 3), seed=seed) < 1e-10


@pytest.mark.parametrize("seed", range(3))
def test_a_nonlinearity_behind_the_gates_is_not(seed):
    assert gap(dropout(0.5), linear(6, 8), nn.ReLU, linear(8, 3), seed=seed) > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_nor_is_the_arithmetic_mean(seed):
    assert gap(dropout(0.5), linear(6, 3), seed=seed, mean="arithmetic") > 1e-3


@many
@given(p=rate, seed=seeds)
def test_linear_regression_has_the_mean_of_the_ensemble(p, seed):
    torch.manual_seed(seed)
    model, x = nn.Sequential(nn.Dropout(p), nn.Linear(8, 1)).double(), torch.randn(4, 8, dtype=torch.float64)
    mean = predictors.exact(model, x, output=lambda z: z)
    torch.testing.assert_close(mean, predictors.standard(model, x, output=lambda z: z), atol=1e-10, rtol=0)
