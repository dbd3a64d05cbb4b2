"""Cheap masks have the distribution of PyTorch's own, and the tests for it see the two mistakes that are easily made.

Every bound is six standard errors of the statistic, so that a correct source fails one comparison in about 5e8.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from helpers import masks

RATES = [0.1, 0.2, 0.25, 0.5, 0.9]
ROWS, WIDTH = 100_000, 24  # 24 positions: three 64-bit words of bytes, six of 16-bit numbers


def worst_keep_rate(mask, p):
    """The largest deviation of a position's keep rate from 1 - p, in standard errors."""
    error = math.sqrt(p * (1 - p) / len(mask))
    return ((mask.double().mean(0) - (1 - p)).abs() / error).max().item()


def worst_correlation(mask, p):
    """The largest correlation of two positions up to 16 apart, in standard errors."""
    z = (mask.double() - (1 - p)) / math.sqrt(p * (1 - p))
    products = [(z[:, :-lag] * z[:, lag:]).mean(0).abs().max() for lag in range(1, 17)]
    return (torch.stack(products).max() * math.sqrt(len(mask))).item()


@pytest.mark.parametrize("p", RATES)
def test_each_position_is_kept_with_probability_one_minus_p(p):
    torch.manual_seed(0)
    assert worst_keep_rate(masks.keep((ROWS, WIDTH), p), p) < 6


@pytest.mark.parametrize("p", RATES)
def test_neighbours_are_independent(p):
    torch.manual_seed(0)
    assert worst_correlation(masks.keep((ROWS, WIDTH), p), p) < 6


def test_a_source_that_never_sets_the_top_bit_is_noticed(monkeypatch):
    bounded = torch.Tensor.random_
    monkeypatch.setattr(torch.Tensor, "random_", lambda tensor, *bounds: bounded(tensor))
    assert worst_keep_rate(masks.keep((ROWS, WIDTH), 0.5), 0.5) > 100


def test_eight_bits_for_a_fifth_would_be_noticed():
    """51 of 256 is 0.1992: too near for a test of each position, so all positions are counted together."""
    torch.manual_seed(0)
    n, p = 40_000_000, 0.2
    error = math.sqrt(p * (1 - p) / n)
    eight = torch.randint(256, (n,), dtype=torch.uint8) >= round(p * 256)
    assert abs(masks.keep((n,), p).double().mean().item() - 0.8) / error < 6
    assert abs(eight.double().mean().item() - 0.8) / error > 8


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (2, 3, 5, 7)])
def test_any_shape_will_do(shape):
    assert masks.keep(shape, 0.5).shape == shape
    assert masks.keep(shape, 0.3).dtype == torch.bool


@pytest.mark.parametrize("p", [0.2, 0.5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_units_are_kept_and_rescaled_or_dropped(p, layout):
    x = (torch.rand(64, 8, 5, 5) + 1).to(memory_format=layout)
    with masks.CheapMasks():
        y = F.dropout(x, p)
    kept = y != 0
    torch.testing.assert_close(y[kept], x[kept] / (1 - p))
    assert abs(kept.double().mean().item() - (1 - p)) < 6 * math.sqrt(p * (1 - p) / kept.numel())
    assert y.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("function, shape", [(F.dropout1d, (50, 40, 3)), (F.dropout2d, (50, 40, 3, 2))])
def test_channels_are_dropped_whole(function, shape):
    with masks.CheapMasks():
        y = function(torch.ones(shape), 0.5).flatten(2)
    assert (y == y[..., :1]).all()
    assert set(y.unique().tolist()) == {0.0, 2.0}


def test_the_gradient_shows_the_mask():
    x = torch.randn(100, 10, requires_grad=True)
    with masks.CheapMasks():
        y = F.dropout(x, 0.5)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach() / x.detach())
    assert set(x.grad.unique().tolist()) == {0.0, 2.0}


def test_inplace_works_in_place():
    x = torch.ones(1000)
    with masks.CheapMasks():
        y = F.dropout(x, 0.5, inplace=True)
    assert y.data_ptr() == x.data_ptr()
    assert set(x.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("p, training, expected", [(0.5, False, 1.0), (0.0, True, 1.0), (1.0, True, 0.0)])
def test_what_is_not_random_is_left_to_pytorch(p, training, expected):
    with masks.CheapMasks():
        assert (F.dropout(torch.ones(100), p, training) == expected).all()


def test_an_input_without_a_batch_drops_its_channels():
    with masks.CheapMasks():
        y = F.dropout1d(torch.ones(40, 6), 0.5)
    assert (y == y[:, :1]).all()


def test_masks_follow_pytorch_s_seed():
    def draw():
        torch.manual_seed(5)
        return masks.keep((1000,), 0.3)

    assert torch.equal(draw(), draw())
