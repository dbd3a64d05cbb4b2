"""Cheap masks have the distribution of PyTorch's own, and the tests for it see the two mistakes that are easily made.

Every bound is six standard errors of the statistic, so that a correct source fails one comparison in about 5e8. A
test makes at most 248 such comparisons: false alarms below 1e-6.
"""

import math
from contextlib import nullcontext
from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import masks

RATES = [0.1, 0.2, 0.25, 0.5, 0.9]
ROWS, WIDTH = 100_000, 24  # 24 positions: three 64-bit words of bytes, six of 16-bit numbers


def cheaply(dropout, shape, p, inner=(), layout=torch.contiguous_format):
    """The gates that `dropout` draws for ones while cheap masks are on: [rows, width], whatever the input's `inner`."""
    rows, width = shape
    rows //= math.prod(inner)
    with masks.CheapMasks():
        y = dropout(torch.ones(rows, width, *inner).to(memory_format=layout), p)
    return y.movedim(1, -1).reshape(-1, width) != 0


def kept(shape, p):
    """Which of the gates that `inverted` draws are open."""
    return masks.inverted(shape, p) != 0


def two_draws(shape, p):
    """Rows whose two halves were drawn by two calls."""
    rows, width = shape
    return torch.cat([kept((rows, width // 2), p), kept((rows, width // 2), p)], dim=1)


def one_mask_per_draw(shape, p):
    """Each row was drawn by a call of its own, of an odd size."""
    rows, width = shape
    return torch.stack([kept((width - 1,), p) for _ in range(rows // 5)])


SOURCES = {
    "inverted": kept,
    "two draws": two_draws,
    "one mask per draw": one_mask_per_draw,
    "dropout": partial(cheaply, F.dropout),
    "dropout, channels last": partial(cheaply, F.dropout, inner=(2, 2), layout=torch.channels_last),
    "dropout1d": partial(cheaply, F.dropout1d, inner=(1,)),
    "dropout2d": partial(cheaply, F.dropout2d, inner=(1, 1)),
    "dropout3d": partial(cheaply, F.dropout3d, inner=(1, 1, 1)),
}


@pytest.fixture
def every_number_once(monkeypatch):
    """In place of random words: the 2^16 numbers of 16 bits, one after the other."""

    def count(words, *bounds):
        numbers = words.view(torch.int16)
        numbers.copy_(torch.arange(len(numbers)))
        return words

    monkeypatch.setattr(torch.Tensor, "random_", count)


def worst_keep_rate(mask, p):
    """The largest deviation of a position's keep rate from 1 - p, in standard errors."""
    error = math.sqrt(p * (1 - p) / len(mask))
    return ((mask.double().mean(0) - (1 - p)).abs() / error).max().item()


def worst_correlation(mask, p):
    """The largest correlation of two positions up to 16 apart, in standard errors."""
    z = (mask.double() - (1 - p)) / math.sqrt(p * (1 - p))
    products = (z.T @ z).triu(1).tril(16)
    return products.abs().max().item() / math.sqrt(len(mask))


# All rates with the source of all masks; a rate that needs sixteen bits and one of eight with what is built on it.
EACH = pytest.mark.parametrize(
    ("source", "p"), [*(("inverted", p) for p in [*RATES, 1 / 3, 0.77]), *product(list(SOURCES)[1:], [0.2, 0.5])]
)


@EACH
def test_each_position_is_kept_with_probability_one_minus_p(source, p):
    torch.manual_seed(0)
    assert worst_keep_rate(SOURCES[source]((ROWS, WIDTH), p), p) < 6


@EACH
def test_neighbours_are_independent(source, p):
    torch.manual_seed(0)
    assert worst_correlation(SOURCES[source]((ROWS, WIDTH), p), p) < 6


@pytest.mark.parametrize("source", SOURCES)
def test_no_stretch_of_gates_comes_twice(source):
    """False alarms: two of 1,000 rows of 199 gates coincide, 5e5 × 0.68^199 = 2e-28."""
    rows = SOURCES[source]((1000, 200), 0.2)
    assert len(rows.unique(dim=0)) == len(rows)


@pytest.mark.parametrize("lag", [1, 4, 8, 16])
def test_gates_that_share_their_random_bits_would_be_noticed(lag):
    shared = kept((ROWS, WIDTH), 0.2)
    shared[:, lag + 1] = shared[:, 1]
    assert worst_correlation(shared, 0.2) > 100


@pytest.mark.usefixtures("every_number_once")
@settings(deadline=None, derandomize=True)
@given(st.one_of(st.floats(0, masks.HIGHEST, exclude_min=True), st.integers(1, 253).map(lambda i: i / 256)))
def test_of_all_numbers_that_can_be_drawn_a_share_of_p_drops(p):
    """Without chance: 31 × 2^17 gates are 62 rounds of the 16-bit numbers, 31 of the bytes in them, or all bits but the sign
    of four rounds of them as pairs."""
    assert kept((31 * 2**17,), p).double().mean().item() == pytest.approx(1 - p, abs=8e-6)


@pytest.mark.parametrize("p", [0.991, 0.999_999, 1 - 1e-12])
def test_a_rate_just_below_one_is_left_to_pytorch(p):
    """Sixteen bits would keep too many units, or too few, of the few that remain."""
    results = []
    for mode in (nullcontext(), masks.CheapMasks()):
        torch.manual_seed(0)
        with mode:
            results.append(F.dropout(torch.ones(10_000), p))
    assert torch.equal(*results)


def test_a_rate_may_be_a_tensor():
    torch.manual_seed(0)
    with masks.CheapMasks():
        found = F.dropout(torch.ones(10_000), torch.tensor(0.3))
    torch.testing.assert_close(found[found > 0], torch.full_like(found[found > 0], 1 / 0.7))
    assert abs((found > 0).double().mean() - 0.7) < 6 * math.sqrt(0.3 * 0.7 / 10_000)


def test_a_source_that_never_sets_the_top_bit_is_noticed(monkeypatch):
    bounded = torch.Tensor.random_
    monkeypatch.setattr(torch.Tensor, "random_", lambda tensor, *bounds: bounded(tensor))
    assert worst_keep_rate(kept((ROWS, WIDTH), 0.25), 0.25) > 100


def test_eight_bits_for_a_fifth_would_be_noticed():
    """51 of 256 is 0.1992: too near for a test of each position, so all positions are counted together."""
    torch.manual_seed(0)
    n, p = 40_000_000, 0.2
    error = math.sqrt(p * (1 - p) / n)
    eight = torch.randint(256, (n,), dtype=torch.uint8) >= round(p * 256)
    assert abs(kept((n,), p).count_nonzero().item() / n - 0.8) / error < 6
    assert abs(eight.count_nonzero().item() / n - 0.8) / error > 8


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 5, 7), (0,), (4, 0)])
def test_any_shape_will_do(shape):
    for p in (0.25, 0.3, 0.5):
        mask = masks.inverted(shape, p)
        assert mask.shape == shape
        assert mask.dtype == torch.float32
        torch.testing.assert_close(mask[mask != 0], torch.full_like(mask[mask != 0], 1 / (1 - p)))


@pytest.mark.parametrize("shape", [(4, 3, 2, 5), (4, 1, 2, 5), (4, 3, 1, 1), (6, 7)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_numbers_are_laid_out_like_a_tensor(shape, layout):
    x = torch.zeros(shape)
    x = x.contiguous(memory_format=layout) if x.ndim == 4 else x
    laid = masks.laid_out_like(x, torch.arange(x.numel()))
    assert laid.shape == x.shape
    assert laid.is_contiguous(memory_format=layout if x.ndim == 4 else torch.contiguous_format)
    assert laid.flatten().sort().values.tolist() == list(range(x.numel()))


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


CHANNELS = {F.dropout1d: (50, 40, 3), F.dropout2d: (50, 40, 3, 2), F.dropout3d: (50, 40, 3, 2, 2)}


@pytest.mark.parametrize("function", CHANNELS)
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_channels_are_dropped_whole(function, p):
    """False alarms: an example's 40 channels are all kept, 50 x 0.8^40 = 0.7 %, so the seed is fixed."""
    torch.manual_seed(0)
    x = torch.rand(CHANNELS[function]) + 1
    with masks.CheapMasks():
        y = function(x, p)
    kept = (y != 0).flatten(2)
    assert (kept == kept[..., :1]).all()
    torch.testing.assert_close(y[y != 0], x[y != 0] / (1 - p))
    assert kept.any(2).any(1).all() and not kept.all(2).all(1).any(), "each example keeps some channels and drops some"


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(("function", "shape"), [(F.dropout, (100, 10)), *CHANNELS.items()])
def test_the_gradient_shows_the_mask(function, shape, inplace):
    x = torch.randn(shape, requires_grad=True)
    with masks.CheapMasks():
        y = function(x * 1, 0.5, inplace=inplace)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach() / x.detach())
    assert set(x.grad.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize(
    "x", [torch.ones(5, 4, 6).transpose(1, 2), torch.ones(5, 4, 6)[:, ::2], torch.ones(1, 4, 6).expand(5, 4, 6)]
)
def test_the_result_is_laid_out_like_pytorch_s(x):
    """So that what may be viewed without cheap masks may be viewed with them."""
    with masks.CheapMasks():
        assert F.dropout(x, 0.5).stride() == torch.dropout(x, 0.5, True).stride()


def test_inplace_works_in_place():
    x = torch.ones(1000)
    with masks.CheapMasks():
        y = F.dropout(x, 0.5, inplace=True)
    assert y.data_ptr() == x.data_ptr()
    assert set(x.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_the_result_has_the_type_of_the_input(kind):
    with masks.CheapMasks():
        y = F.dropout(torch.ones(100, dtype=kind), 0.5)
    assert y.dtype == kind
    assert set(y.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("p, training, expected", [(0.5, False, 1.0), (0.0, True, 1.0), (1.0, True, 0.0)])
def test_what_is_not_random_is_left_to_pytorch(p, training, expected):
    with masks.CheapMasks():
        assert (F.dropout(torch.ones(100), p, training) == expected).all()


@pytest.mark.filterwarnings("ignore:dropout2d. Received a 3D input")
@pytest.mark.parametrize(
    ("function", "shape"), [(F.dropout1d, (40, 6)), (F.dropout2d, (40, 6, 2)), (F.dropout3d, (40, 6, 2, 2))]
)
def test_an_input_without_a_batch_drops_what_pytorch_drops(function, shape):
    torch.manual_seed(0)
    expected = function(torch.ones(shape), 0.5)
    torch.manual_seed(0)
    with masks.CheapMasks():
        y = function(torch.ones(shape), 0.5)
    assert torch.equal(y, expected)
    assert set(y.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("x", "p", "error", "message"),
    [
        (torch.arange(5), 0.5, RuntimeError, "can't be cast"),
        (torch.ones(5), 1.5, ValueError, "probability has to be between 0 and 1"),
        (torch.ones(5), -0.1, ValueError, "probability has to be between 0 and 1"),
    ],
)
def test_what_pytorch_refuses_is_refused_with_pytorch_s_words(x, p, error, message):
    with pytest.raises(error, match=message), masks.CheapMasks():
        F.dropout(x, p)


def test_nested_tensors_are_left_to_pytorch():
    rows = torch.nested.nested_tensor([torch.ones(2, 400), torch.ones(3, 400)], layout=torch.jagged)
    with masks.CheapMasks():
        dropped = F.dropout(rows, 0.5)
    values = dropped.values().unique()
    assert dropped.is_nested
    assert values.tolist() == [0, 2]


class Drawn(Exception):
    """Raised in place of a draw."""


@pytest.fixture
def draw_raises(monkeypatch):
    def raise_drawn(*_):
        raise Drawn

    monkeypatch.setattr(masks, "inverted", raise_drawn)


@pytest.mark.usefixtures("draw_raises")
@pytest.mark.parametrize(
    ("function", "shape"), [(F.dropout, (3,)), (F.dropout, ()), (torch.nn.Dropout(0.5), (2, 3)), *CHANNELS.items()]
)
def test_cheap_masks_are_drawn_inside_and_never_after(function, shape):
    """By the functions and by the layers that call them, and after an exception too."""
    with pytest.raises(Drawn), masks.CheapMasks():
        function(torch.ones(shape))
    function(torch.ones(shape))


@pytest.mark.parametrize("source", SOURCES)
def test_masks_follow_pytorch_s_seed(source):
    """False alarms: 1,000 gates twice the same, 1e-200."""

    def draw(seed):
        torch.manual_seed(seed)
        return SOURCES[source]((1000, 8), 0.3)

    assert torch.equal(draw(5), draw(5))
    assert not torch.equal(draw(5), draw(6))


def test_cheap_masks_are_for_networks_on_a_cpu():
    assert isinstance(masks.cheap_masks(torch.nn.Linear(2, 2)), masks.CheapMasks)
    assert isinstance(masks.cheap_masks(torch.nn.ReLU()), masks.CheapMasks)
    assert not isinstance(masks.cheap_masks(torch.nn.Linear(2, 2, device="meta")), masks.CheapMasks)


def test_masks_for_a_cpu_are_there_whatever_the_default_device():
    with torch.device("meta"):
        mask = masks.inverted((5,), 0.5)
    assert mask.device.type == "cpu"


@pytest.mark.parametrize("compiled_by", [torch.compile, lambda net, **how: net.compile(**how) or net])
def test_compiled_gates_are_pytorch_s_own_and_compiled_once(compiled_by):
    """False alarms: one unit kept or dropped in all of 400 draws, 1e-119."""
    torch.compiler.reset()
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    net = compiled_by(torch.nn.Dropout(0.5), backend=count, fullgraph=True)
    x = torch.ones(100)
    draws = []
    for _ in range(4):
        with masks.CheapMasks():
            draws.append(net(x))
    assert len(graphs) == 1
    assert set(torch.cat(draws).tolist()) == {0.0, 2.0}


def test_several_networks_at_once_draw_gates_of_their_own():
    """False alarms: two of three networks keep the same of 200 units, 3 * 2^-200."""
    dropout, rows = torch.nn.Dropout(0.5), torch.ones(3, 200)
    with masks.CheapMasks():
        gated = torch.func.vmap(dropout, randomness="different")(rows)
    assert set(gated.flatten().tolist()) == {0.0, 2.0}
    assert len({tuple(row.tolist()) for row in gated}) == 3
