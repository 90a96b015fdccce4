"""Space-to-depth and back: how a larger patch looks to a transformer that only knows its native one. Pure tensors.

A weak mode is ``growth`` times the native patch, a whole number along each axis. Folding ``growth`` cells into channels
leaves a smaller latent, which the native forward pass cuts by its native patch: its tokens are the weak mode's patches.
Folded channels are ordered (c gt gh gw), cells of one folded cell fastest.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from flexivid.patching.embed import pad_to
from flexivid.patching.shapes import PatchMode, Size3


def growth_of(mode: PatchMode, native: PatchMode) -> Size3:
    """How many native patches a patch of ``mode`` covers along each axis.

    Raises:
        ValueError: If the mode is not a whole multiple of the native one along each axis.

    Example:
        >>> growth_of(PatchMode("2x4x4"), PatchMode("1x2x2"))
        Size3(t=2, h=2, w=2)
    """
    if any(side % unit for side, unit in zip(mode, native, strict=True)):
        raise ValueError(
            f"got mode {mode} for a model with native patch {native}; expected a whole multiple of the native side"
            f" along each axis, none smaller; pass for example {PatchMode(native.t, 2 * native.h, 2 * native.w)}"
        )
    return Size3(*(side // unit for side, unit in zip(mode, native, strict=True)))


def fold(latent: Tensor, growth: Size3, native: PatchMode) -> Tensor:
    """Move ``growth`` cells into channels, after repeating the last frame, row and column until the weak mode divides.

    Args:
        latent: (b, c, t, h, w).
        growth: Native patches per weak patch along each axis.
        native: Patch of the native mode.

    Returns:
        (b, c gt gh gw, t', h', w') that ``native`` divides.

    Example:
        >>> import torch
        >>> fold(torch.zeros(1, 16, 5, 8, 8), Size3(2, 2, 2), PatchMode("1x2x2")).shape
        torch.Size([1, 128, 3, 4, 4])
    """
    mode = PatchMode(*(g * p for g, p in zip(growth, native, strict=True)))
    return rearrange(
        pad_to(latent, mode),
        "b c (t gt) (h gh) (w gw) -> b (c gt gh gw) t h w",
        gt=growth.t,
        gh=growth.h,
        gw=growth.w,
    )


def unfold(folded: Tensor, growth: Size3, size: Size3) -> Tensor:
    """Undo ``fold`` and crop the padding.

    Args:
        folded: (b, c gt gh gw, t', h', w').
        growth: Native patches per weak patch along each axis.
        size: Size (t, h, w) of the latent before folding.

    Returns:
        (b, c, t, h, w).
    """
    latent = rearrange(
        folded,
        "b (c gt gh gw) t h w -> b c (t gt) (h gh) (w gw)",
        gt=growth.t,
        gh=growth.h,
        gw=growth.w,
    )
    return latent[:, :, : size.t, : size.h, : size.w]


def pool_times(times: Tensor, growth: Size3, grid: Size3) -> Tensor:
    """Times given per native token, for weak tokens: the largest among the native tokens that each replaces.

    The noisiest, because a patch that is partly a clean condition still has noise to remove.

    Args:
        times: (b, n), n tokens of the native grid.
        growth: Native patches per weak patch along each axis.
        grid: Native tokens along t, h, w.

    Example:
        >>> import torch
        >>> pool_times(torch.tensor([[0.0, 9.0, 9.0]]), Size3(2, 1, 1), Size3(3, 1, 1))
        tensor([[9., 9.]])
    """
    pooled = F.max_pool3d(times.unflatten(1, (1, *grid)).float(), tuple(growth), ceil_mode=True)
    return pooled.flatten(1).to(times.dtype)
