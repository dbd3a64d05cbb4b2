"""Losses against SciPy and finite differences, and Theorem 1 on random ensembles."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import mahalanobis
from scipy.special import expit, kl_div, rel_entr, softmax

from helpers import bregman

maths = settings(deadline=None, derandomize=True, max_examples=40)


def pairs(elements):
    """y and ŷ, each [4]."""
    return arrays(np.float64, (2, 4), elements=elements).map(torch.from_numpy)


positive = arrays(np.float64, (2, 4), elements=st.floats(1e-3, 10))
unnormalised = arrays(np.float64, (2, 4), elements=st.just(0.0) | st.floats(1e-3, 10))
simplices = positive.map(lambda a: torch.from_numpy(a / a.sum(-1, keepdims=True)))

A = torch.tensor(
    [[2.0, 0.5, 0.0, 0.3], [0.5, 1.0, -0.4, 0.0], [0.0, -0.4, 1.5, 0.2], [0.3, 0.0, 0.2, 0.8]], dtype=torch.float64
)
REALS, INSIDE, UNIT = st.floats(-5, 5), st.floats(1e-3, 10), st.floats(1e-3, 1 - 1e-3)
NOT_ZERO = st.floats(0.01, 5) | st.floats(-5, -0.01)  # where a p-norm has all the derivatives that differences need
LOSSES = {  # with the inside of the domain, coordinate by coordinate
    "kl": (bregman.kl, INSIDE),
    "squared_euclidean": (bregman.squared_euclidean, REALS),
    "mahalanobis": (bregman.mahalanobis(A), REALS),
    "itakura_saito": (bregman.itakura_saito, INSIDE),
    "logistic": (bregman.logistic, UNIT),
    "exponential": (bregman.exponential, REALS),
    "p_norm(1.5)": (bregman.p_norm(1.5), NOT_ZERO),
    "p_norm(3)": (bregman.p_norm(3), NOT_ZERO),
    "from_phi": (bregman.from_phi(lambda y: (y.square() + 1).sqrt().sum(-1) + y.sum(-1).square()), REALS),
}
ALL = pytest.mark.parametrize("loss", [loss for loss, _ in LOSSES.values()], ids=LOSSES)
EACH = pytest.mark.parametrize(("loss", "elements"), LOSSES.values(), ids=LOSSES)
close = {"atol": 1e-9, "rtol": 1e-9}


@EACH
@maths
@given(data=st.data())
def test_a_divergence_is_never_negative_and_zero_only_at_equality(loss, elements, data):
    y, y_hat = data.draw(pairs(elements))
    size = 1 + loss.phi(y).abs() + loss.phi(y_hat).abs()
    assert loss(y, y_hat) >= -1e-13 * size
    assert loss(y, y).abs() <= 1e-13 * size
    if (y - y_hat).abs().max() > 0.1:
        assert loss(y, y_hat) > 1e-7


@EACH
@maths
@given(data=st.data(), weight=st.floats(0, 1))
def test_a_divergence_is_convex_in_its_first_argument(loss, elements, data, weight):
    (a, b), (y_hat, _) = data.draw(pairs(elements)), data.draw(pairs(elements))
    chord = weight * loss(a, y_hat) + (1 - weight) * loss(b, y_hat)
    assert loss(weight * a + (1 - weight) * b, y_hat) <= chord + 1e-12 * (1 + chord.abs())


@EACH
@maths
@given(data=st.data())
def test_the_loss_is_g1_plus_g2_plus_y_g3(loss, elements, data):
    y, y_hat = data.draw(pairs(elements))
    parts = loss.g1(y) + loss.g2(y_hat) + (y * loss.g3(y_hat)).sum(-1)
    torch.testing.assert_close(loss(y, y_hat), parts, **close)


@EACH
@maths
@given(data=st.data())
def test_the_loss_is_the_gap_under_the_tangent_of_phi(loss, elements, data):
    y, y_hat = data.draw(pairs(elements))
    gap = loss.phi(y) - loss.phi(y_hat) - ((y - y_hat) * loss.grad_phi(y_hat)).sum(-1)
    torch.testing.assert_close(loss(y, y_hat), gap, **close)


@EACH
@maths
@given(data=st.data())
def test_grad_phi_agrees_with_finite_differences(loss, elements, data):
    y, _ = data.draw(pairs(elements))
    step = 1e-5 * torch.eye(4, dtype=torch.float64)
    differences = (loss.phi(y + step) - loss.phi(y - step)) / 2e-5
    torch.testing.assert_close(loss.grad_phi(y), differences, atol=1e-4, rtol=1e-4)


@EACH
@maths
@given(data=st.data(), weights=arrays(np.float64, 4, elements=st.floats(0.1, 1)))
def test_the_mean_is_the_best_constant(loss, elements, data, weights):
    """E ℓ(Y, q) = E ℓ(Y, EY) + ℓ(EY, q), which is least for q = EY."""
    (a, b), (c, q) = data.draw(pairs(elements)), data.draw(pairs(elements))
    weights = torch.from_numpy(weights[:3] / weights[:3].sum())
    Y = torch.stack([a, b, c])
    mean = weights @ Y
    torch.testing.assert_close(weights @ loss(Y, q), weights @ loss(Y, mean) + loss(mean, q), **close)


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


@maths
@given(pair=arrays(np.float64, (2, 4), elements=UNIT | st.sampled_from([0.0, 1.0])))
def test_logistic_is_scipy_s_relative_entropy_of_coins_also_where_they_are_certain(pair):
    """Infinite where the prediction alone is certain."""
    y, y_hat = pair
    expected = (rel_entr(y, y_hat) + rel_entr(1 - y, 1 - y_hat)).sum()
    assert bregman.logistic(*torch.from_numpy(pair)).item() == pytest.approx(expected, abs=1e-12)


@maths
@given(pair=positive, scale=st.floats(0.01, 100))
def test_itakura_saito_is_scipy_s_divergence_of_1_from_the_ratio_and_knows_no_scale(pair, scale):
    y, y_hat = pair
    expected = pytest.approx(kl_div(1, y / y_hat).sum(), rel=1e-9, abs=1e-9)
    assert bregman.itakura_saito(*torch.from_numpy(pair)).item() == expected
    assert bregman.itakura_saito(*torch.from_numpy(scale * pair)).item() == expected


def test_itakura_saito_is_infinite_where_the_target_is_zero():
    assert bregman.itakura_saito(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])) == float("inf")


@maths
@given(pair=arrays(np.float64, (2, 4), elements=REALS))
def test_exponential_is_scipy_s_kl_of_the_exponentials_the_other_way_round(pair):
    y, y_hat = pair
    expected = kl_div(np.exp(y_hat), np.exp(y)).sum()
    assert bregman.exponential(*torch.from_numpy(pair)).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@maths
@given(pair=arrays(np.float64, (2, 4), elements=REALS))
def test_mahalanobis_is_scipy_s_distance_squared(pair):
    expected = mahalanobis(*pair, A.numpy()) ** 2
    assert bregman.mahalanobis(A)(*torch.from_numpy(pair)).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@maths
@given(pair=arrays(np.float64, (2, 4), elements=NOT_ZERO | st.just(0.0)), p=st.sampled_from([1.2, 1.5, 2.0, 3.0, 7.0]))
def test_p_norm_is_what_its_definition_says(pair, p):
    y, y_hat = pair
    norm = lambda y: np.linalg.norm(y, p)
    gradient = np.sign(y_hat) * np.abs(y_hat) ** (p - 1) * norm(y_hat) ** (2 - p) if y_hat.any() else 0 * y_hat
    expected = norm(y) ** 2 / 2 - norm(y_hat) ** 2 / 2 - (y - y_hat) @ gradient
    assert bregman.p_norm(p)(*torch.from_numpy(pair)).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@maths
@given(pair=pairs(REALS))
def test_p_norm_with_p_2_and_mahalanobis_with_the_identity_are_the_squared_distance(pair):
    expected = bregman.squared_euclidean(*pair)
    torch.testing.assert_close(2 * bregman.p_norm(2)(*pair), expected, **close)
    torch.testing.assert_close(bregman.mahalanobis(torch.eye(4))(*pair), expected, **close)


@pytest.mark.parametrize("name", ["kl", "squared_euclidean", "itakura_saito", "exponential"])
@maths
@given(pair=pairs(st.floats(0.1, 5)))
def test_from_phi_finds_the_gradient_by_itself(name, pair):
    loss = getattr(bregman, name)
    torch.testing.assert_close(bregman.from_phi(loss.phi)(*pair), loss(*pair), atol=1e-8, rtol=1e-8)


def test_from_phi_finds_its_gradient_where_none_is_recorded():
    with torch.no_grad():
        loss = bregman.from_phi(lambda y: y.square().sum(-1))(torch.ones(3), torch.zeros(3))
    assert loss == 3 and not loss.requires_grad


def test_from_phi_wants_one_number_for_each_y():
    with pytest.raises(ValueError, match="sum over the last dimension"):
        bregman.from_phi(lambda y: y.square())(torch.ones(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="sum over the last dimension"):
        bregman.from_phi(lambda y: y.square().sum())(torch.ones(2, 3), torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.tensor([1.0, 2.0]), "symmetric"),
        (torch.ones(2, 3), "symmetric"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "positive definite.* is -1"),
        (torch.tensor([[1.0, 1.0], [1.0, 1.0]]), "positive definite"),
    ],
)
def test_mahalanobis_wants_a_positive_definite_matrix(matrix, message):
    with pytest.raises(ValueError, match=message):
        bregman.mahalanobis(matrix)


@pytest.mark.parametrize("p", [-1, 0.5, 1, float("inf"), float("nan")])
def test_p_norm_wants_a_strictly_convex_norm(p):
    with pytest.raises(ValueError, match="strictly convex"):
        bregman.p_norm(p)


@maths
@given(pair=simplices)
def test_reverse_kl_is_scipy_s_with_its_arguments_exchanged(pair):
    y, y_hat = pair
    expected = rel_entr(y_hat.numpy(), y.numpy()).sum()
    assert bregman.reverse_kl(y, y_hat).item() == pytest.approx(expected, abs=1e-12)


@maths
@given(pair=simplices, q=simplices)
def test_reverse_kl_is_least_at_the_renormalised_geometric_mean(pair, q):
    geometric = scipy.stats.gmean(pair.numpy(), axis=0)
    geometric = torch.from_numpy(geometric / geometric.sum())
    least = bregman.reverse_kl(pair, geometric).mean()
    assert least <= bregman.reverse_kl(pair, q[0]).mean() + 1e-12


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


@pytest.mark.parametrize("loss", [bregman.kl, bregman.logistic])
def test_there_is_a_gradient_where_target_and_prediction_are_both_certain(loss):
    """As where the prediction is rounded to zero or one. It is the limit of the gradient on the way there."""
    y, y_hat = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0], requires_grad=True)
    (at_the_edge,) = torch.autograd.grad(loss(y, y_hat), y_hat)
    near = (y_hat + torch.tensor([-1e-6, 1e-6])).detach().double().requires_grad_()
    (inside,) = torch.autograd.grad(loss(y.double(), near), near)
    torch.testing.assert_close(at_the_edge, inside.float(), atol=1e-5, rtol=0)


@ALL
def test_targets_and_predictions_broadcast(loss):
    y, y_hat = torch.rand(5, 3, 4).double().softmax(-1), torch.rand(3, 4).double().softmax(-1)
    rows = [loss(y[i, j], y_hat[j]) for i in range(5) for j in range(3)]
    torch.testing.assert_close(loss(y, y_hat), torch.stack(rows).reshape(5, 3))


@pytest.mark.parametrize(
    "loss",
    [*(loss for loss, _ in LOSSES.values()), bregman.reverse_kl, bregman.kl.with_logits],
    ids=[*LOSSES, "reverse_kl", "kl.with_logits"],
)
def test_gradients_agree_with_finite_differences(loss):
    y, y_hat = torch.rand(2, 5, 4, dtype=torch.float64) * 0.8 + 0.1
    assert torch.autograd.gradcheck(loss, (y.requires_grad_(), y_hat.requires_grad_()))


def test_gradients_of_reverse_kl_are_finite_where_the_student_s_softmax_underflows():
    """As the limit is: of q log q at q = 0, times dq/dz = q."""
    z = torch.tensor([0.0, -200.0], requires_grad=True)
    bregman.reverse_kl(torch.tensor([0.5, 0.5]), z.softmax(-1)).backward()
    torch.testing.assert_close(z.grad, torch.zeros(2))


@pytest.mark.parametrize("p", [1.5, 3])
def test_gradients_of_p_norm_are_finite_where_a_coordinate_is_zero(p):
    y_hat = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64)
    bregman.p_norm(p)(y, y_hat).backward()
    two = y_hat.detach()[[0, 2]].requires_grad_()
    bregman.p_norm(p)(y[[0, 2]], two).backward()  # the loss without the coordinate that is zero in both
    torch.testing.assert_close(y_hat.grad, torch.stack([two.grad[0], torch.zeros(()).double(), two.grad[1]]))


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
    torch.manual_seed(0)
    return torch.randn(30, 8, 4, dtype=torch.float64).mul(2).softmax(-1)


@ALL
def test_j_and_j_prime_are_means_over_examples_and_masks(loss, ensemble):
    q = torch.randn(8, 4, dtype=torch.float64).softmax(-1)
    J, J_prime, delta = bregman.objectives(loss, ensemble, q)
    one = lambda f, q: loss(f, q).item()
    assert J.item() == pytest.approx(np.mean([one(sum(ensemble[:, n]) / 30, q[n]) for n in range(8)]))
    assert J_prime.item() == pytest.approx(np.mean([one(f, q[n]) for n in range(8) for f in ensemble[:, n]]))
    assert delta.item() == pytest.approx(J.item() - J_prime.item())


@ALL
def test_theorem_1_the_gap_is_never_positive_and_knows_no_q(loss, ensemble):
    students = torch.randn(20, 8, 4, dtype=torch.float64).softmax(-1)
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


@pytest.mark.parametrize(
    "loss", [lambda y, y_hat: (y - y_hat).abs().sum(-1), bregman.reverse_kl], ids=["L1", "reverse"]
)
def test_a_loss_that_is_no_bregman_divergence_has_a_gap_that_moves(loss, ensemble):
    gaps = [bregman.objectives(loss, ensemble, q)[2] for q in torch.randn(5, 8, 4, dtype=torch.float64).softmax(-1)]
    assert torch.stack(gaps).std() > 1e-3


@pytest.mark.parametrize("f, q", [((8, 3), (8, 3)), ((5, 8, 3), (8, 4)), ((5, 8, 3), (1, 8, 3)), ((5, 8, 3), (3,))])
def test_objectives_want_f_by_mask_example_and_class(f, q):
    with pytest.raises(ValueError, match=r"expected f \[M, N, K\] and q \[N, K\]"):
        bregman.objectives(bregman.kl, torch.rand(f), torch.rand(q))


def test_kl_with_logits_lets_classes_be_masked():
    """What is certain not to be has the logit -inf, in teacher and student alike."""
    logits = torch.tensor([0.3, float("-inf"), -0.2], requires_grad=True)
    y = torch.tensor([0.6, 0.0, 0.4])
    loss = bregman.kl.with_logits(y, logits)
    loss.backward()
    rest = torch.tensor([0.3, -0.2]).softmax(-1)
    assert loss.item() == pytest.approx(rel_entr([0.6, 0.4], rest.numpy()).sum(), abs=1e-6)
    torch.testing.assert_close(logits.grad, torch.tensor([rest[0] - 0.6, 0.0, rest[1] - 0.4]))


@maths
@given(y=arrays(np.float64, 4, elements=st.floats(0, 1)), logits=arrays(np.float64, 4, elements=st.floats(-30, 30)))
def test_logistic_with_logits_is_that_of_their_sigmoids(y, logits):
    """Of two coins the divergence is KL between two distributions over heads and tails."""
    q, rest = expit(logits), expit(-logits)
    expected = (rel_entr(y, q) + rel_entr(1 - y, rest)).sum()
    found = bregman.logistic.with_logits(torch.from_numpy(y), torch.from_numpy(logits))
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("size", [20.0, 1e4])
def test_logistic_with_logits_has_a_gradient_where_sigmoids_are_rounded_to_one(size):
    logits = torch.tensor([size, -size, size], requires_grad=True)
    y = torch.tensor([1.0, 0.0, 0.25])
    bregman.logistic.with_logits(y, logits).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([0.0, 0.0, 0.75]), atol=1e-6, rtol=0)
