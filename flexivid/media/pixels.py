"""Pixels: uint8 for files and screens, [-1, 1] for networks."""

from __future__ import annotations

import torch
from torch import Tensor


def to_unit(frames: Tensor) -> Tensor:
    """uint8 pixels -> float32 in [-1, 1], on the tensor's device."""
    return frames.float() / 127.5 - 1


def to_bytes(video: Tensor) -> Tensor:
    """Video in [-1, 1] -> uint8, rounded; values outside are clipped.

    Example:
        >>> to_bytes(torch.tensor([-1.0, 0.0, 1.0, 3.0])).tolist()
        [0, 128, 255, 255]
    """
    return ((video.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
