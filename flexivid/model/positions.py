"""Where the tokens of a mode sit, as a network is told: rotary tables, or sinusoids added to the tokens. No weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flexivid.model.block import Tokens
from flexivid.model.config import FlexiDiTConfig
from flexivid.patching.position import axis_angles, patch_centres, sinusoids
from flexivid.patching.shapes import PatchMode, Size3, grid_of

ROTARY_BASE = 100.0  # few tokens an axis: with the 10000 of language models most features would hardly turn
TABLE_BASE = 10000.0


class Positions(nn.Module):
    """Positions of the tokens of a mode, at the centres of its patches."""

    def __init__(self, config: FlexiDiTConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, size: Size3, patch: PatchMode, like: Tensor) -> tuple[Tokens, Tensor]:
        """Latent size -> what blocks need, and the table to add to the tokens (n, d), in the dtype of ``like``."""
        native, grid = self.config.native, grid_of(size, patch)
        centres = patch_centres(grid, patch, native, device=like.device)
        return self.tables(centres, grid, grid_of(size, native), like)

    def tables(self, centres: Tensor, grid: Size3, native_grid: Size3, like: Tensor) -> tuple[Tokens, Tensor]:
        """As :meth:`forward`, for ``centres`` (n, 3) in native patches and the grids of the mode and the native one."""
        if self.config.positions == "sinusoids":
            return self._sinusoids(centres, grid, native_grid, like)
        angles = axis_angles(centres, self.config.head_dim, base=ROTARY_BASE)  # n e/2
        cos, sin = angles.cos(), angles.sin()
        cos, sin = (torch.cat(pair, dim=-1)[:, None].to(like.dtype) for pair in ((cos, cos), (-sin, sin)))  # n 1 e
        # rotary positions alone cannot tell a wall from the middle
        absolute = axis_angles(centres, self.config.width, base=TABLE_BASE)  # n d/2
        return Tokens(cos, sin, grid.t), torch.cat((absolute.cos(), absolute.sin()), dim=-1)

    def _sinusoids(self, centres: Tensor, grid: Size3, native_grid: Size3, like: Tensor) -> tuple[Tokens, Tensor]:
        """DiT's table of columns and rows, and Latte's of frames where there are several."""
        config, (frames, rows, columns) = self.config, centres.T
        if config.position_span:
            rows = rows * (config.position_span / native_grid.h)
            columns = columns * (config.position_span / native_grid.w)
        table = torch.cat([sinusoids(axis, config.width // 2) for axis in (columns, rows)], dim=-1)  # n d
        if native_grid.t == 1:
            return Tokens(None, None, grid.t), table.float()
        of_frames = sinusoids(frames, config.width)  # n d
        if config.attention == "factorised":
            return Tokens(None, None, grid.t, late=of_frames.to(like.dtype)), table.float()
        first = sinusoids(torch.zeros_like(frames[:1]), config.width)  # images stay what they are without frames
        return Tokens(None, None, grid.t), (table + of_frames - first).float()
