"""Narrower students inherit from their teacher what they should, and costs are counted as by hand."""

import pytest
import torch
from torch import nn

from helpers import compression, gates, networks, predictors, sparse

X = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    return networks.LeNetAll(widths=(4, 6, 10))


def test_a_student_of_the_teacher_s_size_is_the_teacher(teacher):
    for shrink in (compression.restarted, compression.thinned):
        student = shrink(networks.LeNetAll(widths=(4, 6, 10)), teacher)
        assert torch.equal(predictors.standard(student, X), predictors.standard(teacher, X))
        assert not gates.stochastic_layers(student)
        assert not student.training


def test_layers_of_another_shape_are_restarted_and_the_others_copied(teacher):
    torch.manual_seed(1)
    student = compression.restarted(networks.LeNetAll(widths=(4, 6, 5)), teacher)
    for name in ("conv1", "conv2"):
        assert torch.equal(student.get_submodule(name).weight, teacher.get_submodule(name).weight)
    for layer in (student.fc1, student.fc2):
        assert (layer.bias == 0).all()
    # 480 draws from N(0, 0.01²): their standard deviation is 0.01 (1 ± 1/sqrt(960)); false alarm beyond 5 σ, 6e-7.
    assert abs(student.fc1.weight.std().item() / 0.01 - 1) < 5 / 960**0.5


def test_thinning_drops_units_and_changes_nothing_else(teacher):
    """Where the units that go are silent (no bias, no weights in or out), the thinned network is the same function."""
    torch.manual_seed(2)
    silent = {"conv1": [1], "conv2": [0, 3], "fc1": [2, 5, 9]}
    next_columns = {"conv1": ("conv2", 1), "conv2": ("fc1", 16), "fc1": ("fc2", 1)}
    with torch.no_grad():
        for name, units in silent.items():
            following, features = next_columns[name]
            for unit in units:
                teacher.get_submodule(name).weight[unit] = 0
                teacher.get_submodule(name).bias[unit] = 0
                teacher.get_submodule(following).weight[:, unit * features : (unit + 1) * features] = 0
    kept = iter(
        [
            torch.tensor([i for i in range(n) if i not in units])
            for n, units in zip((4, 6, 10), silent.values(), strict=True)
        ]
    )
    with pytest.MonkeyPatch.context() as patch:
        draw = torch.randperm
        patch.setattr(torch, "randperm", lambda n: next(kept, draw(n)))
        student = compression.thinned(networks.LeNetAll(widths=(3, 4, 7)), teacher)
    torch.testing.assert_close(predictors.standard(student, X), predictors.standard(teacher, X))


def test_the_units_that_remain_are_drawn_at_random_each_with_the_same_chance(teacher):
    """Each of 4 filters stays in 3 of 4 draws. False alarm beyond 5 σ in one of four: 2e-6."""
    torch.manual_seed(3)
    n, stays = 400, torch.zeros(4)
    for _ in range(n):
        student = compression.thinned(networks.LeNetAll(widths=(3, 6, 10)), teacher)
        same = (student.conv1.weight.flatten(1)[:, None] == teacher.conv1.weight.flatten(1)[None]).all(-1)  # [3, 4]
        assert (same.sum(1) == 1).all()
        stays += same.sum(0)
    assert (stays / n - 0.75).abs().max() < 5 * (0.75 * 0.25 / n) ** 0.5


def without_biases(units, leading=()):
    return nn.Sequential(*leading, nn.Linear(3, units, bias=False), nn.ReLU(), nn.Linear(units, 2, bias=False))


def test_layers_without_biases_are_made_narrower_too():
    torch.manual_seed(4)
    teacher, x = without_biases(6), torch.randn(5, 3)
    with torch.no_grad():
        for layer, direction in ((teacher[0], 0), (teacher[2], 1)):
            layer.weight.copy_(layer.weight.select(direction, 0).unsqueeze(direction).expand_as(layer.weight))
    third = compression.thinned(without_biases(2), teacher)  # two of six units that do the same
    torch.testing.assert_close(3 * third(x), teacher(x))
    assert 0 < compression.restarted(without_biases(2), teacher)[0].weight.abs().max() < 0.06
    assert torch.equal(compression.restarted(without_biases(6), teacher)(x), teacher(x))


@pytest.mark.parametrize("shrink", [compression.restarted, compression.thinned])
def test_what_would_be_forgotten_or_missing_is_refused(shrink):
    with pytest.raises(ValueError, match=r"'0' is a BatchNorm1d.*Fold BatchNorm into the layer before it"):
        shrink(without_biases(2, [nn.BatchNorm1d(3)]), without_biases(6, [nn.BatchNorm1d(3)]))
    with_biases = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="are not those of the teacher"):
        shrink(with_biases, without_biases(6))


def test_multiply_adds_of_lenet_by_hand():
    by_hand = 24 * 24 * 20 * 25 + 8 * 8 * 50 * 20 * 25 + 800 * 500 + 500 * 10
    assert compression.multiply_adds(networks.LeNet(), X) == by_hand


def test_networks_with_other_layers_do_not_pair(teacher):
    with pytest.raises(ValueError, match="are not those of the teacher"):
        compression.restarted(nn.Sequential(nn.Linear(2, 2)), teacher)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 1), "made narrower"),
        (nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(3, 4, 3), "made narrower"),
        (nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(8, 8, 3, groups=8), "grouped convolution"),
    ],
)
@pytest.mark.parametrize("shrink", [compression.restarted, compression.thinned])
def test_what_differs_in_more_than_widths_is_refused(student, teacher, message, shrink):
    with pytest.raises(ValueError, match=message):
        shrink(nn.Sequential(student), nn.Sequential(teacher))


@pytest.mark.parametrize("teacher", [nn.Linear(4, 1), nn.Linear(4, 3)])
def test_a_student_that_is_wider_cannot_be_cut_out_of_its_teacher(teacher):
    with pytest.raises(ValueError, match="is no narrower"):
        compression.thinned(nn.Sequential(nn.Linear(4, 5)), nn.Sequential(teacher))


class Branches(nn.Module):
    def __init__(self, units):
        super().__init__()
        self.left, self.right, self.last = nn.Linear(6, units), nn.Linear(6, units), nn.Linear(units, 3)

    def forward(self, x):
        return self.last(self.left(x) + self.right(x))


def test_a_network_whose_layers_are_no_chain_is_refused_where_it_shows():
    with pytest.raises(ValueError, match="does not take the 8 units of the layer before it"):
        compression.thinned(Branches(4), Branches(8))


def test_multiply_adds_of_attention_and_recurrent_layers_by_hand():
    n, d, f = 7, 16, 32  # positions, width, hidden units
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(d, 2, f, batch_first=True), 1, enable_nested_tensor=False
    )
    attention = n * (3 * d * d + d * d) + 2 * n * n * d  # projections in and out; scores and weighted sums
    assert compression.multiply_adds(encoder, torch.randn(1, n, d)) == attention + n * 2 * d * f

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(d, f, num_layers=2, batch_first=True)

        def forward(self, x):
            return self.lstm(x)[0][:, -1]

    by_hand = n * 4 * f * (d + f) + n * 4 * f * (f + f)
    assert compression.multiply_adds(Recurrent(), torch.randn(1, n, d)) == by_hand
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("count", [compression.multiply_adds, sparse.multiply_adds])
def test_what_is_no_classifier_has_its_price_too(count):
    """A regression has one output, and a network of images classes in another dimension."""
    assert count(nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 1)), torch.randn(3, 4)) == 25
    assert count(nn.Sequential(nn.Conv2d(2, 3, 1)), torch.randn(3, 2, 4, 4)) == 6 * 16


@pytest.mark.parametrize("count", [compression.multiply_adds, sparse.multiply_adds])
def test_counting_leaves_the_examples_alone(count):
    x = torch.randn(3, 4)
    before = x.clone()
    assert count(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 5)), x) == 20
    assert torch.equal(x, before)


@pytest.mark.parametrize("count", [compression.multiply_adds, sparse.multiply_adds])
def test_a_compiled_network_costs_what_it_cost_before(count):
    x, network = torch.randn(3, 4), nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    compiled = torch.compile(network, backend="eager")
    compiled(x)
    assert count(compiled, x) == count(network, x) == 30
