from contextlib import nullcontext
from itertools import count

import pytest
import torch
from torch import nn

from helpers import precision
from helpers.training import train

CPU, GPU = torch.device("cpu"), torch.device("cuda:1")


def trained(**how) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
    x, labels = torch.randn(64, 8), torch.arange(64) % 3
    return train(model, x, labels, lr=0.1, progress=False, **how)


def weights(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters())


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"architecture": "x86_64", "avx512_f": True, "amx_bf16": True, "avx512_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_f": True, "amx_bf16": False, "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "avx512_f": True, "amx_bf16": False, "avx512_bf16": False}, False),
        ({"architecture": "aarch64", "neon": True}, False),
    ],
)
def test_what_a_processor_can_do_is_asked_of_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert precision.has_bfloat16(CPU) is expected
    assert precision.arithmetic(CPU, torch.bfloat16) == (torch.bfloat16 if expected else None)


def test_a_pytorch_that_cannot_say_what_the_processor_can_computes_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not precision.has_bfloat16(CPU)


@pytest.mark.parametrize("native", [False, True])
def test_a_gpu_that_only_imitates_bfloat16_computes_in_float32(monkeypatch, native):
    """As older ones do, which all the same hold such numbers."""
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext() if device == GPU else pytest.fail(device))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert precision.has_bfloat16(GPU) is native


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_other_types_are_left_to_the_caller(monkeypatch, dtype):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    assert precision.arithmetic(CPU, dtype) == dtype


def test_bfloat16_is_used_where_there_are_instructions_for_it_and_nowhere_else(monkeypatch):
    plain = weights(trained(epochs=2))
    for has in (False, True):
        monkeypatch.setattr(precision, "has_bfloat16", lambda device, has=has: has)
        assert torch.equal(weights(trained(epochs=2, autocast=torch.bfloat16)), plain) is not has


def test_a_run_moves_to_a_machine_without_such_instructions(monkeypatch, tmp_path):
    class Stopped(Exception):
        pass

    calls = count()

    def perturb(x):
        if next(calls) == 3:  # after a first look, and two epochs of one batch
            raise Stopped
        return x

    how = {"epochs": 3, "autocast": torch.bfloat16, "perturb": perturb, "checkpoint": tmp_path / "run.pt"}
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    with pytest.raises(Stopped):
        trained(**how)
    assert how["checkpoint"].exists()
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    assert weights(trained(**how)).isfinite().all()


def test_an_autocast_of_the_caller_s_is_left_on():
    with torch.autocast("cpu", torch.bfloat16), precision.mixed_precision(CPU, None):
        assert torch.is_autocast_enabled("cpu")
