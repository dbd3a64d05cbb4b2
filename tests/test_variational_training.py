"""Raising the evidence lower bound: what is raised, what it finds, and that an interrupted run goes on to the same end."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import elbo, predictors, variational
from tests.conftest import compiler

N, D, K = 400, 10, 3
RELEVANT = 3  # features, of D


def examples(seed=0):
    """Classes that depend on the first few of the features alone."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, D, generator=generator)
    return x, (x[:, :RELEVANT] * 3).argmax(-1)


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return variational.variational(nn.Linear(D, K))


def test_the_weight_of_the_divergence_is_zero_then_rises_to_one():
    weights = [elbo.kl_weight(epoch, (5, 20)) for epoch in range(25)]
    assert weights[:5] == [0.0] * 5
    assert weights[5:20] == pytest.approx([i / 15 for i in range(1, 16)])
    assert weights[20:] == [1.0] * 5
    assert elbo.kl_weight(0, (0, 1)) == elbo.kl_weight(0, (0, 0)) == 1.0


def test_the_bound_is_the_expected_log_likelihood_less_the_divergence():
    """Against sampled weights, that all examples share. False alarms: 2e-9, two means six standard errors apart."""
    model, (x, y) = network(), examples()
    torch.manual_seed(0)
    with torch.no_grad():
        model.log_sigma2.fill_(-8.0)  # where the divergence is hundreds of standard errors
        w = model.weight + model.sigma2.sqrt() * torch.randn(2000, K, D)
        z = torch.einsum("mkd,nd->mnk", w, x) + model.bias
    log_likelihood = z.log_softmax(-1)[:, torch.arange(N), y].sum(1)
    found = torch.tensor([elbo.bound(model, x, y, seed=seed) for seed in range(200)])
    error = (found.var() / 200 + log_likelihood.var() / 2000).sqrt()
    divergence = variational.kl(model.log_alpha).sum()
    assert divergence > 100 * error
    assert abs(found.mean() - (log_likelihood.mean() - divergence)) < 6 * error


@pytest.mark.parametrize("mode", [True, False])
def test_the_bound_leaves_modes_as_they_were(mode):
    model = network().train(mode)
    elbo.bound(model, *examples())
    assert model.training == mode


@pytest.mark.parametrize(("warm_up", "beta"), [((5, 6), 0.0), ((0, 2), 0.5), ((0, 1), 1.0)])
def test_the_gradient_over_an_epoch_is_that_of_the_bound(warm_up, beta, monkeypatch):
    """What is descended is the bound of the data set over -N, in four mini-batches: seen with the noise held at one."""
    model, (x, y) = network(), examples()
    with torch.no_grad():
        model.log_sigma2.fill_(-3.0)
    monkeypatch.setattr(torch, "randn", torch.ones)
    seen = []

    class Spy(torch.optim.SGD):
        def __init__(self, parameters, lr, fused):
            super().__init__(parameters, lr=lr)

        def step(self):
            seen.append([p.grad.clone() for group in self.param_groups for p in group["params"]])

    monkeypatch.setattr(torch.optim, "Adam", Spy)
    elbo.maximise(model, x, y, epochs=1, batch_size=N // 4, warm_up=warm_up, progress=False)
    z = F.linear(x, model.weight, model.bias) + (x.square() @ model.log_sigma2.exp().T + 1e-8).sqrt()
    loss = F.cross_entropy(z, y) + beta * variational.kl(model.log_alpha).sum() / N
    expected = torch.autograd.grad(loss, list(model.parameters()))
    assert len(seen) == 4
    for found, gradient in zip(zip(*seen, strict=True), expected, strict=True):
        torch.testing.assert_close(torch.stack(found).mean(0), gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("seed", range(2))
def test_what_does_not_matter_is_removed_and_what_matters_stays(seed):
    model, (x, y) = network(seed), examples(seed)
    before = elbo.bound(model, x, y)
    elbo.maximise(model, x, y, epochs=250, lr=0.03, seed=seed, progress=False)
    assert elbo.bound(model, x, y) > before
    mask = variational.kept(model)[""]
    assert mask[:, :RELEVANT].double().mean() > 0.6
    assert mask[:, RELEVANT:].double().mean() < 0.1
    small = variational.pruned(model)
    error = (predictors.standard(small, x).argmax(-1) != y).double().mean()
    assert error < 0.06
    torch.testing.assert_close(predictors.standard(small, x), predictors.standard(model, x), atol=0.05, rtol=0)


def test_a_run_that_is_interrupted_goes_on_to_the_same_weights(tmp_path):
    x, y = examples()

    def run(stop_at=None, **kwargs):
        def begin(epoch):
            if epoch == stop_at:
                raise InterruptedError

        model = network()
        elbo.maximise(model, x, y, epochs=8, warm_up=(1, 4), progress=False, begin=begin, **kwargs)
        return model.state_dict()

    whole = run()
    with pytest.raises(InterruptedError):
        run(stop_at=5, checkpoint=tmp_path / "run.pt")
    resumed = run(checkpoint=tmp_path / "run.pt")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    with pytest.raises(ValueError, match="another configuration"):
        elbo.maximise(network(), x, y, epochs=8, warm_up=(1, 5), progress=False, checkpoint=tmp_path / "run.pt")


def test_a_checkpoint_of_a_network_with_other_layers_is_refused_though_its_parameters_have_the_same_names(tmp_path):
    x, y = examples()
    run = {"epochs": 1, "progress": False, "checkpoint": tmp_path / "run.pt"}
    elbo.maximise(nn.Sequential(nn.Tanh(), network()), x, y, **run)
    with pytest.raises(ValueError, match=r"network: 'Sequential [0-9a-f]{8}' there"):
        elbo.maximise(nn.Sequential(nn.Sigmoid(), network()), x, y, **run)


@compiler
@pytest.mark.parametrize("kl", [variational.kl, variational.kl_cubic])
def test_a_compiled_divergence_leads_to_the_same_weights(kl):
    x, y = examples()
    eager, compiled = (
        elbo.maximise(network(), x, y, epochs=4, warm_up=(0, 2), kl=kl, compile=compile, progress=False)
        for compile in (False, True)
    )
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_the_global_random_state_is_left_alone():
    x, y = examples()
    state = torch.get_rng_state()
    elbo.maximise(network(), x, y, epochs=1, perturb=lambda x: x + torch.randn_like(x), progress=False)
    assert torch.equal(torch.get_rng_state(), state)


def test_senseless_runs_are_refused():
    x, y = examples()
    with pytest.raises(ValueError, match="no variational layer"):
        elbo.maximise(nn.Linear(D, K), x, y)
    with pytest.raises(ValueError, match="no examples"):
        elbo.maximise(network(), x[:0], y[:0])
    with pytest.raises(ValueError, match="from 0 to 2"):
        elbo.maximise(network(), x, y + 1)
    with pytest.raises(ValueError, match="NaN"):
        elbo.maximise(network(), x / 0, y)
    with pytest.raises(FloatingPointError):
        elbo.maximise(network(), x * 1e30, y, epochs=2, lr=1e30, progress=False)
