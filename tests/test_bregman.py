"""Losses against SciPy and finite differences, and Theorem 1 on random ensembles."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import kl_div, rel_entr, softmax

from helpers import bregman

LOSSES = [bregman.kl, bregman.squared_euclidean]
ALL = pytest.mark.parametrize("loss", LOSSES, ids=repr)

maths = settings(deadline=None, derandomize=True)

positive = arrays(np.float64, (2, 4), elements=st.floats(1e-3, 10))
unnormalised = arrays(np.float64, (2, 4), elements=st.just(0.0) | st.floats(1e-3, 10))
simplices = positive.map(lambda a: torch.from_numpy(a / a.sum(-1, keepdims=True)))


@ALL
@maths
@given(pair=simplices)
def test_a_divergence_is_never_negative_and_zero_at_equality(loss, pair):
    y, y_hat = pair
    assert loss(y, y_hat) >= -1e-12
    assert loss(y, y).abs() < 1e-12


@ALL
@maths
@given(pair=positive.map(torch.from_numpy))
def test_the_loss_is_g1_plus_g2_plus_y_g3(loss, pair):
    y, y_hat = pair
    parts = loss.g1(y) + loss.g2(y_hat) + (y * loss.g3(y_hat)).sum(-1)
    torch.testing.assert_close(loss(y, y_hat), parts, atol=1e-9, rtol=1e-9)


@ALL
@maths
@given(pair=positive.map(torch.from_numpy))
def test_the_loss_is_the_gap_under_the_tangent_of_phi(loss, pair):
    y, y_hat = pair[0], pair[1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss.phi(y_hat), y_hat)
    gap = loss.phi(y) - loss.phi(y_hat) - ((y - y_hat) * gradient).sum(-1)
    torch.testing.assert_close(loss(y, y_hat.detach()), gap.detach(), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(loss.grad_phi(pair[1]), gradient)


@maths
@given(pair=simplices)
def test_kl_is_scipy_s_relative_entropy(pair):
    y, y_hat = pair
    assert bregman.kl(y, y_hat).item() == pytest.approx(rel_entr(y.numpy(), y_hat.numpy()).sum(), abs=1e-12)


@maths
@given(pair=unnormalised)
def test_kl_is_scipy_s_generalised_divergence_off_the_simplex_and_where_either_is_zero(pair):
    """0 log 0 = 0, and infinity where the prediction alone is zero."""
    y, y_hat = torch.from_numpy(pair)
    assert bregman.kl(y, y_hat).item() == pytest.approx(kl_div(*pair).sum(), abs=1e-12)


def test_squared_euclidean_is_the_squared_distance():
    y, y_hat = torch.randn(2, 6, 3)
    expected = np.linalg.norm(y.numpy() - y_hat.numpy(), axis=-1) ** 2
    np.testing.assert_allclose(bregman.squared_euclidean(y, y_hat).numpy(), expected, rtol=1e-5)


def test_kl_at_the_boundary():
    y = torch.tensor([1.0, 0.0, 0.0])
    assert bregman.kl(y, torch.tensor([0.5, 0.5, 0.0])).item() == pytest.approx(np.log(2))
    assert bregman.kl(torch.tensor([0.5, 0.5, 0.0]), y).item() == float("inf")


def test_kl_has_a_gradient_where_the_target_is_zero():
    y_hat = torch.tensor([0.2, 0.3, 0.5], requires_grad=True)
    bregman.kl(torch.tensor([1.0, 0.0, 0.0]), y_hat).backward()
    torch.testing.assert_close(y_hat.grad, torch.tensor([1 - 1 / 0.2, 1.0, 1.0]))


class SumOfExponentials(bregman.Bregman):
    """φ(y) = Σ exp(y), so that ℓ(y, ŷ) = Σ exp(y) - exp(ŷ) (1 + y - ŷ)."""

    name = "sum_of_exponentials"

    def phi(self, y):
        return y.exp().sum(-1)

    def grad_phi(self, y):
        return y.exp()


@maths
@given(pair=arrays(np.float64, (2, 4), elements=st.floats(-5, 5)))
def test_a_generator_and_its_gradient_make_a_loss(pair):
    y, y_hat = pair
    expected = (np.exp(y) - np.exp(y_hat) * (1 + y - y_hat)).sum()
    assert SumOfExponentials()(*torch.from_numpy(pair)).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("loss", [*LOSSES, SumOfExponentials()], ids=repr)
def test_targets_and_predictions_broadcast(loss):
    y, y_hat = torch.rand(5, 3, 4).softmax(-1), torch.rand(3, 4).softmax(-1)
    rows = [loss(y[i, j], y_hat[j]) for i in range(5) for j in range(3)]
    torch.testing.assert_close(loss(y, y_hat), torch.stack(rows).reshape(5, 3))


@pytest.mark.parametrize("loss", [*LOSSES, SumOfExponentials(), bregman.kl.with_logits], ids=repr)
def test_gradients_agree_with_finite_differences(loss):
    y, y_hat = torch.rand(2, 5, 4, dtype=torch.float64) + 0.1
    assert torch.autograd.gradcheck(loss, (y.requires_grad_(), y_hat.requires_grad_()))


@maths
@given(y=simplices.map(lambda pair: pair[0]), logits=arrays(np.float64, 4, elements=st.floats(-30, 30)))
def test_kl_with_logits_is_kl_of_the_softmax(y, logits):
    expected = rel_entr(y.numpy(), softmax(logits)).sum()
    assert bregman.kl.with_logits(y, torch.from_numpy(logits)).item() == pytest.approx(expected, abs=1e-9)


@maths
@given(
    kept=st.lists(st.booleans(), min_size=4, max_size=4).filter(any),
    logits=arrays(np.float32, 4, elements=st.floats(-1e4, 1e4, width=32)),
)
def test_kl_with_logits_is_finite_where_targets_are_zero(kept, logits):
    y = torch.tensor(kept) / sum(kept)
    logits = torch.from_numpy(logits).requires_grad_()
    loss = bregman.kl.with_logits(y, logits)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_kl_with_logits_is_finite_with_its_gradient_for_extreme_logits(size):
    logits = torch.tensor([[size, -size, 0.0]], requires_grad=True)
    y = torch.tensor([[0.2, 0.5, 0.3]])
    bregman.kl.with_logits(y, logits).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.8, -0.5, -0.3]]))


@pytest.fixture
def ensemble():
    return torch.randn(30, 8, 3, dtype=torch.float64).mul(2).softmax(-1)


@ALL
def test_j_and_j_prime_are_means_over_examples_and_masks(loss, ensemble):
    q = torch.randn(8, 3, dtype=torch.float64).softmax(-1)
    J, J_prime, delta = bregman.objectives(loss, ensemble, q)
    one = lambda f, q: loss(f, q).item()
    assert J.item() == pytest.approx(np.mean([one(sum(ensemble[:, n]) / 30, q[n]) for n in range(8)]))
    assert J_prime.item() == pytest.approx(np.mean([one(f, q[n]) for n in range(8) for f in ensemble[:, n]]))
    assert delta.item() == pytest.approx(J.item() - J_prime.item())


@ALL
def test_theorem_1_the_gap_is_never_positive_and_knows_no_q(loss, ensemble):
    students = torch.randn(20, 8, 3, dtype=torch.float64).softmax(-1)
    J, J_prime, delta = (
        torch.stack(part) for part in zip(*(bregman.objectives(loss, ensemble, q) for q in students), strict=True)
    )
    assert (J_prime >= J).all()
    torch.testing.assert_close(delta, delta[:1].expand(20), atol=1e-12, rtol=0)
    assert J.std() > 0.01, "J itself does depend on q"


def test_for_kl_minus_delta_is_the_mutual_information_of_label_and_mask(ensemble):
    f = ensemble.numpy()
    entropy = lambda p: -(p * np.log(p)).sum(-1)
    information = (entropy(f.mean(0)) - entropy(f).mean(0)).mean()
    delta = bregman.objectives(bregman.kl, ensemble, ensemble[0])[2]
    assert -delta.item() == pytest.approx(information, abs=1e-12)


def test_a_loss_that_is_no_bregman_divergence_has_a_gap_that_moves(ensemble):
    absolute = lambda y, y_hat: (y - y_hat).abs().sum(-1)
    gaps = [bregman.objectives(absolute, ensemble, q)[2] for q in torch.randn(5, 8, 3, dtype=torch.float64).softmax(-1)]
    assert torch.stack(gaps).std() > 1e-3


@pytest.mark.parametrize("f, q", [((8, 3), (8, 3)), ((5, 8, 3), (8, 4)), ((5, 8, 3), (1, 8, 3)), ((5, 8, 3), (3,))])
def test_objectives_want_f_by_mask_example_and_class(f, q):
    with pytest.raises(ValueError, match=r"expected f \[M, N, K\] and q \[N, K\]"):
        bregman.objectives(bregman.kl, torch.rand(f), torch.rand(q))
