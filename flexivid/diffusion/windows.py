"""Videos longer than those trained on: every step calls the network on overlapping windows and averages the outputs.

A window is as long as the videos trained on, so the network sees nothing that it has not learned. Each overlaps the
next by half, and outputs count less towards the ends of their window. All windows of a step are paid for. The same idea
as MultiDiffusion (arXiv:2302.08113), along time. A scene holds together from window to window, not over minutes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def cut(x: Tensor, starts: Sequence[int], length: int) -> Tensor:
    """Windows of videos: (b, c, t, h, w) -> (b windows, c, length, h, w), those of a video one after the other.

    Example:
        >>> cut(torch.arange(4.0).view(1, 1, 4, 1, 1), [0, 2], 2).flatten(1).tolist()
        [[0.0, 1.0], [2.0, 3.0]]
    """
    return torch.stack([x[:, :, start : start + length] for start in starts], dim=1).flatten(0, 1)


def blend(windows: Tensor, starts: Sequence[int], frames: int) -> Tensor:
    """Videos of windows: (b windows, c, length, h, w) -> (b, c, frames, h, w), weighted means where they overlap.

    Example:
        >>> x = torch.randn(2, 1, 7, 1, 1)
        >>> torch.allclose(blend(cut(x, [0, 2, 3], 4), [0, 2, 3], 7), x)
        True
    """
    parts = windows.unflatten(0, (-1, len(starts)))  # b windows c l h w
    length = windows.shape[2]
    ramp = torch.arange(1, length + 1, device=windows.device)
    weight = torch.minimum(ramp, ramp.flip(0)).to(windows.dtype).view(-1, 1, 1)  # l 1 1
    total = parts.new_zeros(len(parts), windows.shape[1], frames, *windows.shape[3:])
    count = parts.new_zeros(frames, 1, 1)
    for number, start in enumerate(starts):
        total[:, :, start : start + length] += weight * parts[:, number]
        count[start : start + length] += weight
    return total / count
