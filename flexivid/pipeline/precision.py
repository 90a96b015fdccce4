"""Choosing the arithmetic: what a device is fast in, and the contexts in which a network is called for samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from flexivid.model.flexidit import FlexiDiT
from flexivid.model.frozen import frozen

PRECISIONS = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str = "auto") -> AbstractContextManager:
    """The autocast context of a precision; one around a whole solve, so that weights are cast once.

    ``auto`` is bf16 on GPUs that have it and on CPUs with bf16 instructions, where it is 5-10x faster, else float32.

    Raises:
        ValueError: If the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"got precision {precision!r}; expected one of {', '.join(PRECISIONS)}; choose one")
    dtype = _dtype(device, precision)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


@contextmanager
def sampling_calls(model: FlexiDiT, precision: str = "auto") -> Iterator[None]:
    """Autocast, and the model's weights frozen: for calls without gradients between which the weights do not change.

    Raises:
        ValueError: If the precision is unknown.
    """
    device = next(model.parameters()).device
    with autocast(device, precision):
        dtype = _dtype(device, precision)
        with frozen(model, None if dtype == torch.float32 else dtype):
            yield


def _dtype(device: torch.device, precision: str) -> torch.dtype:
    return PRECISIONS[precision] or fast_dtype(device)


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware, else float32."""
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else device.type == "cpu" and cpu_has_bf16()
    return torch.bfloat16 if fast else torch.float32


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AMX or AVX512-BF16)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)
