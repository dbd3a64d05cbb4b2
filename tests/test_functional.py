"""Dropout that is no layer is found however the code that calls it is written, and in what draws as a layer besides."""

import functools
import random
from functools import partial
from types import MethodType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import functional, gates, predictors

half_dropped = partial(F.dropout, p=0.5)


def plain_decorator(function):
    return lambda *args: function(*args)


def wrapping_decorator(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


def dropping_decorator(function):
    @functools.wraps(function)
    def wrapper(self, x):
        return F.dropout(function(self, x), 0.5, self.training)

    return wrapper


class Base(nn.Module):
    """It has a layer too, so that dropout that is not found goes missing without an error."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        return self.dropped(self.drop(x))


class PlainDecorator(Base):
    @plain_decorator
    def dropped(self, x):
        return F.dropout(x, 0.5, self.training)


class WrappingDecorator(Base):
    @wrapping_decorator
    @wrapping_decorator
    def dropped(self, x):
        return F.dropout(x, 0.5, self.training)


class DroppingDecorator(Base):
    @dropping_decorator
    def dropped(self, x):
        return x


class Autocast(Base):
    @torch.autocast("cpu", torch.bfloat16)
    def dropped(self, x):
        return F.dropout(x, 0.5, self.training)


class NotCompiled(Base):
    @torch.compiler.disable
    def dropped(self, x):
        return F.dropout(x, 0.5, self.training)


class StaticMethod(Base):
    def forward(self, x):
        return self.static(self.drop(x), self.training)

    @staticmethod
    def static(x, training):
        return F.dropout(x, 0.5, training)


class ClassAttribute(Base):
    function = staticmethod(F.dropout)

    def dropped(self, x):
        return self.function(x, 0.5, self.training)


class Property(Base):
    @property
    def rate(self):
        return 0.5 if self.training else 0.0

    def dropped(self, x):
        return F.dropout(x, self.rate)


class GlobalPartial(Base):
    def dropped(self, x):
        return half_dropped(x, training=self.training)


class ImportsAs(Base):
    def dropped(self, x):
        import torch.nn.functional as G

        return G.dropout(x, 0.5, self.training)


class ImportsDotted(Base):
    def dropped(self, x):
        import torch.nn.functional

        return torch.nn.functional.dropout(x, 0.5, self.training)


class ImportsFrom(Base):
    def dropped(self, x):
        from torch.nn.functional import dropout as d
        from torch.nn.functional import relu

        return relu(d(x, 0.5, self.training))


class ImportsForALoop(Base):
    def dropped(self, x):
        from torch.nn import functional as G

        return sum((lambda part: G.dropout(part, 0.5, self.training))(part) for part in (x, -2 * x))


def enclosed():
    import torch.nn.functional as G

    class Enclosed(Base):
        def dropped(self, x):
            return G.dropout(x, 0.5, self.training)

    return Enclosed


FORMS = [
    *(
        PlainDecorator,
        WrappingDecorator,
        DroppingDecorator,
        Autocast,
        NotCompiled,
        StaticMethod,
        ClassAttribute,
        Property,
    ),
    *(GlobalPartial, ImportsAs, ImportsDotted, ImportsFrom, ImportsForALoop, enclosed()),
]


@pytest.mark.parametrize("kind", FORMS, ids=lambda kind: kind.__name__)
def test_dropout_is_found_in_whatever_form_it_is_called(kind):
    """False alarms: none of 1,000 units dropped by a half, 2^-1000."""
    model = kind()
    assert list(gates.stochastic_layers(model)) == ["", "drop"]
    with gates.sampling(model):
        assert (model(torch.ones(1000)) == 0).float().mean() > 0.2


class ImportsAndHasALayerOfThatName(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        import torch.nn.functional as G

        return self.dropout(G.relu(x)) if self.training else x


def test_code_that_imports_another_function_of_that_module_drops_nothing():
    assert not functional.drops_in_forward(ImportsAndHasALayerOfThatName())


class KeepsAFunction(Base):
    def __init__(self):
        super().__init__()
        self.half = partial(F.dropout, p=0.5)

    def dropped(self, x):
        return self.half(x, training=self.training)


def dropped_where_it_was_put(self, x):
    return F.dropout(x, 0.5, self.training)


def with_a_forward_of_its_own():
    model = nn.Sequential(nn.Identity())
    model[0].forward = MethodType(dropped_where_it_was_put, model[0])
    return model


@pytest.mark.parametrize(("model", "name"), [(KeepsAFunction(), ""), (with_a_forward_of_its_own(), "0")])
def test_dropout_is_found_in_what_an_object_keeps_itself(model, name):
    assert name in gates.stochastic_layers(model)
    with gates.sampling(model):
        assert (model(torch.ones(1000)) == 0).float().mean() > 0.2


NOISES = {
    "normal_": lambda x: x + x.new(x.size()).normal_(),
    "torch.normal": lambda x: x + torch.normal(torch.zeros_like(x), 1.0),
    "uniform_": lambda x: x * (torch.empty_like(x).uniform_() > 0.5),
    "randint": lambda x: x * torch.randint(2, x.shape),
    "a distribution": lambda x: x * torch.distributions.Bernoulli(torch.full_like(x, 0.5)).sample(),
    "Python's": lambda x: x * (random.random() < 0.5),
    "NumPy's": lambda x: x * (np.random.rand() < 0.5),
    "NumPy's binomial": lambda x: x * np.random.binomial(1, 0.5),
    "a generator of NumPy's": lambda x: x * int(GENERATOR.binomial(1, 0.5)),
    "geometric_": lambda x: x * torch.empty_like(x).geometric_(0.5),
    "log_normal_": lambda x: x * torch.empty_like(x).log_normal_(),
    "randperm": lambda x: x * torch.randperm(4),
    "poisson": lambda x: torch.poisson(x),
    "gumbel_softmax": lambda x: F.gumbel_softmax(x),
    "dropout_": lambda x: torch.dropout_(x.clone(), 0.5, True),
}
GENERATOR = np.random.default_rng(0)


class Noisy(nn.Module):
    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def forward(self, x):
        return self.noise(x) if self.training else x


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_random_numbers_are_found_wherever_they_come_from(noise):
    model = nn.Sequential(Noisy(noise))
    assert list(gates.stochastic_layers(model)) == ["0"]
    with gates.sampling(model):
        passes = [model(torch.ones(4)) for _ in range(60)]
    assert any(not torch.equal(passes[0], other) for other in passes)


class DrawsItsFirstWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.apply(self._init_weights)

    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(0, 0.02)

    def forward(self, x):
        return (self.linear(x), x) if self.training else self.linear(x)


def test_first_weights_are_no_dropout():
    assert not gates.stochastic_layers(DrawsItsFirstWeights())


class MixesItsInputsInALoop(nn.Module):
    """In training mode it returns more than logits, as a network with an auxiliary loss does."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 3))

    def training_step(self, batch):
        x, y = batch
        share = torch.rand(())
        return F.cross_entropy(self(share * x + (1 - share) * x.flip(0))[0], y)

    def load_checkpoint(self, path):
        self.load_state_dict(torch.load(path, weights_only=True))

    def forward(self, x):
        return (self.layers(x), x) if self.training else self.layers(x)


def test_what_a_loop_calls_is_no_dropout():
    model, x = MixesItsInputsInALoop(), torch.randn(4, 3)
    assert list(gates.stochastic_layers(model)) == ["layers.2"]
    assert not gates.recomputes(model)  # it only loads what it calls a checkpoint
    exact = predictors.exact(model, x)
    torch.testing.assert_close(predictors.monte_carlo(model, x, 20_000, seed=0), exact, atol=0.01, rtol=0)


class CallsWhatIsNamedAsIfApart(nn.Module):
    def __init__(self):
        super().__init__()
        self.initial_block, self.c = nn.Linear(3, 4), nn.Linear(4, 3)

    def reset_gate(self, h):
        return self.save_some(h)

    def save_some(self, h):
        return F.dropout(h, 0.5, self.training)

    def reset_parameters(self):
        self.c.weight.data.normal_()

    def forward(self, x):
        return self.c(self.reset_gate(self.initial_block(x)))


def test_what_a_forward_calls_is_read_whatever_its_name():
    assert list(gates.stochastic_layers(CallsWhatIsNamedAsIfApart())) == [""]


class WantsToBeSetUp:
    def __getattr__(self, name):
        raise RuntimeError(f"set me up before {name} is read")


CONFIGURATION, METHOD = WantsToBeSetUp(), "sample"


class NamesThings(nn.Module):
    """In training mode it returns more than logits."""

    def __init__(self):
        super().__init__()
        self.layers, self.method = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 3)), METHOD

    def rate(self):
        return CONFIGURATION.rate

    def forward(self, x):
        return (self.layers(x), METHOD) if self.training else self.layers(x)


def test_no_object_that_code_names_ends_the_reading_of_it_and_no_text_is_a_name():
    assert list(gates.stochastic_layers(NamesThings())) == ["layers.0"]


class AttentionOfItsOwn(nn.MultiheadAttention):
    """Keeps a layer where PyTorch's attention keeps a rate."""

    def __init__(self):
        super().__init__(4, 1, batch_first=True)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        return self.out_proj(self.dropout((q @ k.mT).softmax(-1)) @ v)


def test_a_layer_in_the_place_of_a_rate_is_a_layer():
    model = nn.Sequential(AttentionOfItsOwn(), nn.Linear(4, 3))
    assert gates.rates(model) == {"0.dropout": 0.5}
    assert not gates.stochastic_layers(gates.remove(model))


def test_a_function_that_forward_calls_may_be_written_anew():
    """As in a notebook, whose cells are edited and run again."""
    cell = {"nn": nn, "F": F, "__name__": "cell"}
    exec("def drop(x, training): return x", cell)
    exec("class Net(nn.Module):\n  def forward(self, x): return drop(x, self.training)", cell)
    model = cell["Net"]()
    assert not gates.stochastic_layers(model)
    exec("def drop(x, training): return F.dropout(x, 0.5, training)", cell)
    assert gates.stochastic_layers(model) == {"": model}


def test_a_function_may_be_read_before_what_it_encloses_is_there():
    def early(self):
        return late(self.training)

    assert functional.reached([early]) == {early, "training"}
    late = bool


# Layers that drop and have code of their own


class DropsItsInput(nn.LSTM):
    def forward(self, x):
        return super().forward(F.dropout(x, 0.5, self.training))[0]


class DropsItsOutput(nn.MultiheadAttention):
    def forward(self, x):
        return F.dropout(super().forward(x, x, x)[0], 0.5, self.training)


@pytest.mark.parametrize("layer", [DropsItsInput(4, 4), DropsItsOutput(4, 2)], ids=["LSTM", "attention"])
def test_a_layer_that_draws_nothing_itself_may_be_called_with_dropout(layer):
    model, x = nn.Sequential(layer), torch.randn(5, 3, 4)
    assert gates.stochastic_layers(model) == {"0": layer}
    assert not gates.rate_is_known(layer)
    with gates.sampling(model), torch.no_grad():
        assert not torch.equal(model(x), model(x))


def test_the_rate_of_such_a_layer_itself_is_known_while_it_is_above_zero():
    layer = DropsItsInput(4, 4, num_layers=2, dropout=0.5)
    assert gates.rate_is_known(layer)
    gates.remove(layer)
    assert gates.stochastic_layers(layer) and not gates.rate_is_known(layer)


class WithItsOwnRate(nn.Dropout):
    def forward(self, x):
        return F.dropout(x, self.p, self.training)


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_the_rate_of_a_dropout_layer_is_that_of_its_own_code(p):
    assert len(gates.stochastic_layers(WithItsOwnRate(p))) == (p > 0)
    assert gates.rate_is_known(WithItsOwnRate(p)) == (p > 0)


# Dropout layers that are always on


class AlwaysOn(nn.Dropout):
    """As recipes for Monte Carlo dropout have it."""

    def forward(self, x):
        return F.dropout(x, self.p, True, self.inplace)


class AlwaysOnAndDoubled(nn.Dropout2d):
    def forward(self, input):
        return 2 * F.dropout2d(input, self.p, training=True)


class NotInverted(nn.Dropout):
    """The dropout of 2014: it scales in eval mode, where its rate matters."""

    def forward(self, x):
        return x * (torch.rand_like(x) >= self.p) if self.training else x * (1 - self.p)


@pytest.mark.parametrize(
    ("layer", "factor"),
    [(AlwaysOn(0.4), 1), (AlwaysOn(0.4, inplace=True), 1), (AlwaysOnAndDoubled(0.4), 2), (NotInverted(0.4), 0.6)],
)
def test_a_deterministic_pass_is_deterministic(layer, factor):
    """False alarms: 1,000 units twice the same, 0.6^1000."""
    model, x = nn.Sequential(layer, nn.Flatten()), torch.ones(100, 10, 1, 1)
    drawn = lambda: (model(x.clone()) == 0).any()
    for _ in range(2):
        with gates.deterministic(model), gates.deterministic(model):
            torch.testing.assert_close(model(x.clone()), factor * x.flatten(1))
            assert gates.rates(model) == {"0": 0.4}
            with gates.sampling(model):
                assert drawn()
            assert not drawn()
        with gates.sampling(model):
            assert drawn()
        assert layer.p == 0.4 and "forward" not in vars(layer)


def test_standard_reaches_dropout_that_is_always_on_in_a_compiled_network():
    model, x = nn.Sequential(nn.Linear(6, 8), AlwaysOn(0.5), nn.Linear(8, 3)).eval(), torch.randn(5, 6)
    expected = model[2](model[0](x)).softmax(-1)
    compiled = torch.compile(model, backend="eager")
    compiled(x)
    torch.testing.assert_close(predictors.standard(compiled, x), expected)


# Dropout layers with gates of another kind


class Gaussian(nn.Dropout):
    def forward(self, x):
        return x * (1 + torch.randn_like(x) * (self.p / (1 - self.p)) ** 0.5) if self.training else x


class SharedOverTime(nn.Dropout1d):
    def forward(self, x):
        return x * F.dropout(torch.ones_like(x[:, :1]), self.p, self.training)


@pytest.mark.parametrize("layer", [Gaussian(0.5), SharedOverTime(0.5), AlwaysOn(0.5)])
def test_gates_of_another_kind_than_those_of_a_layer_s_parent_are_not_taken_for_them(layer):
    """`exact` and `fast_dropout` used to return the answer for nn.Dropout."""
    model, x = nn.Sequential(nn.Linear(3, 2), layer, nn.ReLU(), nn.Linear(2, 3)), torch.randn(4, 3)
    why = rf"{type(layer).__name__}.*inherit forward.*monte_carlo"
    for predict in (predictors.exact, predictors.fast_dropout):
        with pytest.raises(TypeError, match=why):
            predict(model, x)
    with pytest.raises(TypeError, match=why), gates.fixed(model, {"1": torch.ones(2)}):
        pass


class Leaky(nn.ReLU):
    def forward(self, x):
        return F.leaky_relu(x, 0.5)


def test_fast_dropout_takes_no_activation_for_its_parent():
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5), Leaky(), nn.Linear(2, 3))
    with pytest.raises(TypeError, match=r"Leaky.*inherit forward"):
        predictors.fast_dropout(model, torch.randn(4, 3))


def test_a_forward_that_was_put_in_the_place_of_a_layer_s_own_is_what_counts():
    """`exact`, `fast_dropout` and `shared_masks` refuse it, and Monte Carlo draws what it draws."""
    model, x = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5), nn.Linear(2, 3)), torch.randn(4, 3)
    model[1].forward = lambda x: F.dropout(x, 0.05, model[1].training)
    for predict in (predictors.exact, predictors.fast_dropout, partial(predictors.monte_carlo, shared_masks=True)):
        with pytest.raises(TypeError, match="Dropout"):
            predict(model, x)
    meant = nn.Sequential(model[0], nn.Dropout(0.05), model[2])
    torch.testing.assert_close(
        predictors.monte_carlo(model, x, 5000, seed=0), predictors.exact(meant, x), atol=0.01, rtol=0
    )
