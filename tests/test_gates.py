"""Gates: which layers have them, and that they alone are random while they are sampled."""

import copy
import math
from contextlib import nullcontext
from itertools import product

import pytest
import torch
from torch import nn
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.models.vision_transformer import VisionTransformer
from torchvision.ops import StochasticDepth

from helpers import gates
from helpers.experiments.running import compile_whole
from tests.conftest import graphs_are_compiled

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
    "Dropout1d": (nn.Sequential(nn.Conv1d(2, 8, 3), nn.BatchNorm1d(8), nn.Dropout1d(0.5)), (2, 6)),
    "Dropout3d": (nn.Sequential(nn.Conv3d(2, 8, 3), nn.BatchNorm3d(8), nn.Dropout3d(0.5)), (2, 4, 4, 4)),
    "FeatureAlphaDropout": (nn.Sequential(nn.Conv1d(2, 8, 3), nn.FeatureAlphaDropout(0.5)), (2, 6)),
    "GRU": (Last(nn.GRU(8, 8, 2, batch_first=True, dropout=0.5)), (5, 8)),
    "RNN": (Last(nn.RNN(8, 8, 2, batch_first=True, dropout=0.5)), (5, 8)),
    "vision transformer": (
        VisionTransformer(8, 4, 1, 2, 8, 16, dropout=0.5, attention_dropout=0.5, num_classes=3),
        (3, 8, 8),
    ),
    "EfficientNet": (
        EfficientNet([MBConvConfig(1, 3, 1, 8, 8, 2, 1, 1)], dropout=0.5, stochastic_depth_prob=1.0, num_classes=3),
        (3, 8, 8),
    ),
}
nn.init.normal_(NETWORKS["vision transformer"][0].heads.head.weight)  # torchvision starts it at zero

# Every layer of the networks above that have several, under its full name. The first block of an EfficientNet is
# always kept: its rate is zero.
LAYERS = {
    "transformer": ["layer.self_attn", "layer.dropout", "layer.dropout1", "layer.dropout2"],
    "vision transformer": [
        "encoder.dropout",
        "encoder.layers.encoder_layer_0.self_attention",
        "encoder.layers.encoder_layer_0.dropout",
        "encoder.layers.encoder_layer_0.mlp.2",
        "encoder.layers.encoder_layer_0.mlp.4",
    ],
    "EfficientNet": ["features.1.1.stochastic_depth", "classifier.0"],
}


def batch_norm_evaluates(model):
    for layer in model.train().modules():
        layer.training = not isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    return model


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_state(model, expected):
    assert not [name for name, value in model.state_dict().items() if not torch.equal(value, expected[name])]


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


@pytest.mark.parametrize("name", LAYERS)
def test_layers_deep_inside_are_found_in_their_order(name):
    assert list(gates.stochastic_layers(NETWORKS[name][0])) == LAYERS[name]


@pytest.mark.parametrize(("name", "layer"), [(name, layer) for name in LAYERS for layer in LAYERS[name]])
def test_each_layer_alone_makes_two_passes_differ(name, layer):
    """Also where PyTorch has a fast path past it. False alarms: 64 examples meet the same gates twice, 2^-64."""
    model, shape = copy.deepcopy(NETWORKS[name][0]), NETWORKS[name][1]
    for other in set(LAYERS[name]) - {layer}:
        module = model.get_submodule(other)
        setattr(module, "dropout" if isinstance(module, nn.MultiheadAttention) else "p", 0.0)
    x = torch.randn(64, *shape)
    with gates.sampling(model), torch.no_grad():
        assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_gates_are_those_that_training_draws(name, monkeypatch):
    """From the same numbers: cheap masks, which follow the same law and use other ones, are switched off."""
    monkeypatch.setattr(gates, "cheap_masks", lambda model: nullcontext())
    model, x = copy.deepcopy(NETWORKS[name][0]), torch.randn(16, *NETWORKS[name][1])
    with torch.no_grad():
        torch.manual_seed(0)
        expected = batch_norm_evaluates(model)(x)
        torch.manual_seed(0)
        with gates.sampling(model.eval()):
            torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_example_has_gates_of_its_own(name):
    """False alarms: 64 examples all draw the same gates, 2^-63."""
    model, shape = NETWORKS[name]
    with gates.sampling(model), torch.no_grad():
        y = model(torch.randn(1, *shape).expand(64, *shape))
    assert not torch.isclose(y, y[:1]).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_gates_are_sampled_and_nothing_else_changes(name):
    model, shape = NETWORKS[name]
    model.train()
    state = state_of(model)
    modes = [module.training for module in model.modules()]
    x = torch.randn(64, *shape)
    with gates.sampling(model), torch.no_grad():
        assert not torch.equal(model(x), model(x))  # false alarms: 2^-64, as each example has gates of its own
    with gates.deterministic(model), torch.no_grad():
        assert torch.equal(model(x), model(x))
    assert_state(model, state)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("name", NETWORKS)
def test_without_its_gates_a_network_is_deterministic_in_training_mode_too(name):
    model, shape = NETWORKS[name]
    removed = gates.remove(copy.deepcopy(model))
    assert removed.state_dict().keys() == model.state_dict().keys()
    assert_state(removed, model.state_dict())
    x = torch.randn(16, *shape)
    with gates.deterministic(model), torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(batch_norm_evaluates(removed)(x), expected)
    assert gates.stochastic_layers(removed) == {}


def all_kept(model):
    return gates.fixed(model, {"1": torch.ones(4)})


@pytest.mark.parametrize("manager", [gates.sampling, gates.deterministic, all_kept])
@pytest.mark.parametrize("modes", list(product([False, True], repeat=4)))
def test_modes_and_hooks_come_back_after_an_exception(manager, modes):
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 4))
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    with pytest.raises(RuntimeError, match="stop"), manager(model):
        raise RuntimeError("stop")
    assert tuple(module.training for module in model.modules()) == modes
    assert not model[1]._forward_hooks


def test_managers_nest_and_the_innermost_rules():
    """False alarms: 100 gates twice the same, 2^-100."""
    model, x = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)).train(), torch.randn(25, 4)
    with gates.sampling(model):
        with gates.deterministic(model):
            expected = model(x)
            assert torch.equal(model(x), expected)
            with gates.sampling(model):
                assert not torch.equal(model(x), model(x))
            assert torch.equal(model(x), expected)
        with all_kept(model):
            torch.testing.assert_close(model(x), 2 * expected)
        assert not torch.equal(model(x), model(x))
        assert not model[0].training
    assert model[0].training and model[1].training


def test_a_model_with_no_dropout_is_refused_with_what_was_looked_for():
    with pytest.raises(ValueError, match=r"no dropout in it.*F\.dropout"), gates.sampling(nn.Linear(2, 2)):
        pass


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize(
    ("layer", "shape", "gate"),
    [
        (nn.Dropout, (5,), (5,)),
        (nn.Dropout, (5, 2, 3), (5, 2, 3)),
        (nn.Dropout1d, (5, 3), (5,)),
        (nn.Dropout2d, (5, 3, 3), (5,)),
        (nn.Dropout3d, (5, 2, 2, 2), (5,)),
    ],
)
def test_fixed_gates_keep_and_rescale_or_drop(layer, shape, gate, per_example, p):
    model, x = nn.Sequential(layer(p)), torch.randn(4, *shape)
    mask = torch.randint(2, ((4, *gate) if per_example else gate)).float()
    factor = mask.expand(4, *gate).reshape(4, *gate, *[1] * (len(shape) - len(gate)))
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
        ({"1": torch.full((5,), torch.nan)}, "other than 0 and 1"),
        ({"1": torch.ones(3, 5)}, r"mask of '1' has shape \[3, 5\], but \[2, 5\] enters"),
        ({"1": torch.ones(1, 2, 5)}, r"mask of '1' has shape \[1, 2, 5\], but \[2, 5\] enters"),
        ({"1": torch.ones(4)}, r"mask of '1' has shape \[4\], but \[2, 5\] enters"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, message):
    model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5))
    with pytest.raises(ValueError, match=message), gates.fixed(model, masks):
        model(torch.randn(2, 3))
    assert not model[1]._forward_hooks


def test_a_mask_that_leaves_out_dimensions_is_refused():
    model = nn.Sequential(nn.Dropout(0.5))
    with (
        pytest.raises(ValueError, match=r"has shape \[4\], but \[2, 3, 4\] enters"),
        gates.fixed(model, {"0": torch.ones(4)}),
    ):
        model(torch.ones(2, 3, 4))


class ByKeyword(nn.Module):
    """Calls its dropout layer with a named argument."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(input=x)


def test_a_layer_may_be_called_by_keyword():
    x = torch.randn(2, 3)
    assert gates.gate_shapes(ByKeyword(), x) == {"drop": (3,)}
    with gates.fixed(model := ByKeyword(), {"drop": torch.ones(3)}):
        assert torch.equal(model(x), 2 * x)


def test_masks_may_be_boolean():
    x = torch.randn(2, 3)
    with gates.fixed(model := nn.Sequential(nn.Dropout(0.5)), {"0": torch.tensor([True, False, True])}):
        assert torch.equal(model(x), x * torch.tensor([2.0, 0.0, 2.0]))


@pytest.mark.parametrize("kind", ["LSTM", "MultiheadAttention", "AlphaDropout", "StochasticDepth", "RReLU"])
def test_gates_out_of_reach_are_refused_by_name(kind):
    model = nn.Sequential(DRAWS[kind])
    with pytest.raises(TypeError, match=rf"\['0'\] \({kind}\) cannot be set"), gates.fixed(model, {"0": torch.ones(4)}):
        pass


def test_gate_shapes_are_units_or_channels_of_one_example():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout2d(0.5), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 2))
    assert gates.gate_shapes(model, torch.zeros(7, 1, 6, 6)) == {"1": (4,), "2": (4, 4, 4)}


def test_a_layer_that_is_used_twice_needs_two_names():
    drop = nn.Dropout(0.5)
    with pytest.raises(ValueError, match=r"'0' is used more than once.*a layer of its own"):
        gates.gate_shapes(nn.Sequential(drop, nn.Linear(3, 3), drop), torch.zeros(1, 3))
    assert not drop._forward_pre_hooks


@pytest.mark.parametrize(("layer", "shape"), [(nn.Dropout1d, (2, 3)), (nn.Dropout3d, (2, 3, 4, 4))])
def test_an_input_that_pytorch_takes_for_one_example_without_a_batch_is_refused(layer, shape):
    """There it drops whole examples, so that `exact` averages over other gates than training draws."""
    with pytest.raises(ValueError, match="batch"):
        gates.gate_shapes(nn.Sequential(layer(0.5)), torch.zeros(shape))


class NamedByItsUser(nn.Dropout2d):
    """A kind of its own, as networks have that set a rate of their own."""


def test_a_subclass_drops_what_its_parent_drops():
    model, x = nn.Sequential(NamedByItsUser(0.5)), torch.randn(2, 3, 4, 4)
    assert gates.gate_shapes(model, x) == {"0": (3,)}
    with gates.fixed(model, {"0": torch.tensor([0, 1, 0])}):
        torch.testing.assert_close(model(x), 2 * x * torch.tensor([0, 1, 0])[:, None, None])


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


@pytest.mark.parametrize(
    "rates",
    [
        (0.5, 0.25),
        (0.1, 0.7),
    ],
)
def test_each_mask_has_the_product_of_its_gates_probabilities(rates):
    layers = {"a": nn.Dropout(rates[0]), "b": nn.Dropout(rates[1])}
    parts = [gates.enumerated(layers, {"a": torch.Size([2]), "b": torch.Size([3])}, i, i + 8) for i in range(0, 32, 8)]
    found = {}
    for bits, probabilities in parts:
        rows = torch.cat([bits["a"], bits["b"]], dim=1).tolist()
        found |= dict(zip(map(tuple, rows), probabilities.tolist(), strict=True))
    p = [rates[0]] * 2 + [rates[1]] * 3
    expected = {
        mask: math.prod(1 - rate if kept else rate for kept, rate in zip(mask, p, strict=True))
        for mask in product([0, 1], repeat=5)
    }
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("compiled_by", [torch.compile, lambda model, **how: compile_whole(model, **how) or model])
def test_masks_reach_a_network_that_was_compiled_and_run_before(compiled_by):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
    x, mask = torch.randn(4, 5), torch.tensor([1, 0, 1, 1, 0, 0, 1, 0])
    with torch.no_grad():
        expected = model[2](model[0](x) * mask * 2)
        compiled = compiled_by(model, backend="eager")
        with graphs_are_compiled():
            compiled(x)
        (name,) = gates.gate_shapes(compiled, x)
        with gates.fixed(compiled, {name: mask}):
            torch.testing.assert_close(compiled(x), expected)


def test_hooks_of_the_network_s_own_see_what_the_gates_let_through():
    model, mask = nn.Sequential(nn.Dropout(0.5)), torch.tensor([1, 0, 1])
    model[0].register_forward_hook(lambda layer, args, y: y + 1)
    with gates.fixed(model, {"0": mask}):
        assert torch.equal(model(torch.ones(2, 3)), torch.tensor([[3.0, 1.0, 3.0]] * 2))
