"""Seeds: repeatable numbers, a global state that nobody touched, and seeds derived from seeds."""

import math
import random
from contextlib import nullcontext
from itertools import product

import numpy as np
import pytest
import torch

from helpers.seeding import derived, seeded

CPU = torch.device("cpu")


def test_numbers_are_those_of_pytorch_s_generator_with_that_seed():
    with seeded(7, CPU):
        drawn = torch.rand(5)
    assert torch.equal(drawn, torch.rand(5, generator=torch.Generator().manual_seed(7)))


def test_a_seed_may_be_a_whole_number_of_numpy():
    with seeded(np.int64(7), CPU):
        drawn = torch.rand(5)
    assert torch.equal(drawn, torch.rand(5, generator=torch.Generator().manual_seed(7)))


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_global_state_comes_back(interrupted):
    before = torch.get_rng_state()
    with pytest.raises(InterruptedError) if interrupted else nullcontext(), seeded(7, CPU):
        torch.rand(5)
        if interrupted:
            raise InterruptedError
    assert torch.equal(torch.get_rng_state(), before)


def test_an_inner_seed_does_not_disturb_the_outer_one():
    with seeded(1, CPU):
        expected = torch.rand(4)
    with seeded(1, CPU):
        first = torch.rand(2)
        with seeded(2, CPU):
            torch.rand(3)
        assert torch.equal(torch.cat([first, torch.rand(2)]), expected)


def test_without_a_seed_numbers_come_from_the_global_state():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with seeded(None, CPU):
        first = torch.rand(2)
    assert torch.equal(torch.cat([first, torch.rand(2)]), expected)


def test_no_gpu_is_reseeded_for_numbers_on_the_cpu(monkeypatch):
    """`torch.manual_seed` reseeds every GPU, now or when CUDA starts."""
    reseeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", reseeded.append)
    monkeypatch.setattr(torch.cuda, "manual_seed", reseeded.append)
    with seeded(7, CPU):
        torch.rand(1)
    assert not reseeded
    torch.manual_seed(7)
    assert reseeded == [7], "what PyTorch itself does has changed, and this test with it"


def test_numpy_and_python_keep_their_own_random_numbers():
    states = np.random.get_state()[1].tolist(), random.getstate()
    with seeded(7, CPU):
        derived(1, 2)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states


# Seeds derived from a run's seed and its epoch

GRID = list(product(range(200), repeat=2))


def test_derived_seeds_are_repeatable_and_know_the_order_of_their_parts():
    assert derived(1, 2) == derived(1, 2)
    assert derived(1, 2) != derived(2, 1)


def test_neighbouring_seeds_and_epochs_never_share_a_derived_seed():
    """False alarms: two of 40,000 random 63-bit numbers coincide, 9e-11."""
    assert len({derived(*pair) for pair in GRID}) == len(GRID)


def test_derived_seeds_are_63_bits_of_which_each_is_set_half_of_the_time():
    """False alarms: 63 shares beyond 6 standard errors, 1e-7."""
    seeds = np.array([derived(*pair) for pair in GRID], dtype=np.uint64)
    bits = (seeds[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert not bits[:, 63].any()
    assert abs(bits[:, :63].mean(0) - 0.5).max() < 6 * 0.5 / math.sqrt(len(GRID))


def test_streams_of_neighbouring_epochs_are_uncorrelated():
    """False alarms: 190 correlations of 10,000 numbers beyond 6 standard errors, 4e-7."""
    streams = []
    for epoch in range(20):
        with seeded(derived(0, epoch), CPU):
            streams.append(torch.randn(10_000))
    correlations = torch.corrcoef(torch.stack(streams)) - torch.eye(20)
    assert correlations.abs().max() < 6 / math.sqrt(10_000)


@pytest.mark.parametrize(("one", "other"), [((7,), (7, 0)), ((7, 0), (7, 0, 0)), ((2**32,), (0, 1))])
def test_another_number_of_parts_is_another_seed(one, other):
    assert derived(*one) != derived(*other)
