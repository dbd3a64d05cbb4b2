"""Gates: which layers have them, and that they alone are random while they are sampled."""

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from helpers import gates

DRAWS = {
    "Dropout": nn.Dropout(0.5),
    "Dropout1d": nn.Dropout1d(0.5),
    "Dropout2d": nn.Dropout2d(0.5),
    "Dropout3d": nn.Dropout3d(0.5),
    "AlphaDropout": nn.AlphaDropout(0.5),
    "FeatureAlphaDropout": nn.FeatureAlphaDropout(0.5),
    "MultiheadAttention": nn.MultiheadAttention(8, 2, dropout=0.5),
    "LSTM": nn.LSTM(4, 4, num_layers=2, dropout=0.5),
    "GRU": nn.GRU(4, 4, num_layers=2, dropout=0.5),
    "RNN": nn.RNN(4, 4, num_layers=2, dropout=0.5),
    "RReLU": nn.RReLU(),
    "StochasticDepth": StochasticDepth(0.5, "row"),
}


class Last(nn.Module):
    """The last step of a recurrent layer or the first output of attention, [N, T, F] -> [N, F]."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        output = self.layer(x, x, x) if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)
        return (output[0] if isinstance(output, tuple) else output)[:, -1]


NETWORKS = {
    "units": (nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)), (8,)),
    "channels": (nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Dropout2d(0.5)), (2, 6, 6)),
    "AlphaDropout": (nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.AlphaDropout(0.5)), (8,)),
    "LSTM": (Last(nn.LSTM(8, 8, 2, batch_first=True, dropout=0.5)), (5, 8)),
    "attention": (Last(nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)), (5, 8)),
    "transformer": (Last(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)), (5, 8)),
    "StochasticDepth": (nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), StochasticDepth(0.5, "row")), (8,)),
    "RReLU": (nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.RReLU()), (8,)),
}


@pytest.mark.parametrize("kind", DRAWS)
def test_a_layer_that_draws_random_numbers_is_found_by_its_name(kind):
    model = nn.Sequential(nn.Linear(4, 4), nn.ModuleDict({"inner": DRAWS[kind]}))
    assert gates.stochastic_layers(model) == {"1.inner": DRAWS[kind]}


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.0),
        nn.MultiheadAttention(8, 2),
        nn.LSTM(4, 4, num_layers=2),
        nn.RReLU(0.2, 0.2),
        StochasticDepth(0.0, "row"),
        nn.BatchNorm1d(4),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_that_draws_nothing_is_left_out(layer):
    assert gates.stochastic_layers(nn.Sequential(layer)) == {}


@pytest.mark.filterwarnings("ignore:dropout option adds dropout")
def test_a_recurrent_layer_alone_has_no_other_to_drop_before():
    assert gates.stochastic_layers(nn.LSTM(4, 4, num_layers=1, dropout=0.5)) == {}


@pytest.mark.parametrize("name", NETWORKS)
def test_gates_are_sampled_and_nothing_else_changes(name):
    model, shape = NETWORKS[name]
    model.train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    x = torch.randn(16, *shape)
    with gates.sampling(model), torch.no_grad():
        assert not torch.equal(model(x), model(x))
    with gates.deterministic(model), torch.no_grad():
        assert torch.equal(model(x), model(x))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("name", NETWORKS)
def test_without_its_gates_a_network_is_deterministic_in_training_mode_too(name):
    model, shape = NETWORKS[name]
    removed = gates.remove(copy.deepcopy(model))
    x = torch.randn(16, *shape)
    with gates.deterministic(model), torch.no_grad():
        expected = model(x)
    for layer in removed.modules():
        layer.training = not isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
    torch.testing.assert_close(removed(x), expected)
    assert gates.stochastic_layers(removed) == {}
    assert removed.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("manager", [gates.sampling, gates.deterministic])
def test_modes_come_back_after_an_exception(manager):
    model = nn.Sequential(nn.BatchNorm1d(4).eval(), nn.Dropout(0.5), nn.Linear(4, 4).eval())
    modes = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError, match="stop"), manager(model):
        raise RuntimeError("stop")
    assert [module.training for module in model.modules()] == modes


def test_a_model_with_no_dropout_is_refused_with_what_was_looked_for():
    with pytest.raises(ValueError, match=r"no dropout in it.*F\.dropout"), gates.sampling(nn.Linear(2, 2)):
        pass


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("layer, shape, gate", [(nn.Dropout, (5,), (5,)), (nn.Dropout2d, (5, 3, 3), (5,))])
def test_fixed_gates_keep_and_rescale_or_drop(layer, shape, gate, per_example, p):
    model, x = nn.Sequential(layer(p)), torch.randn(4, *shape)
    mask = torch.randint(2, ((4, *gate) if per_example else gate)).float()
    factor = (mask if per_example else mask.expand(4, *gate)).reshape(4, 5, *[1] * (len(shape) - 1))
    expected = x * factor / (1 - p) if p < 1 else torch.zeros_like(x)
    with gates.fixed(model, {"0": mask}):
        torch.testing.assert_close(model(x), expected)
    with gates.deterministic(model):
        assert torch.equal(model(x), x), "the hooks are gone"


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({}, r"no mask for \['1'\]"),
        ({"1": torch.ones(5), "drop": torch.ones(5)}, r"\['drop'\] name no stochastic layer"),
        ({"1": torch.full((5,), 0.5)}, "other than 0 and 1"),
        ({"1": torch.ones(4)}, r"mask of '1' has shape \[4\], but \[2, 5\] enters"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, message):
    model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5))
    with pytest.raises(ValueError, match=message), gates.fixed(model, masks):
        model(torch.randn(2, 3))
    assert not model[1]._forward_hooks


@pytest.mark.parametrize("kind", ["LSTM", "MultiheadAttention", "AlphaDropout"])
def test_gates_out_of_reach_are_refused_by_name(kind):
    model = nn.Sequential(DRAWS[kind])
    with pytest.raises(TypeError, match=rf"\['0'\] \({kind}\) cannot be set"), gates.fixed(model, {"0": torch.ones(4)}):
        pass


def test_gate_shapes_are_units_or_channels_of_one_example():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout2d(0.5), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 2))
    assert gates.gate_shapes(model, torch.zeros(7, 1, 6, 6)) == {"1": (4,), "2": (4, 4, 4)}


def test_a_layer_that_takes_no_part_has_no_gates():
    model = nn.Sequential(nn.Dropout(0.5))
    model.add_module("idle", nn.Dropout(0.5))
    model.forward = lambda x: model[0](x)
    with pytest.raises(ValueError, match=r"\['idle'\] took no part"):
        gates.gate_shapes(model, torch.zeros(1, 3))


def test_all_masks_are_enumerated_once_with_probabilities_that_sum_to_one():
    layers = {"a": nn.Dropout(0.3), "b": nn.Dropout2d(0.9)}
    masks, probabilities = gates.enumerated(layers, {"a": torch.Size([2, 2]), "b": torch.Size([3])}, 0, 2**7)
    rows = torch.cat([masks["a"].reshape(-1, 4), masks["b"]], dim=1)
    assert len(rows.unique(dim=0)) == 2**7
    assert probabilities.sum().item() == pytest.approx(1)
    all_kept = rows.all(1)
    assert probabilities[all_kept].item() == pytest.approx(0.7**4 * 0.1**3)


def test_rates_are_those_of_the_layers():
    model = nn.Sequential(nn.Dropout(0.2), nn.LSTM(4, 4, 2, dropout=0.4), StochasticDepth(0.1, "row"), nn.RReLU())
    assert gates.rates(model) == {"0": 0.2, "1": 0.4, "2": 0.1}
