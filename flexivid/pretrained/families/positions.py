"""Positions of patch centres: the base of modules that give them to a model, and rotary tables.

Frequencies are those of diffusers. Knows grids and angles, no family.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from torch import Tensor, nn

from flexivid.patching.position import patch_centres
from flexivid.patching.shapes import PatchMode, Size3, grid_of
from flexivid.pretrained.families.folding import Fold


class PositionModule(nn.Module):
    """Base of the modules that answer in the place of a native one which knows positions."""

    def __init__(self, native: nn.Module, fold: Fold) -> None:
        super().__init__()
        self.source = (native,)  # in a tuple: it is registered in the model, not here
        self.fold = fold

    @property
    def native(self) -> Any:
        """The native module."""
        return self.source[0]

    def grid(self, latent: Tensor) -> Size3:
        """Tokens of a folded latent (b, c, t', h', w')."""
        return grid_of(Size3(*latent.shape[2:]), self.fold.native)

    def centres(self, latent: Tensor) -> Tensor:
        """Centres of the tokens of a folded latent, in native patches, (n, 3)."""
        return native_centres(self.grid(latent), self.fold.growth, latent.device)


def native_centres(grid: Size3, growth: Size3, device: torch.device) -> Tensor:
    """Centres of weak patches, counted in native patches (the first native one is 0), (n, 3)."""
    return patch_centres(grid, PatchMode(*growth), PatchMode(1, 1, 1), device=device)


def rotary(centres: Tensor, features: tuple[int, int, int], theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of three-axis rotary embeddings at centres (n, 3), as Wan and HunyuanVideo lay them out.

    ``features`` is the share of the head of each axis, ``theta`` the base of the frequencies. Both tables are float32,
    (n, sum of features), each angle twice.

    Example:
        >>> cos, sin = rotary(torch.tensor([[0.0, 0.5, 1.0]]), (2, 2, 2), 10000.0)
        >>> [round(x, 3) for x in cos[0].tolist()]
        [1.0, 1.0, 0.878, 0.878, 0.54, 0.54]
    """
    dtype = torch.float32 if centres.device.type == "mps" else torch.float64
    axes = [
        get_1d_rotary_pos_embed(width, centres[:, axis].to(dtype), theta, use_real=True, freqs_dtype=dtype)  # type: ignore[arg-type]
        for axis, width in enumerate(features)
    ]
    return torch.cat([cos for cos, _ in axes], dim=1), torch.cat([sin for _, sin in axes], dim=1)


def centre_rotary(tables: tuple[Tensor, Tensor], grid: Size3, growth: Size3) -> tuple[Tensor, Tensor]:
    """Rotary tables at the centres of weak patches: from its first native token, half of its extent further.

    ``tables`` are cos, sin of the native ``grid``, (n, e), evenly spaced along each axis, steps under half a turn.

    Example:
        >>> angles = torch.tensor([[0.0], [0.2], [0.4], [0.6]])
        >>> cos, sin = centre_rotary((angles.cos(), angles.sin()), Size3(4, 1, 1), Size3(2, 1, 1))
        >>> [round(angle, 2) for angle in torch.atan2(sin, cos).flatten().tolist()]   # midway in each pair
        [0.1, 0.5]
    """
    turns = torch.complex(*(table.double() for table in tables)).unflatten(0, tuple(grid))  # (t, h, w, e)
    for axis, factor in enumerate(growth):
        if factor > 1 and grid[axis] > 1:
            step = turns.narrow(axis, 1, 1) * turns.narrow(axis, 0, 1).conj()
            turns = turns * torch.polar(torch.ones_like(step.real), step.angle() * (factor - 1) / 2)
        starts = torch.arange(0, grid[axis], factor, device=turns.device)
        turns = turns.index_select(axis, starts)
    turns = turns.flatten(0, 2)
    return turns.real.to(tables[0]), turns.imag.to(tables[1])
