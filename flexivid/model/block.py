"""One transformer block: attention and feed-forward, pre-normed, modulated and gated by the condition (adaLN-zero).

Column of shapes: b batch, n tokens, d width, k heads, e head dim.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flexivid.model.attention import attend, rotate
from flexivid.model.config import FlexiDiTConfig

EPS = 1e-6


class Tokens(NamedTuple):
    """What a block needs to know of the tokens beside their values.

    Args:
        cos: Cosines of the rotary angles, (n, 1, e), in the dtype of the tokens.
        sin: Sines, the first half negated, (n, 1, e).
        frames: Tokens along time; the rest of n are rows and columns.
    """

    cos: Tensor
    sin: Tensor
    frames: int


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without affine, then the condition's scale and shift: (b, n, d), (b, 1, d) -> (b, n, d)."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=EPS), 1 + scale)


class SelfAttention(nn.Module):
    """Multi-head attention with QK-norm and rotary positions.

    Args:
        config: The network's shape.
        axes: ``joint`` over all tokens, ``space`` within a frame, ``time`` along a place.
    """

    def __init__(self, config: FlexiDiTConfig, axes: str) -> None:
        super().__init__()
        self.axes, self.backend, self.num_heads = axes, config.attention_backend, config.num_heads
        self.q, self.k, self.v = (nn.Linear(config.width, config.width, bias=False) for _ in range(3))
        self.out = nn.Linear(config.width, config.width)
        self.q_norm, self.k_norm = (nn.LayerNorm(config.head_dim, eps=EPS, bias=False) for _ in range(2))

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        """(b, n, d) -> (b, n, d). Layer norm, since on CPUs it is one kernel, unlike RMS norm."""
        b, n, d = x.shape
        q, k, v = (linear(x).view(b, n, self.num_heads, -1) for linear in (self.q, self.k, self.v))  # b n k e
        q, k = (rotate(norm(y), tokens.cos, tokens.sin) for norm, y in ((self.q_norm, q), (self.k_norm, k)))
        q, k, v = (self._fold(y, tokens.frames) for y in (q, k, v))  # b' n' k e
        return self.out(self._unfold(attend(q, k, v, self.backend), b, tokens.frames).reshape(b, n, d))

    def _fold(self, y: Tensor, frames: int) -> Tensor:
        """Move the axes that attention leaves alone into the batch."""
        if self.axes == "joint":
            return y
        y = y.unflatten(1, (frames, -1))  # b t s k e
        return (y if self.axes == "space" else y.transpose(1, 2)).flatten(0, 1)

    def _unfold(self, y: Tensor, batch: int, frames: int) -> Tensor:
        if self.axes == "joint":
            return y
        y = y.unflatten(0, (batch, -1))
        return (y if self.axes == "space" else y.transpose(1, 2)).flatten(1, 2)


class Block(nn.Module):
    """adaLN-zero block (2212.09748, sec. 3.2): starts as the identity, since its gates start at zero.

    Args:
        config: The network's shape.
        axes: Which tokens attend to each other, see :class:`SelfAttention`.
    """

    def __init__(self, config: FlexiDiTConfig, axes: str) -> None:
        super().__init__()
        self.attention = SelfAttention(config, axes)
        self.mlp_in = nn.Linear(config.width, config.hidden)
        self.mlp_out = nn.Linear(config.hidden, config.width)
        self.modulation = nn.Linear(config.width, 6 * config.width)
        attention = self.attention
        for linear in (attention.q, attention.k, attention.v, attention.out, self.mlp_in, self.mlp_out):
            nn.init.xavier_uniform_(linear.weight)
        for linear in (attention.out, self.mlp_in, self.mlp_out):
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, steering: Tensor, tokens: Tokens) -> Tensor:
        """Tokens (b, n, d) and the activated condition (b, d) -> (b, n, d)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(steering).unsqueeze(1).chunk(6, dim=-1)
        x = torch.addcmul(x, gate_a, self.attention(modulate(x, shift_a, scale_a), tokens))
        hidden = F.gelu(self.mlp_in(modulate(x, shift_m, scale_m)))  # exact: on CPUs 4-7x faster than the tanh form
        return torch.addcmul(x, gate_m, self.mlp_out(hidden))
