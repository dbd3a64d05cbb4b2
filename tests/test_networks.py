"""The five networks have the sizes, layers and initial weights that the design gives them."""

from math import comb

import pytest
import torch
from torch import nn

from helpers import gates, networks

GREY, COLOUR = (1, 28, 28), (3, 32, 32)


EVERY = pytest.mark.parametrize(
    "make", [networks.LeNet, networks.LeNetAll, networks.Quick, networks.NiN, networks.AllConv]
)


@pytest.mark.parametrize(
    ("make", "shape", "count"),
    [
        (networks.LeNet, GREY, 431_080),
        (networks.LeNetAll, GREY, 431_080),
        (networks.Quick, COLOUR, 145_578),
        (networks.NiN, COLOUR, 966_986),
        (networks.AllConv, COLOUR, 1_369_738),
    ],
)
def test_parameter_counts_and_logits(make, shape, count):
    network = make().eval()
    assert networks.parameter_count(network) == count
    assert network(torch.zeros(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize(
    ("make", "features", "count"),
    [(networks.Quick, 64, 145_578), (networks.NiN, 192, 966_986), (networks.AllConv, 192, 1_369_738)],
)
def test_ninety_classes_more_are_as_many_rows_more_of_the_last_layer(make, features, count):
    network = make(classes=100).eval()
    assert networks.parameter_count(network) == count + 90 * (features + 1)
    assert network(torch.zeros(2, *COLOUR)).shape == (2, 100)


def maps(network, shape):
    """Channels and height of what each convolution and each pooling returns, and the features that are left flat."""
    sizes, x = [], torch.zeros(1, *shape)
    for layer in network.eval():
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | nn.Flatten):
            sizes.append(tuple(x.shape[1:3]))
    return sizes


LENET = [(20, 24), (20, 12), (50, 8), (50, 4), (800,)]
QUICK = [(32, 32), (32, 16), (32, 16), (32, 8), (64, 8), (64, 4), (1024,)]


@pytest.mark.parametrize(
    ("network", "shape", "expected"),
    [
        (networks.LeNet(), GREY, LENET),
        (networks.LeNetAll(), GREY, LENET),
        (networks.LeNetAll(drop_before_pool=False), GREY, LENET),
        (networks.Quick(), COLOUR, QUICK),
        (networks.Quick(drop_before_pool=False), COLOUR, QUICK),
        (
            networks.NiN(),
            COLOUR,
            [
                *((192, 32), (160, 32), (96, 32), (96, 16)),
                *((192, 16), (192, 16), (192, 16), (192, 8)),
                *((192, 8), (192, 8), (10, 8), (10,)),
            ],
        ),
        (
            networks.AllConv(),
            COLOUR,
            [
                *((96, 32), (96, 32), (96, 16)),
                *((192, 16), (192, 16), (192, 8)),
                *((192, 6), (192, 6), (10, 6), (10,)),
            ],
        ),
    ],
    ids=["LeNet", "LeNetAll", "LeNetAll, after pooling", "Quick", "Quick, after pooling", "NiN", "AllConv"],
)
def test_maps_shrink_as_in_caffe(network, shape, expected):
    assert maps(network, shape) == expected


@pytest.mark.parametrize(
    ("make", "before"),
    [
        (networks.LeNet, ["relu"]),
        (networks.LeNetAll, ["conv1", "conv2", "relu"]),
        (lambda: networks.LeNetAll(drop_before_pool=False), ["pool1", "pool2", "relu"]),
        (networks.Quick, ["conv1", "conv2", "conv3", "fc1"]),
        (lambda: networks.Quick(drop_before_pool=False), ["relu1", "pool2", "pool3", "fc1"]),
    ],
)
def test_dropout_sits_where_the_paper_says(make, before):
    names = [name for name, _ in make().named_children()]
    assert [names[names.index(name) - 1] for name in gates.stochastic_layers(make())] == before


CONV = ["Conv2d", "ReLU"]
GLOBAL = ["AdaptiveAvgPool2d", "Flatten"]


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (networks.NiN(), [*CONV * 3, "MaxPool2d", "Dropout", *CONV * 3, "AvgPool2d", "Dropout", *CONV * 3, *GLOBAL]),
        (networks.AllConv(), ["Dropout", *CONV * 3, "Dropout", *CONV * 3, "Dropout", *CONV * 3, *GLOBAL]),
    ],
    ids=["NiN", "AllConv"],
)
def test_networks_of_convolutions_have_these_layers(network, expected):
    assert [type(layer).__name__ for layer in network] == expected


@pytest.mark.parametrize(
    ("network", "rates"),
    [
        (networks.LeNet(0.3), [0.3]),
        (networks.LeNetAll(0.3), [0.3] * 3),
        (networks.Quick(0.3), [0.3] * 4),
        (networks.NiN(0.3), [0.3] * 2),
        (networks.AllConv(), [0.2, 0.5, 0.5]),
        (networks.AllConv(0.3, p_input=0.1), [0.1, 0.3, 0.3]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_rates_are_those_asked_for(network, rates):
    assert list(gates.rates(network).values()) == rates


PLACED = pytest.mark.parametrize(("make", "shape"), [(networks.LeNetAll, GREY), (networks.Quick, COLOUR)])


@PLACED
def test_two_placements_start_from_the_same_parameters(make, shape):
    states = []
    for drop_before_pool in (True, False):
        torch.manual_seed(0)
        states.append(make(drop_before_pool=drop_before_pool).state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def mean_of_largest(n, p):
    """E of the largest of n uniform units that are each dropped at rate p and rescaled."""
    return sum(comb(n, k) * (1 - p) ** k * p ** (n - k) * k / (k + 1) for k in range(n + 1)) / (1 - p)


@pytest.mark.parametrize(("drop_before_pool", "p_pooled"), [(True, 0.5), (False, 0.0)])
def test_dropping_before_max_pooling_raises_its_mean_and_dropping_after_does_not(drop_before_pool, p_pooled):
    """False alarms: 0.03 is more than 6 standard errors, with 46,080 pooled values that vary by less than their mean."""
    torch.manual_seed(0)
    network = networks.Quick(0.5, drop_before_pool=drop_before_pool)
    block = nn.Sequential(*list(network)[1:4]).train()  # all that follows the first convolution
    mean = block(torch.rand(20, 9, 32, 32)).mean().item()
    windows = {9: 15 * 15, 6: 2 * 15, 4: 1}  # 3 x 3 and, on two sides, what is left of it
    expected = sum(count * mean_of_largest(n, p_pooled) for n, count in windows.items()) / 16**2
    assert mean == pytest.approx(expected, abs=0.03)


@EVERY
def test_a_slice_of_a_network_is_its_layers(make):
    network = make()
    assert list(network[:3]) == list(network)[:3]


@PLACED
def test_two_placements_share_their_parameters(make, shape):
    before, after = make(p=0.0), make(p=0.0, drop_before_pool=False)
    after.load_state_dict(before.state_dict())
    x = torch.randn(4, *shape)
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
    """Uniform up to a limit. The standard deviation of n squares is 0.45 of their mean over √n; six of that are allowed."""
    torch.manual_seed(0)
    for weight in weights(make()):
        area = weight[0, 0].numel()
        limit = (6 / (area * (weight.shape[0] + weight.shape[1]))) ** 0.5
        assert 0.9 * limit < weight.abs().max() <= limit
        assert weight.std().item() == pytest.approx(limit / 3**0.5, rel=6 * 0.45 / weight.numel() ** 0.5)


@EVERY
def test_biases_start_at_zero(make):
    assert not any(parameter.any() for name, parameter in make().named_parameters() if name.endswith("bias"))


@EVERY
def test_convolutions_are_laid_out_channels_last(make):
    assert all(
        weight.is_contiguous(memory_format=torch.channels_last) for weight in weights(make()) if weight.ndim == 4
    )


@EVERY
def test_a_seed_repeats_the_initial_weights(make):
    torch.manual_seed(1)
    first = weights(make())
    other = weights(make())
    torch.manual_seed(1)
    again = weights(make())
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))
