"""A network whose dropout would not be sampled is refused, by name, and no other."""

import pytest
import torch
from torch import nn

from helpers import gates, predictors
from helpers.distillation import distill

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 16), nn.Linear(16, 3)
        self.drop, self.drops = nn.Dropout(0.5), nn.ModuleList([nn.Dropout(0.2)])
        self.block = nn.Sequential(nn.Identity(), nn.Dropout(0.3))
        self.side = nn.Sequential(nn.Dropout(0.4), nn.Linear(16, 3))


class Guarded(Network):
    def forward(self, x):
        h = self.drop(self.body(x).relu())
        if self.training:
            h = self.block(self.drops[0](h))
        return self.head(h)


class AllGuarded(Network):
    def forward(self, x):
        h = self.body(x).relu()
        return self.head(self.drop(h) if self.training else h)


class WithASideBranch(Network):
    """As GoogLeNet, with a classifier that exists in training only."""

    def forward(self, x):
        h = self.drop(self.body(x).relu())
        return (self.head(h), self.side(h)) if self.training else self.head(h)


class NeverCalled(Network):
    def forward(self, x):
        return self.head(self.body(x).relu())


@pytest.mark.parametrize(("network", "names"), [(Guarded, ["drops.0", "block.1"]), (AllGuarded, ["drop"])])
@pytest.mark.parametrize("use", [predictors.monte_carlo, predictors.geometric, distill])
def test_dropout_that_is_called_in_training_mode_only_is_refused_by_name(network, names, use):
    model = network()
    with pytest.raises(ValueError, match=r"would not be sampled.*self.training") as error:
        use(model, X)
    assert str(error.value).startswith(str(names))
    assert all(not module._forward_pre_hooks and module.training for module in model.modules())


def test_a_branch_that_exists_in_training_only_is_no_reason_to_refuse():
    torch.manual_seed(0)
    model = WithASideBranch()
    plain = nn.Sequential(model.body, nn.ReLU(), model.drop, model.head)
    assert torch.allclose(predictors.monte_carlo(model, X, 10, seed=0), predictors.monte_carlo(plain, X, 10, seed=0))


class OfOneSize(Network):
    def forward(self, x):
        return self.head(self.drop(self.body(x.reshape(24, 4)).relu()))


def test_a_network_that_takes_batches_of_one_size_only_is_averaged():
    assert predictors.monte_carlo(OfOneSize(), X, 3).shape == (24, 3)


@pytest.mark.parametrize("use", [predictors.monte_carlo, distill])
def test_dropout_that_is_never_called_is_refused(use):
    with pytest.raises(ValueError, match=r"return the same, so there is nothing to average.*'drop'"):
        use(NeverCalled(), X)


def by_hand(x, p, training):
    """As many networks drop whole branches."""
    if not training:
        return x
    keep = 1 - p + torch.rand((len(x),) + (1,) * (x.ndim - 1), dtype=x.dtype, device=x.device)
    return x / (1 - p) * keep.floor_()


class DropPath(nn.Module):
    def forward(self, x):
        return by_hand(x, 0.5, self.training)


class OwnRandomNumbers(nn.Module):
    def forward(self, x):
        return x * (torch.rand_like(x) < 0.5) / 0.5 if self.training else x


class GaussianNoise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x) if self.training else x


@pytest.mark.parametrize("layer", [DropPath, OwnRandomNumbers, GaussianNoise])
def test_dropout_made_by_hand_of_random_numbers_is_averaged(layer):
    """Against the plain loop in training mode. The difference of two means of 4,000 deviates by .011 at most."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), layer(), nn.Linear(16, 3))
    assert list(gates.stochastic_layers(model)) == ["2"]
    with torch.no_grad():
        plain = sum(model(X).softmax(-1) for _ in range(4000)) / 4000
    assert torch.allclose(predictors.monte_carlo(model, X, 4000, seed=0), plain, atol=0.04)
    model.eval()
    assert torch.allclose(predictors.standard(model, X), model(X).softmax(-1), atol=1e-6)


class GuardedByHand(Network):
    """Beside dropout that is always called, as many networks drop branches."""

    def __init__(self):
        super().__init__()
        self.path = DropPath()

    def forward(self, x):
        h = self.drop(self.body(x).relu())
        return self.head(self.path(h) if self.training else h)


def test_a_part_that_drops_by_hand_and_is_called_in_training_only_is_refused_too():
    with pytest.raises(ValueError, match=r"^\['path'\] would not be sampled"):
        predictors.monte_carlo(GuardedByHand(), X)


class DrawsItsWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, x):
        return nn.functional.linear(x, self.weight if self.training else self.weight.detach())


def test_random_numbers_that_set_a_module_up_are_no_dropout():
    assert not gates.stochastic_layers(DrawsItsWeights())


class DropsRarely(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.01, self.training)


def test_dropout_that_hardly_ever_drops_is_not_taken_for_none():
    """False alarm: once in 30,000 times no unit is dropped."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), DropsRarely(), nn.Linear(8, 3))
    assert predictors.monte_carlo(model, X[:1], 2).shape == (1, 3)
