"""Space-to-depth and back: how a larger patch looks to a transformer that only knows its native one. Pure tensors.

A weak mode is ``growth`` times the native patch, a whole number along each axis. Folding ``growth`` cells into channels
leaves a smaller latent, which the native forward pass cuts by its native patch: its tokens are the weak mode's patches.
Folded channels are ordered (c gt gh gw), cells of one folded cell fastest.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from flexivid.patching.embed import pad_to
from flexivid.patching.shapes import PatchMode, Size3


class Fold(NamedTuple):
    """A weak mode as its model sees it: ``growth`` cells folded into channels, then cut by the ``native`` patch."""

    growth: Size3
    native: PatchMode

    @classmethod
    def between(cls, mode: PatchMode, native: PatchMode) -> Fold:
        """Fold native patches into patches of ``mode``, which is a whole multiple along each axis."""
        if any(side % unit for side, unit in zip(mode, native, strict=True)):
            raise ValueError(
                f"got mode {mode} for a model with native patch {native}; expected a whole multiple of the native side"
                f" along each axis, none smaller; pass for example {PatchMode(native.t, 2 * native.h, 2 * native.w)}"
            )
        return cls(Size3(*(side // unit for side, unit in zip(mode, native, strict=True))), native)

    def apply(self, latent: Tensor) -> Tensor:
        """Move ``growth`` cells into channels: (b, c, t, h, w) -> (b, c gt gh gw, t', h', w').

        The last frame, row and column are repeated until the mode divides; then the native patch divides the result.
        """
        t, h, w = self.growth
        padded = pad_to(latent, PatchMode(*(g * p for g, p in zip(self.growth, self.native, strict=True))))
        return rearrange(padded, "b c (t gt) (h gh) (w gw) -> b (c gt gh gw) t h w", gt=t, gh=h, gw=w)

    def undo(self, folded: Tensor, size: Size3) -> Tensor:
        """Undo ``apply`` for a latent of ``size``: (b, c gt gh gw, t', h', w') -> (b, c, t, h, w)."""
        t, h, w = self.growth
        latent = rearrange(folded, "b (c gt gh gw) t h w -> b c (t gt) (h gh) (w gw)", gt=t, gh=h, gw=w)
        return latent[:, :, : size.t, : size.h, : size.w]


def pool_times(times: Tensor, growth: Size3, grid: Size3) -> Tensor:
    """Turn times (b, n) of the native tokens of ``grid`` into times of weak ones: the largest that each replaces.

    The largest, because a patch that is partly a clean condition still has noise to remove.

    Example:
        >>> import torch
        >>> pool_times(torch.tensor([[0.0, 9.0, 9.0]]), Size3(2, 1, 1), Size3(3, 1, 1))
        tensor([[9., 9.]])
    """
    pooled = F.max_pool3d(times.unflatten(1, (1, *grid)).float(), tuple(growth), ceil_mode=True)
    return pooled.flatten(1).to(times.dtype)
