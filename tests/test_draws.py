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


class Switch:
    """No module, so that nobody finds what it draws."""

    def __call__(self, x, on):
        return nn.functional.dropout(x, 0.5, on)


class ToldByItsCaller(nn.Module):
    def forward(self, x, drop):
        return nn.functional.dropout(x, 0.5, drop)


class Hidden(Network):
    """Has one dropout that is found, and one that is not."""

    def __init__(self, hidden):
        super().__init__()
        self.norm, self.hidden = nn.BatchNorm1d(16), hidden

    def forward(self, x):
        h = self.drop(self.norm(self.body(x)).relu())
        if isinstance(self.hidden, torch.jit.ScriptModule | nn.Linear):
            return self.head(self.hidden(h))
        return self.head(self.hidden(h, self.training))


def noise(module, args):
    return (args[0] + torch.randn_like(args[0]),) if module.training else args


def with_a_noisy_hook():
    layer = nn.Linear(16, 16)
    layer.register_forward_pre_hook(noise)
    return layer


HIDDEN = {
    "an object that is no module": (Switch, "Hidden"),
    "told by the caller": (ToldByItsCaller, "'hidden' (ToldByItsCaller)"),
    "scripted": (lambda: torch.jit.script(nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5))), "Hidden"),
    "a hook": (with_a_noisy_hook, "'hidden' (Linear)"),
}


def into_a_line(teacher, x):
    return distill(teacher, x, student=nn.Linear(4, 3))


@pytest.mark.parametrize("use", [predictors.monte_carlo, into_a_line])
@pytest.mark.parametrize("kind", HIDDEN)
def test_dropout_that_is_found_nowhere_is_refused_beside_dropout_that_is(kind, use):
    torch.manual_seed(0)
    hidden, blamed = HIDDEN[kind]
    model = Hidden(hidden())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    buffers = dict(model.named_buffers())
    with pytest.raises(ValueError, match=r"random numbers that would not be sampled") as error:
        use(model, X)
    assert str(error.value).startswith(f"in training mode {blamed} draws")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "statistics moved"
    assert all(buffer is buffers[name] for name, buffer in model.named_buffers())
    assert model.training and model.norm.training


def test_a_layer_that_drew_before_its_noise_was_removed_is_no_reason_to_refuse():
    """PyTorch's RReLU draws in training mode even where all its slopes are the same."""
    model = Hidden(nn.Linear(16, 16))
    model.hidden.register_module("slope", nn.RReLU(0.2, 0.2))
    model.hidden.register_forward_hook(lambda layer, args, out: layer.slope(out))
    assert predictors.monte_carlo(model, X, 2).shape == (24, 3)


class NormalisesAndDrops(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(4))
        self.register_buffer("running_var", torch.ones(4))

    def forward(self, x):
        x = nn.functional.batch_norm(x, self.running_mean, self.running_var, training=self.training)
        return nn.functional.dropout(x, 0.5, self.training)


@pytest.mark.parametrize("use", [predictors.monte_carlo, distill])
def test_a_module_that_drops_and_keeps_statistics_is_refused_and_keeps_them(use):
    model = nn.Sequential(NormalisesAndDrops(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"'0' \(NormalisesAndDrops\) would change its running statistics"):
        use(model, X)
    assert torch.equal(model[0].running_mean, torch.zeros(4)) and torch.equal(model[0].running_var, torch.ones(4))


@pytest.mark.parametrize("use", [predictors.monte_carlo, into_a_line])
def test_a_noisy_hook_is_found_in_a_network_of_pytorch_s_layers_alone(use):
    model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), with_a_noisy_hook(), nn.Linear(16, 3))
    with pytest.raises(
        ValueError, match=r"^in training mode '2' \(Linear\) draws random numbers that would not be sampled"
    ):
        use(model, X)


class Remembers(Network):
    """In training mode it moves a parameter, counts, and keeps what it has computed."""

    def __init__(self):
        super().__init__()
        self.slow, self.steps, self.losses = nn.Linear(4, 16), 0, []
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.slow.weight.data.lerp_(self.body.weight.data, 0.1)
            self.steps += 1
            self.seen += len(x)
            self.losses.append(x.mean().item())
        return self.head(self.drop((self.body(x) + self.slow(x)).relu()))


def test_what_a_network_changes_in_training_mode_it_changes_in_a_copy():
    model = Remembers()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predictors.monte_carlo(model, X, 2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (model.steps, model.losses) == (0, [])


class CannotBeCopied(Network):
    def __deepcopy__(self, memo):
        raise TypeError("it holds an open file")

    def forward(self, x):
        return self.head(self.drop(self.body(x).relu()))


def test_a_network_that_cannot_be_copied_is_averaged_all_the_same():
    assert predictors.monte_carlo(CannotBeCopied(), X, 2).shape == (24, 3)


class LearnsAndDrops(nn.Module):
    """Keeps a mean by another name."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        if self.training:
            self.mean.lerp_(x.mean(0), 0.1)
        return nn.functional.dropout(x - self.mean, 0.5, self.training)


@pytest.mark.parametrize("use", [predictors.monte_carlo, distill])
def test_other_buffers_may_not_move_either(use):
    model = nn.Sequential(LearnsAndDrops(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"'0' \(LearnsAndDrops\) would change its running statistics"):
        use(model, X)
    assert torch.equal(model[0].mean, torch.zeros(4))


def test_hidden_dropout_is_found_from_a_single_example_in_spite_of_batchnorm():
    with pytest.raises(ValueError, match=r"'hidden' \(ToldByItsCaller\) draws"):
        predictors.monte_carlo(Hidden(ToldByItsCaller()), X[:1], 2)


class FrozenPart(Network):
    """Its dropout that nobody finds never draws: the part that holds it stays in eval mode."""

    def __init__(self):
        super().__init__()
        self.hidden = Hidden(ToldByItsCaller())
        self.hidden.drop.p = 0.0

    def train(self, mode=True):
        super().train(mode)
        self.hidden.eval()
        return self

    def forward(self, x):
        return self.head(self.drop(self.body(x).relu())) + self.hidden(x)


def test_a_part_that_train_leaves_in_eval_mode_need_not_be_sampled():
    assert predictors.monte_carlo(FrozenPart(), X, 2).shape == (24, 3)
