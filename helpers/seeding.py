"""Repeatable random numbers that leave PyTorch's global random state as they found it."""

from collections.abc import Iterator
from contextlib import contextmanager
from operator import index

import numpy as np
import torch


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Random numbers on the CPU and on `device` come from `seed`; ``None`` leaves them to the global state.

    This knows GPUs of CUDA. What other devices draw, such as "mps", comes from their global state, and is not repeated.
    """
    if seed is None:
        yield
        return
    seed, on_gpu = index(seed), device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed GPUs that are not forked
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def state_of_pytorch(device: torch.device) -> list[bytes]:
    """The states of PyTorch's random generators on the CPU and on `device`, to be compared."""
    states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    return [state.numpy().tobytes() for state in states]


def derived(seed: int, *parts: int) -> int:
    """A well-mixed 63-bit seed for a part of what `seed` governs, such as one epoch of a run."""
    return int(np.random.SeedSequence(seed, spawn_key=parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
