"""FlexiDiT: one video diffusion transformer for several patch sizes (arXiv 2502.20126).

Latent (b, c, t, h, w) in, the same shape out; the mode decides how many tokens are in between. Knows nothing of
diffusion: what the output means (noise, velocity, clean video) is the process's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flexivid.model.block import Block, Tokens, modulate
from flexivid.model.conditioning import Condition, Conditioning
from flexivid.model.config import FlexiDiTConfig
from flexivid.patching.embed import FlexiPatchEmbed, FlexiPatchOutput
from flexivid.patching.position import axis_angles, patch_centres
from flexivid.patching.shapes import PatchMode, Size3, grid_of

ROTARY_BASE = 100.0  # few tokens an axis: with the 10000 of language models most features would hardly turn
TABLE_BASE = 10000.0


class FlexiDiT(nn.Module):
    """Spatio-temporal FlexiDiT.

    Args:
        config: Its shape, see :class:`FlexiDiTConfig`.

    Attributes:
        recipe: How it was trained and how to sample it, plain data; filled by ``flexivid.load``, empty otherwise.

    Example:
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4")))
        >>> x, time = torch.zeros(1, 3, 5, 8, 8), torch.tensor([0.5])
        >>> model(x, time).shape == model(x, time, mode="2x4x4").shape == x.shape
        True
    """

    def __init__(self, config: FlexiDiTConfig) -> None:
        super().__init__()
        self.config = config
        self.recipe: Mapping[str, Any] = {}
        modes: tuple[PatchMode, ...] = config.modes  # type: ignore[assignment]
        self.embed = FlexiPatchEmbed(config.in_channels, config.width, modes)
        self.mode_embedding = nn.Parameter(torch.zeros(len(modes), config.width))
        self.conditioning = Conditioning(config.width, config.num_classes, len(modes))
        axes = ("space", "time") if config.attention == "factorised" else ("joint",)
        self.blocks = nn.ModuleList(Block(config, axes[i % len(axes)]) for i in range(config.depth))
        self.out_modulation = nn.Linear(config.width, 2 * config.width)
        self.out = FlexiPatchOutput(config.width, config.out_channels or config.in_channels, modes)
        nn.init.zeros_(self.out_modulation.weight)
        nn.init.zeros_(self.out_modulation.bias)

    @property
    def num_parameters(self) -> int:
        """Number of learned values."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(
        self, x: Tensor, time: Tensor, condition: Condition | None = None, mode: str | PatchMode | None = None
    ) -> Tensor:
        """One pass.

        Args:
            x: Noisy latent, (b, c, t, h, w), any size.
            time: Times, (b,), 0 = data, 1 = noise.
            condition: What to show; ``None`` is the null class.
            mode: Patch mode, ``"2x4x4"`` or :class:`PatchMode`; ``None`` is the native one.

        Returns:
            (b, out_channels, t, h, w).

        Raises:
            ValueError: If the shapes do not fit or the model does not have the mode.
        """
        self._check(x, time)
        patch = self.config.mode(mode)
        size = Size3(*x.shape[2:])
        index = self.config.modes.index(patch)

        h = self.embed(x, patch)  # b n d
        tokens, table = self._places(size, patch, h)
        h = h + (table + self.mode_embedding[index]).to(h.dtype)  # b n d
        steering = F.silu(self.conditioning(time, condition, index))  # b d
        for block in self.blocks:
            if self.config.gradient_checkpointing and torch.is_grad_enabled():
                h = checkpoint(block, h, steering, tokens, use_reentrant=False)
            else:
                h = block(h, steering, tokens)  # b n d
        shift, scale = self.out_modulation(steering).unsqueeze(1).chunk(2, dim=-1)
        return self.out(modulate(h, shift, scale), patch, size)  # b c t h w

    def _places(self, size: Size3, patch: PatchMode, like: Tensor) -> tuple[Tokens, Tensor]:
        """Rotary tables, and the absolute position table (n, d): rotary alone cannot tell a wall from the middle."""
        grid = grid_of(size, patch)
        centres = patch_centres(grid, patch, self.config.native, device=like.device)  # n 3
        angles = axis_angles(centres, self.config.head_dim, base=ROTARY_BASE)  # n e/2
        cos, sin = angles.cos(), angles.sin()
        cos, sin = (torch.cat(pair, dim=-1)[:, None].to(like.dtype) for pair in ((cos, cos), (-sin, sin)))  # n 1 e
        absolute = axis_angles(centres, self.config.width, base=TABLE_BASE)  # n d/2
        return Tokens(cos, sin, grid.t), torch.cat((absolute.cos(), absolute.sin()), dim=-1)

    def _check(self, x: Tensor, time: Tensor) -> None:
        if x.ndim != 5 or x.shape[1] != self.config.in_channels:
            raise ValueError(
                f"got x of shape {tuple(x.shape)}; expected (b, {self.config.in_channels}, t, h, w); add or move axes"
            )
        if time.shape != x.shape[:1]:
            raise ValueError(f"got time of shape {tuple(time.shape)}; expected ({len(x)},); pass one time a sample")
