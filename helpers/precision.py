"""Arithmetic with fewer bits, where it saves time."""

from contextlib import AbstractContextManager, nullcontext

import torch

BFLOAT16 = ("amx_bf16", "avx512_bf16")  # instructions of processors, as PyTorch calls them


def mixed_precision(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """A context in which layers compute in `arithmetic(device, dtype)`, while parameters stay as they are."""
    dtype = arithmetic(device, dtype)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def arithmetic(device: torch.device, dtype: torch.dtype | None) -> torch.dtype | None:
    """`dtype`, or ``None``, which changes nothing, where `device` has no instructions for it and would take two to three
    times as long as in float32."""
    return None if dtype == torch.bfloat16 and not has_bfloat16(device) else dtype


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` has instructions for bfloat16, as GPUs have since Ampere. The others imitate them."""
    match device.type:
        case "cuda":
            with torch.cuda.device(device):
                return torch.cuda.is_bf16_supported(including_emulation=False)
        case "cpu":
            capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of PyTorch cannot say
            return any(capabilities.get(name) for name in BFLOAT16)
    return True
