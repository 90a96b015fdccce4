"""Choosing the arithmetic: what a device is fast in, and the autocast context for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str = "auto") -> AbstractContextManager:
    """The autocast context of a precision; one around a whole solve, so that weights are cast once.

    ``auto`` is bf16 on GPUs that have it and on CPUs with bf16 instructions, where it is 5-10x faster, else float32.

    Raises:
        ValueError: If the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"got precision {precision!r}; expected one of {', '.join(PRECISIONS)}; choose one")
    dtype = dtype_of(device, precision)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def dtype_of(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The dtype that a precision stands for on a device; ``auto`` is the one that it is fast in."""
    return PRECISIONS[precision] or fast_dtype(device)


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware, else float32."""
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else device.type == "cpu" and cpu_has_bf16()
    return torch.bfloat16 if fast else torch.float32


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AMX or AVX512-BF16)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)
