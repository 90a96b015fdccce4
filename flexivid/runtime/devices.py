"""Choosing where to compute."""

from __future__ import annotations

import torch


def pick_device(name: str | None = None) -> torch.device:
    """The named device, or the first accelerator, or the CPU.

    Raises:
        ValueError: If the named device is not there.
    """
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
