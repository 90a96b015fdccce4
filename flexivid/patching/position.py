"""Where a token sits: patch centres in native units, and the sinusoids made from them. Knows no layers."""

from __future__ import annotations

import torch
from torch import Tensor

from flexivid.patching.shapes import PatchMode, Size3, axis_split


def patch_centres(grid: Size3, mode: PatchMode, native: PatchMode, *, device: torch.device | None = None) -> Tensor:
    """Centres of a mode's patches, in units of native patches (the first native patch has its centre at 0).

    A token of a larger patch stands at the mean of the native tokens it replaces (2502.20126, sec. 3.1), so that
    positions mean the same in every mode; they are fractional where a mode covers an even number of native patches.
    Returns float32 (n, 3), frames slowest.

    Example:
        >>> patch_centres(Size3(1, 1, 2), PatchMode("1x4x4"), PatchMode("1x2x2"))
        tensor([[0.0000, 0.5000, 0.5000],
                [0.0000, 0.5000, 2.5000]])
    """
    axes = [
        (torch.arange(count, device=device, dtype=torch.float32) + 0.5) * (patch / unit) - 0.5
        for count, patch, unit in zip(grid, mode, native, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)


def axis_angles(centres: Tensor, width: int, *, base: float) -> Tensor:
    """Angles of three-axis sinusoids at centres (n, 3): (n, width / 2), the axes one after the other.

    Each axis takes its share of the features, two an angle; ``width`` is even and >= 6. Frequencies fall geometrically;
    ``base`` is the longest period over the shortest (RoPE, arXiv:2104.09864).
    """
    angles = []
    for axis, features in enumerate(axis_split(width)):
        steps = torch.arange(features // 2, device=centres.device, dtype=torch.float32) / (features // 2)
        angles.append(centres[:, axis, None] * base**-steps)
    return torch.cat(angles, dim=-1)


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of positions along one axis, (n,) -> (n, width), in float64 where the device has it.

    The tables of DiT (arXiv:2212.09748) and Latte (arXiv:2401.03048); frequencies as in arXiv:1706.03762.

    Example:
        >>> sinusoids(torch.tensor([0.0, 1.0]), 4).round(decimals=2).tolist()
        [[0.0, 0.0, 1.0, 1.0], [0.84, 0.01, 0.54, 1.0]]
    """
    dtype = torch.float32 if positions.device.type == "mps" else torch.float64
    steps = torch.arange(width // 2, device=positions.device, dtype=dtype) / (width // 2)
    angles = positions.to(dtype)[:, None] * 10000.0**-steps
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
