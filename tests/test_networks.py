"""The five networks have the sizes, layers and initial weights that the design gives them."""

import pytest
import torch
from torch import nn

from helpers import gates, networks

COLOUR = (3, 32, 32)


@pytest.mark.parametrize(
    ("make", "shape", "count"),
    [
        (networks.LeNet, (1, 28, 28), 431_080),
        (networks.LeNetAll, (1, 28, 28), 431_080),
        (networks.Quick, COLOUR, 145_578),
        (networks.NiN, COLOUR, 966_986),
        (networks.AllConv, COLOUR, 1_369_738),
    ],
)
def test_parameter_counts_and_logits(make, shape, count):
    network = make().eval()
    assert networks.parameter_count(network) == count
    assert network(torch.zeros(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("make", [networks.Quick, networks.NiN, networks.AllConv])
def test_a_hundred_classes(make):
    assert make(classes=100).eval()(torch.zeros(2, *COLOUR)).shape == (2, 100)


def sizes(network, shape):
    """Height of each four-dimensional map on its way through the network."""
    heights, x = [], torch.zeros(1, *shape)
    for layer in network.eval():
        x = layer(x)
        if x.ndim == 4:
            heights.append(x.shape[-1])
    return heights


def test_maps_shrink_as_in_caffe():
    heights = sizes(networks.Quick(), COLOUR)
    assert sorted(set(heights), reverse=True) == [32, 16, 8, 4]
    assert sorted(set(sizes(networks.NiN(), COLOUR)), reverse=True) == [32, 16, 8, 1]
    assert sorted(set(sizes(networks.AllConv(), COLOUR)), reverse=True) == [32, 16, 8, 6, 1]


@pytest.mark.parametrize(
    ("make", "before"),
    [
        (networks.LeNet, ["relu"]),
        (networks.LeNetAll, ["conv1", "conv2", "relu"]),
        (networks.Quick, ["conv1", "conv2", "conv3", "fc1"]),
        (lambda: networks.Quick(drop_before_pool=False), ["relu1", "pool2", "pool3", "fc1"]),
    ],
)
def test_dropout_sits_where_the_paper_says(make, before):
    names = [name for name, _ in make().named_children()]
    assert [names[names.index(name) - 1] for name in gates.stochastic_layers(make())] == before


def test_allconv_drops_a_fifth_of_its_input():
    assert [layer.p for layer in gates.stochastic_layers(networks.AllConv()).values()] == [0.2, 0.5, 0.5]


def test_quick_s_two_placements_share_their_parameters():
    before, after = networks.Quick(p=0.0), networks.Quick(p=0.0, drop_before_pool=False)
    after.load_state_dict(before.state_dict())
    x = torch.randn(4, *COLOUR)
    torch.testing.assert_close(before.eval()(x), after.eval()(x))


def test_quick_shrinks_with_its_widths():
    small = networks.Quick(widths=(16, 16, 32, 8))
    assert networks.parameter_count(small) == (75 * 16 + 16) + (400 * 16 + 16) + (400 * 32 + 32) + (512 * 8 + 8) + 90


def weights(network):
    return [layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


@pytest.mark.parametrize(("make", "stds"), [(networks.Quick, [1e-4, 0.01, 0.01, 0.1, 0.1]), (networks.NiN, [0.05] * 9)])
def test_initial_weights_have_the_published_spread(make, stds):
    torch.manual_seed(0)
    for weight, std in zip(weights(make()), stds, strict=True):
        assert weight.std().item() == pytest.approx(std, rel=6 / (2 * weight.numel()) ** 0.5)  # six standard errors


@pytest.mark.parametrize("make", [networks.LeNet, networks.LeNetAll, networks.AllConv])
def test_other_initial_weights_follow_xavier(make):
    for weight in weights(make()):
        area = weight[0, 0].numel()
        limit = (6 / (area * (weight.shape[0] + weight.shape[1]))) ** 0.5
        assert 0.9 * limit < weight.abs().max() <= limit


def test_biases_start_at_zero():
    assert all(
        (layer.bias == 0).all() for layer in networks.Quick().modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    )
