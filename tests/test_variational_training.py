"""Raising the evidence lower bound: what is raised, what it finds, and that an interrupted run goes on to the same end."""

import math
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import elbo, predictors, variational

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
    """Against the mean over sampled weights. The bound of one sample per example is repeated 200 times, six standard errors."""
    model, (x, y) = network(), examples()
    with torch.no_grad():
        model.log_sigma2.fill_(-1.0)
    found = torch.tensor([elbo.bound(model, x, y, seed=seed) for seed in range(200)])
    with torch.no_grad():
        w = model.weight + model.sigma2.sqrt() * torch.randn(2000, K, D)
        z = torch.einsum("mkd,nd->mnk", w, x) + model.bias
        expected = z.log_softmax(-1)[:, torch.arange(N), y].mean(0).sum() - variational.kl(model.log_alpha).sum()
    assert abs(found.mean() - expected) < 6 * found.std() / math.sqrt(200) + 6 * N * 1.0 / math.sqrt(2000 * N)
    assert not model.training or model.weight.requires_grad


@pytest.mark.parametrize("beta_is_one", [False, True])
def test_the_gradient_is_that_of_the_bound_for_one_example(beta_is_one, monkeypatch):
    """What is descended is the bound of the data set over -N: seen with the noise held still."""
    model, (x, y) = network(), examples()
    monkeypatch.setattr(torch, "randn", torch.zeros)
    seen = []

    class Spy(torch.optim.SGD):
        def __init__(self, parameters, lr, fused):
            super().__init__(parameters, lr=lr)

        def step(self):
            seen.extend(p.grad.clone() for group in self.param_groups for p in group["params"] if p.grad is not None)

    monkeypatch.setattr(torch.optim, "Adam", Spy)
    warm_up = (0, 1) if beta_is_one else (5, 6)
    elbo.maximise(model, x, y, epochs=1, batch_size=N, warm_up=warm_up, progress=False)
    loss = F.cross_entropy(F.linear(x, model.weight, model.bias), y)
    if beta_is_one:
        loss = loss + variational.kl(model.log_alpha).sum() / N
    expected = torch.autograd.grad(loss, [model.weight, model.bias])
    found = [g for g in seen if g.shape in (model.weight.shape, model.bias.shape)]
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=1e-4)


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


@pytest.mark.skipif(shutil.which("c++") is None, reason="compiling takes a C++ compiler")
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
