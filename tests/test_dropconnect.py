"""DropConnect: the law of its output, its gradients, and that no batch of weight matrices is ever kept.

Statistical tests have fixed seeds and bounds of six standard errors, which a right layer breaks once in 5e8 comparisons.
"""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from helpers import dropconnect, gates, predictors
from helpers.distillation import distill
from helpers.gates import DropConnect

RATES = [0.1, 0.25, 0.5, 0.9]


def layer_of(n_in, n_out, p, dtype=torch.float64, **kwargs):
    return DropConnect(n_in, n_out, p, **kwargs).to(dtype).train()


def masks_of(layer, rows, seed):
    """The gates [rows, out, in] that the layer draws from `seed`, read from sums of powers of two."""
    powers = 2.0 ** torch.arange(layer.in_features, dtype=torch.float64)
    probe = copy.deepcopy(layer).double()
    with torch.no_grad():
        probe.weight.copy_(powers.expand_as(probe.weight))
        probe.bias.zero_()
        torch.manual_seed(seed)
        sums = probe(torch.ones(rows, layer.in_features, dtype=torch.float64)) * (1 - layer.p)
    return (sums.round().long()[..., None] >> torch.arange(layer.in_features)) & 1


def naive(layer, masks, x):
    """All N weight matrices at once, with the operations of autograd alone."""
    return torch.einsum("noi,ni->no", masks * layer.weight / (1 - layer.p), x) + layer.bias


# ---- what it computes ---------------------------------------------------------------------------------------------


def test_in_eval_mode_it_is_the_linear_layer():
    layer, x = layer_of(5, 3, 0.5).eval(), torch.randn(4, 5, dtype=torch.float64)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_a_rate_of_zero_keeps_and_a_rate_of_one_drops_every_connection():
    x = torch.randn(4, 5, dtype=torch.float64)
    layer = layer_of(5, 3, 0.0)
    assert torch.equal(layer(x), copy.deepcopy(layer).eval()(x))
    layer = layer_of(5, 3, 1.0)
    assert torch.equal(layer(x), layer.bias.expand(4, 3))


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_a_rate_that_is_no_probability_is_refused(p):
    with pytest.raises(ValueError, match="between 0 and 1"):
        DropConnect(2, 2, p)


@pytest.mark.parametrize("p", RATES)
def test_mean_and_covariance_are_those_of_the_closed_form(p):
    """E[y] = Wx + b; Cov[y_i, y_k] = 0, and Var[y_i] = p / (1 - p) Σ_j W_ij² x_j²."""
    torch.manual_seed(0)
    layer, x, n = layer_of(8, 4, p), torch.randn(8, dtype=torch.float64), 200_000
    with torch.no_grad():
        y = layer(x.expand(n, -1))
        mean = layer.weight @ x + layer.bias
        variance = p / (1 - p) * (layer.weight * x).square().sum(1)
    z = (y - mean) / variance.sqrt()
    assert (z.mean(0).abs() < 6 / math.sqrt(n)).all()
    products = z[:, :, None] * z[:, None, :]
    error = products.std(0) / math.sqrt(n)
    assert ((products.mean(0) - torch.eye(4)).abs() < 6 * error).all()


@pytest.mark.parametrize("p", RATES)
def test_every_gate_is_kept_at_its_rate_and_independent_of_its_neighbours(p):
    layer = layer_of(6, 5, p)
    gates_drawn = masks_of(layer, 50_000, seed=0).double().reshape(50_000, 30)
    z = (gates_drawn - (1 - p)) / math.sqrt(p * (1 - p))
    correlations = z.T @ z / len(z)
    error = z.square().std() / math.sqrt(len(z)) + 1 / math.sqrt(len(z))
    assert (z.mean(0).abs() < 6 / math.sqrt(len(z))).all()
    assert ((correlations - torch.eye(30)).abs() < 6 * error).all()


def test_each_example_has_gates_of_its_own_also_across_chunks(monkeypatch):
    """False alarms: two of the 64 rows of 160 gates agree, 2^-150."""
    monkeypatch.setattr(dropconnect, "GATES", 5 * 160)
    rows = masks_of(layer_of(20, 8, 0.5), 64, seed=0).reshape(64, 160)
    assert len(rows.unique(dim=0)) == 64


def test_rows_of_sequences_have_gates_of_their_own():
    """False alarms: 2^-39."""
    layer = layer_of(10, 4, 0.5)
    y = layer(torch.ones(2, 3, 10, dtype=torch.float64))
    assert y.shape == (2, 3, 4)
    assert not torch.isclose(y, y[:1, :1]).all()


# ---- gradients ----------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from(RATES),
    st.sampled_from([1, 40, 10_000]),
    st.integers(0, 1000),
)
def test_output_and_gradients_are_those_of_autograd_with_the_same_masks(n, n_in, n_out, p, chunk, seed):
    before, dropconnect.GATES = dropconnect.GATES, chunk
    try:
        torch.manual_seed(seed)
        layer = layer_of(n_in, n_out, p)
        x = torch.randn(n, n_in, dtype=torch.float64, requires_grad=True)
        direction = torch.randn(n, n_out, dtype=torch.float64)
        masks = masks_of(layer, n, seed)
        torch.manual_seed(seed)
        y = layer(x)
        torch.rand(7)  # whatever is drawn between the passes
        wanted = [x, layer.weight, layer.bias]
        found = torch.autograd.grad((y * direction).sum(), wanted)
        expected_y = naive(layer, masks, x)
        expected = torch.autograd.grad((expected_y * direction).sum(), wanted)
    finally:
        dropconnect.GATES = before
    torch.testing.assert_close(y, expected_y, rtol=1e-12, atol=1e-12)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_backward_pass_leaves_the_random_numbers_as_they_were():
    layer = layer_of(5, 3, 0.5)
    loss = layer(torch.randn(4, 5, dtype=torch.float64)).sum()
    state = torch.get_rng_state()
    loss.backward()
    assert torch.equal(torch.get_rng_state(), state)


def test_two_layers_in_a_row_redraw_their_own_masks():
    model = nn.Sequential(layer_of(6, 6, 0.5), nn.Tanh(), layer_of(6, 2, 0.5))
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)

    def pass_from_one_seed(x):
        torch.manual_seed(0)
        return model(x)

    assert torch.autograd.gradcheck(pass_from_one_seed, x)


# ---- memory -------------------------------------------------------------------------------------------------------


class Peak(TorchDispatchMode):
    """Follows the bytes of all tensors that live at the same time and were made while it is active."""

    def __init__(self):
        super().__init__()
        self.alive, self.bytes = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for result in tree_iter(results):
            if isinstance(result, torch.Tensor):
                storage = result.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {key: (ref, size) for key, (ref, size) in self.alive.items() if not ref.expired()}
        self.bytes = max(self.bytes, sum(size for _, size in self.alive.values()))
        return results


def peak(function, *args):
    with Peak() as memory:
        function(*args)
    return memory.bytes


N, WIDTH = 128, 1000
MATRICES = 4 * N * WIDTH * WIDTH  # bytes of N weight matrices


def train_step(layer, x):
    layer(x).square().sum().backward()


def test_the_measure_sees_what_a_naive_layer_keeps():
    layer, x = layer_of(100, 100, 0.5), torch.randn(16, 100, dtype=torch.float64)
    matrices = 8 * 16 * 100 * 100

    def step():
        naive(layer, torch.rand(16, 100, 100) < 0.5, x).sum().backward()

    assert matrices < peak(step) < 10 * matrices


def test_a_wide_layer_needs_far_less_memory_than_a_matrix_for_each_example():
    layer, x = layer_of(WIDTH, WIDTH, 0.5, torch.float32), torch.randn(N, WIDTH)
    with torch.no_grad():
        assert peak(layer, x) < MATRICES / 10
    assert peak(train_step, layer, x) < MATRICES / 8  # gradients of all weights included


def test_memory_does_not_grow_with_the_number_of_examples():
    layer = layer_of(500, 500, 0.5, torch.float32)
    few, many = (peak(train_step, layer, torch.randn(n, 500)) for n in (16, 64))
    assert many < few + 48 * 500 * 4 * 10  # some rows of inputs and outputs, no matrices of 10^6 bytes


# ---- in a network -------------------------------------------------------------------------------------------------


def network(p=0.5):
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), DropConnect(3, 2, p), nn.Tanh(), DropConnect(2, 3, p)).eval()


def test_gates_knows_the_layer():
    model = network(0.25)
    assert list(gates.stochastic_layers(model)) == ["2", "4"]
    assert gates.rates(model) == {"2": 0.25, "4": 0.25}
    assert gates.gate_shapes(model, torch.randn(5, 4)) == {"2": (2, 3), "4": (3, 2)}


def test_the_ideal_of_its_masks_is_where_sampling_leads():
    """Six standard errors of the mean of m masks, for each of 60 probabilities."""
    torch.manual_seed(0)
    model, x, m = network(0.3), torch.randn(20, 4), 4000
    for parameter in model.parameters():
        parameter.data.mul_(3)
    ideal = predictors.exact(model, x)
    with gates.sampling(model), torch.no_grad():
        f = model(x.repeat(m, 1)).softmax(-1).reshape(m, *ideal.shape)
    assert ((f.mean(0) - ideal).abs() < 6 * f.std(0) / math.sqrt(m)).all()
    assert ((predictors.monte_carlo(model, x, m=500, seed=1) - ideal).abs() < 6 * f.std(0) / math.sqrt(500)).all()


@pytest.mark.parametrize("p", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(3, 2), (4, 3, 2)])
def test_fixed_masks_multiply_the_weights(p, shape):
    model, x = nn.Sequential(DropConnect(2, 3, p)).double(), torch.randn(4, 2, dtype=torch.float64)
    mask = torch.randint(2, shape).double()
    weight = model[0].weight * mask / (1 - p) if p < 1 else torch.zeros(3, 2, dtype=torch.float64)
    expected = torch.einsum("noi,ni->no", weight.expand(4, 3, 2), x) + model[0].bias
    with gates.fixed(model, {"0": mask}):
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("shape", [(2,), (2, 3), (1, 3, 2)])
def test_a_mask_of_another_shape_is_refused(shape):
    model = nn.Sequential(DropConnect(2, 3))
    with pytest.raises(ValueError, match="the mask of '0' has shape"), gates.fixed(model, {"0": torch.ones(shape)}):
        model(torch.randn(4, 2))


def test_an_input_without_a_batch_is_refused_where_gates_are_set():
    model = nn.Sequential(DropConnect(2, 3))
    with pytest.raises(ValueError, match="no batch"), gates.fixed(model, {"0": torch.ones(3, 2)}):
        model(torch.randn(2))


def test_removed_gates_leave_the_linear_layer_and_distillation_uses_that():
    torch.manual_seed(0)
    model, x = network(), torch.randn(256, 4)
    bare = gates.remove(copy.deepcopy(model)).train()
    assert torch.equal(bare(x), model(x))
    student = distill(model, x, epochs=2, lr=0.1, progress=False)
    assert gates.stochastic_layers(student) == {}
    assert student(x).shape == (256, 3)


@pytest.mark.parametrize("bias", [True, False])
def test_it_has_the_parameters_of_a_linear_layer_and_is_none(bias):
    layer, linear = DropConnect(3, 2, bias=bias), nn.Linear(3, 2, bias=bias)
    layer.load_state_dict(linear.state_dict())
    x = torch.randn(4, 3)
    assert torch.equal(layer.eval()(x), linear(x))
    assert layer.train()(x).shape == (4, 2)
    assert repr(layer) == f"DropConnect(3, 2, p=0.5, bias={bias})"


def test_fast_dropout_has_no_closed_form_for_it_and_says_so():
    with pytest.raises(TypeError, match="DropConnect"):
        predictors.fast_dropout(network(), torch.randn(5, 4))
