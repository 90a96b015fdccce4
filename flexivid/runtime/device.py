"""Where to compute and in which precision: the device, the dtypes by their names, what a device is fast in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("auto", *DTYPES)


def pick_device(name: str | None = None) -> torch.device:
    """Return the named device (``ValueError`` if it is not there), or the first accelerator, or the CPU."""
    if name is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if accelerator is None else accelerator
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"got device {name!r}, which is not available ({reason}); expected cpu or an accelerator of this machine;"
            " leave --device out to let it choose"
        ) from error


def dtype_of(device: torch.device, precision: str = "auto") -> torch.dtype:
    """Return the dtype that a precision stands for on a device; ``auto`` is the one that the device is fast in.

    ``ValueError`` if the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"got precision {precision!r}; expected one of {', '.join(PRECISIONS)}; choose one")
    return DTYPES.get(precision) or fast_dtype(device)


def autocast(device: torch.device, precision: str = "auto") -> AbstractContextManager:
    """Return the autocast context of a precision. Enter it once around all solver steps, so that weights are cast once.

    ``auto`` is bf16 on GPUs that have it and on CPUs with bf16 instructions, where it is 5-10x faster, else float32.
    """
    dtype = dtype_of(device, precision)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device multiplies it in hardware, else float32."""
    is_fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else device.type == "cpu" and cpu_has_bf16()
    return torch.bfloat16 if is_fast else torch.float32


def cpu_has_bf16() -> bool:
    """Say whether this CPU multiplies bf16 matrices in hardware (AMX or AVX512-BF16)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)
