"""Scores against computations by hand and by scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from sklearn.metrics import accuracy_score, log_loss

from helpers import evaluation


@pytest.fixture
def example():
    generator = torch.Generator().manual_seed(0)
    q, ideal = (torch.randn(2, 400, 5, generator=generator) * 2).softmax(-1)
    labels = torch.randint(5, (400,), generator=generator)
    return q, labels, ideal


def test_scores_agree_with_other_libraries(example):
    q, labels, ideal = example
    found = evaluation.scores(q, labels, ideal)
    assert found["error"] == pytest.approx(100 * (1 - accuracy_score(labels, q.argmax(-1))), abs=1e-4)
    assert found["NLL"] == pytest.approx(
        log_loss(labels, q.double().numpy() / q.double().numpy().sum(-1, keepdims=True)), rel=1e-5
    )
    assert found["KL to ideal"] == pytest.approx(
        rel_entr(ideal.double().numpy(), q.double().numpy()).sum(-1).mean(), rel=1e-4
    )


def test_calibration_error_is_the_weighted_gap_between_confidence_and_accuracy(example):
    q, labels, ideal = example
    confidence, answer = (part.numpy() for part in q.max(-1))
    right = answer == labels.numpy()
    bins = np.minimum((confidence * evaluation.BINS).astype(int), evaluation.BINS - 1)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    assert evaluation.scores(q, labels, ideal)["ECE"] == pytest.approx(100 * sum(gaps), rel=1e-3)


def test_table_has_a_row_per_predictor_with_its_cost(example):
    q, labels, ideal = example
    table = evaluation.table({"standard": q, "ideal": ideal}, {"standard": 1, "ideal": 400}, labels, ideal)
    assert list(table.index) == ["standard", "ideal"]
    assert list(table["passes"]) == [1, 400]
    assert table.loc["ideal", "KL(ideal ‖ ·) [nats]"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("bad", ["logits", "log-probabilities", "NaN"])
@pytest.mark.parametrize("which", ["q", "ideal"])
def test_what_is_no_distribution_is_refused_by_name(example, which, bad):
    q, labels, ideal = example
    values = {"logits": 3 * q + 1, "log-probabilities": q.log(), "NaN": q.where(q < 0.9, torch.nan)}[bad]
    arguments = {"q": q, "ideal": ideal} | {which: values}
    with pytest.raises(ValueError, match=f"`{which}` has rows that are no distributions .* predictors.softmax"):
        evaluation.scores(labels=labels, **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ideal": torch.full((1, 5), 0.2)}, r"`q` is \[400, 5\] and `ideal` \[1, 5\]"),
        ({"labels": torch.zeros(399, dtype=torch.int64)}, r"each of the 400 predictions, got \[399\]"),
        ({"labels": torch.zeros(0, dtype=torch.int64)}, r"each of the 400 predictions, got \[0\]"),
        ({"labels": torch.zeros(400, dtype=torch.int32)}, "from 0 to 4 of type int64; got torch.int32 from 0 to 0"),
        ({"q": torch.zeros(0, 5)}, r"`q` is \[0, 5\]; expected probabilities \[N, K\] of at least one example"),
        ({"q": torch.full((5,), 0.2)}, r"`q` is \[5\]; expected"),
        ({"labels": torch.arange(400) % 6}, "from 0 to 4 .* from 0 to 5"),
        ({"labels": torch.arange(400) % 5 - 1}, "from 0 to 4 .* from -1 to 3"),
    ],
)
def test_what_does_not_fit_together_is_refused(example, change, message):
    q, labels, ideal = example
    with pytest.raises(ValueError, match=message):
        evaluation.scores(**{"q": q, "labels": labels, "ideal": ideal} | change)


def test_a_probability_that_rounding_puts_above_one_is_no_logit():
    q = torch.tensor([[0.9, 0.1], [1.0, 0.0]], dtype=torch.float64)
    above = q.clone()
    above[1, 0] += 2 * torch.finfo(q.dtype).eps
    assert above.max() > 1
    labels = torch.tensor([0, 0])
    assert evaluation.scores(above, labels, q)["ECE"] == pytest.approx(evaluation.scores(q, labels, q)["ECE"])


def test_the_standard_error_is_that_of_a_mean_of_zeros_and_ones():
    wrong = np.repeat([100.0, 0.0], [37, 363])  # of 400 images
    assert evaluation.standard_error(wrong.mean(), 400) == pytest.approx(wrong.std() / np.sqrt(400))


@pytest.mark.parametrize("classes", [2, 10])
def test_a_network_that_gives_every_input_the_same_answer_has_not_learned(classes):
    labels = torch.arange(1000) % classes
    same = torch.randn(classes).softmax(-1).expand(1000, classes)
    assert not evaluation.learned(evaluation.scores(same, labels, same), classes)
    for share_known, learned in ((0.005, False), (0.1, True)):
        known = int(share_known * len(labels))
        q = torch.cat([torch.eye(classes)[labels[:known]] * 0.9 + 0.1 / classes, same[known:]])
        assert evaluation.learned(evaluation.scores(q, labels, q), classes) == learned
