"""A thinned network is the network under a mask, and sharing masks changes what the docstring says and nothing else."""

import math

import pytest
import torch
from torch import nn

from helpers import gates, predictors, thinned
from helpers.dropconnect import DropConnect
from tests.test_prefix import mobilenet

K = 3
ROWS = 500


def perceptron(p=0.3, second=0.5, seed=1):
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(p), nn.Linear(5, 4), nn.GELU(), nn.Dropout(second), nn.Linear(4, K))
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.eval()


# From the first gate on; inputs have six units.
TAILS = {
    "one gate": [nn.Dropout(0.5), nn.Linear(6, K)],
    "without bias": [
        nn.Dropout(0.5),
        nn.Linear(6, 8, bias=False),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(8, K, bias=False),
    ],
    "in place": [nn.Dropout(0.5, True), nn.Linear(6, 8), nn.ReLU(True), nn.Dropout(0.2, True), nn.Linear(8, K)],
    "no gate between": [nn.Dropout(0.5), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.Dropout(0.1), nn.Linear(7, K)],
    "gates before and after an activation": [
        *(nn.Dropout(0.5), nn.Linear(6, 8), nn.Dropout(0.2), nn.SiLU(), nn.Dropout(0.3), nn.Linear(8, K))
    ],
    "two gates first": [nn.Dropout(0.5), nn.Dropout(0.4), nn.Linear(6, K)],
    "all dropped": [nn.Dropout(1.0), nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, K)],
    "a rate of zero": [nn.Dropout(0.5), nn.Linear(6, 8), nn.Dropout(0.0), nn.Linear(8, K)],
}


class Kept:
    """In place of `thinned.kept`: the same, and it remembers."""

    def __init__(self):
        self.rows = []

    def __call__(self, n, p, device):
        self.rows.append((n, (torch.rand(n) >= p).nonzero().squeeze(1)))
        return self.rows[-1][1]


@pytest.mark.parametrize("name", ["one gate", "without bias", "in place", "no gate between", "all dropped"])
def test_a_thinned_network_is_the_network_under_its_mask(name, monkeypatch):
    torch.manual_seed(0)
    layers, x, kept = TAILS[name], torch.randn(7, 6), Kept()
    monkeypatch.setattr(thinned, "kept", kept)
    passes = thinned.passes(layers, x)
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for _ in range(20):
            kept.rows.clear()
            found = next(passes)
            masks = [torch.zeros(n).index_fill(0, rows, 1.0) for n, rows in kept.rows]
            with gates.fixed(model, dict(zip(gates.stochastic_layers(model), masks, strict=True))):
                torch.testing.assert_close(found, model(x.clone()), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in TAILS if name != "all dropped"])
def test_the_mean_over_shared_masks_is_the_ideal(name):
    """In standard errors of the mean of m masks. False alarms: 21 comparisons of 6 in each of 7 cases, 3e-7."""
    torch.manual_seed(0)
    model, x, m = nn.Sequential(*TAILS[name]).eval(), torch.randn(7, 6), 4000
    with gates.sampling(model), torch.no_grad():
        f = model(x.repeat(m, 1)).softmax(-1).view(m, 7, -1)
    found = predictors.monte_carlo(model, x, m, seed=0, shared_masks=True)
    assert ((found - f.mean(0)).abs() <= 6 * (2 * f.var(0) / m).sqrt() + 1e-6).all()


def test_it_is_the_ideal_of_an_enumeration():
    """False alarms: 24 comparisons of 6 standard errors, 5e-8. A rate that is off by 0.1 is seen."""
    model, x, m = perceptron(), torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), 8000
    exact = predictors.exact(model, x)
    with gates.sampling(model), torch.no_grad():
        spread = model(x.repeat(2000, 1)).softmax(-1).view(2000, 8, K).std(0)
    z = [
        (predictors.monte_carlo(other, x, m, seed=0, shared_masks=True) - exact) / (spread / math.sqrt(m))
        for other in (model, perceptron(p=0.4))
    ]
    assert z[0].abs().max() < 6
    assert z[1].abs().max() > 8


def test_shared_masks_average_what_output_returns():
    """False alarms: 24 comparisons of 6 standard errors, 5e-8."""
    model, x, m = perceptron(), torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), 8000
    identity = lambda z: z
    with gates.sampling(model), torch.no_grad():
        spread = model(x.repeat(2000, 1)).view(2000, 8, K).std(0)
    found = predictors.monte_carlo(model, x, m, seed=0, output=identity, shared_masks=True)
    assert ((found - predictors.exact(model, x, output=identity)).abs() < 6 * spread / math.sqrt(m)).all()


def test_each_example_has_the_same_distribution_and_errors_are_shared():
    """Errors of many averages of four masks for one example: their mean square is that of four independent masks, within
    6 standard errors (below 1e-7), and two copies of an example in one call err alike, as in plain calls they do not.
    """
    model, x, m = perceptron(), torch.tensor([[0.5, -1.0, 0.3, 0.8]]), 4
    exact = predictors.exact(model, x)[0, 0]
    with gates.sampling(model), torch.no_grad():
        f = model(x.repeat(100_000, 1)).softmax(-1)[:, 0] - exact
    error = torch.stack(
        [predictors.monte_carlo(model, x.repeat(2, 1), m, seed=s, shared_masks=True)[:, 0] - exact for s in range(ROWS)]
    )
    assert torch.equal(error[:, 0], error[:, 1])
    variance, fourth = f.square().mean(), f.pow(4).mean()
    mean_square = variance / m
    spread = ((fourth + 3 * (m - 1) * variance**2) / m**3 - mean_square**2).sqrt()
    assert abs(error[:, 0].square().mean() - mean_square) < 6 * spread / math.sqrt(ROWS)
    assert abs(error[:, 0].mean()) < 6 * (mean_square / ROWS).sqrt()
    apart = predictors.monte_carlo(model, x.repeat(ROWS, 1), m, seed=0)[:, 0] - exact
    assert abs((apart[1:] * apart[:-1]).mean()) < 6 * mean_square / math.sqrt(ROWS)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_all_batches_share_the_masks(batch_size):
    model, x = perceptron(), torch.randn(1, 4).expand(7, 4)
    found = predictors.monte_carlo(model, x, 3, seed=0, shared_masks=True, batch_size=batch_size)
    torch.testing.assert_close(found, found[:1].expand(7, K))
    torch.testing.assert_close(found, predictors.monte_carlo(model, x[:1], 3, seed=0, shared_masks=True).expand(7, K))


def test_a_network_of_others_will_do_if_its_gates_are_in_the_head():
    torch.manual_seed(0)
    model, x, m = mobilenet(), torch.rand(3, 3, 32, 32), 2000
    with gates.sampling(model), torch.no_grad():
        h = model.avgpool(model.features(x)).flatten(1)  # before the first gate
        f = model.classifier(h.repeat(m, 1)).softmax(-1).view(m, 3, K)
    error = (2 * f.var(0) / m).sqrt()  # of the difference of two means over m masks
    found = predictors.monte_carlo(model, x, m, seed=0, shared_masks=True)
    assert ((found - f.mean(0)).abs() < 6 * error).all()
    assert ((predictors.standard(model, x) - f.mean(0)).abs() > 8 * error).any(), "there would be nothing to see"


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop, self.a, self.b = nn.Dropout(0.5), nn.Linear(6, K), nn.Linear(6, K)

    def forward(self, x):
        h = self.drop(x)
        return self.a(h) + self.b(h)


def hooked():
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, K))
    model[2].register_forward_hook(lambda layer, inputs, output: 2 * output)
    return model


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (
            nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.LayerNorm(6), nn.Linear(6, K)),
            (6,),
            "with LayerNorm after",
        ),
        (nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 6), nn.Softmax(-1), nn.Linear(6, K)), (6,), "with Softmax after"),
        (
            nn.Sequential(nn.Conv1d(6, 4, 1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, K)),
            (6, 3),
            "with Flatten after",
        ),
        (nn.Sequential(nn.Linear(6, 6), DropConnect(6, K)), (6,), "with DropConnect after"),
        (nn.Sequential(nn.Dropout(0.5), nn.Linear(6, K)), (2, 6), r"not \[5, 2, 6\]"),
        (TwoHeads(), (6,), "is another"),
        (hooked(), (6,), "a Linear has a hook, or a forward put in place of its own"),
        (nn.Sequential(nn.Dropout(0.5), nn.Sigmoid(), nn.Linear(6, K)), (6,), "Sigmoid makes something of units"),
        (nn.Sequential(nn.Dropout(0.5), nn.Linear(6, K), nn.Dropout(0.5)), (6,), "outputs themselves are dropped"),
    ],
    ids=["LayerNorm", "Softmax", "convolutions", "connections", "not units", "two heads", "hook", "Sigmoid", "outputs"],
)
def test_other_networks_are_refused(model, shape, message):
    with pytest.raises(TypeError, match=message):
        predictors.monte_carlo(model, torch.randn(5, *shape), 3, shared_masks=True)


@pytest.mark.parametrize(
    ("model", "x", "m", "message"),
    [
        (nn.Linear(6, K), torch.randn(2, 6), 3, "no dropout in it"),
        (perceptron(), torch.randn(2, 4), 0, "at least 1, not 0"),
        (perceptron(), torch.full((2, 4), torch.nan), 3, "2 of the 2 inputs hold NaN"),
        (nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 1)), torch.randn(2, 4), 3, "one number per example"),
    ],
)
def test_what_makes_no_sense_is_refused_as_without_sharing(model, x, m, message):
    with pytest.raises(ValueError, match=message):
        predictors.monte_carlo(model, x, m, shared_masks=True)
