"""One transformer block: attention and feed-forward, pre-normed, modulated and gated by the condition (adaLN-zero).

Samples of different patch modes may share one pass: all their tokens in one row. A linear layer sees one long row;
attention stays inside each sample. Nothing is padded. Shapes: b batch, n tokens, d width, k heads, e head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flexivid.model.attention import attend, packed_operator, rotate
from flexivid.model.config import FlexiDiTConfig
from flexivid.patching.shapes import PatchMode

EPS = 1e-6


class Packed(tuple[PatchMode, ...]):
    """Several modes for one pass, each for an equal share of the batch in order; passed as ``mode``.

    Example:
        >>> str(Packed([PatchMode("1x2x2"), PatchMode("2x4x4")]))
        '1x2x2&2x4x4'
    """

    __slots__ = ()

    def __str__(self) -> str:
        return "&".join(map(str, self))


class Part(NamedTuple):
    """Samples of one mode in the row.

    Args:
        samples: Number of samples.
        length: Tokens of each sample.
        frames: Number of tokens along time; length / frames are rows and columns.
    """

    samples: int
    length: int
    frames: int


def lengths_of(parts: Sequence[Part]) -> list[int]:
    """Tokens of every sample, in order.

    Example:
        >>> lengths_of([Part(2, 8, 2), Part(1, 3, 1)])
        [8, 8, 3]
    """
    return [part.length for part in parts for _ in range(part.samples)]


def join(blocks: Sequence[Tensor]) -> Tensor:
    """Samples of each part, (samples, length, ...) -> one row (1, sum of tokens, ...)."""
    return torch.cat([block.flatten(0, 1) for block in blocks])[None]


def part_from(row: Tensor, parts: Sequence[Part]) -> list[Tensor]:
    """Undo :func:`join`: (1, sum of tokens, ...) -> a view (samples, length, ...) of each part."""
    sizes = [part.samples * part.length for part in parts]
    return [
        piece[0].unflatten(0, (part.samples, part.length))
        for piece, part in zip(row.split(sizes, dim=1), parts, strict=True)
    ]


def spread(values: Tensor, parts: Sequence[Part]) -> Tensor:
    """One vector a sample -> one a token, (samples, d) -> (1, sum of tokens, d)."""
    pieces = values.split([part.samples for part in parts])
    return join([piece[:, None].expand(-1, part.length, -1) for piece, part in zip(pieces, parts, strict=True)])


class Tokens(NamedTuple):
    """Positions of the tokens and which sample they belong to.

    Args:
        cos: Cosines of the rotary angles, (n, 1, e), in the dtype of the tokens.
        sin: Sines, the first half negated, (n, 1, e).
        frames: Number of tokens along time; n / frames are rows and columns.
        parts: Lengths of the samples, if those of several modes share one row (b = 1); empty otherwise.
    """

    cos: Tensor
    sin: Tensor
    frames: int
    parts: tuple[Part, ...] = ()

    def spread(self, values: Tensor) -> Tensor:
        """Broadcast one vector a sample to the tokens: (samples, d) -> (b, 1 or n, d)."""
        return spread(values, self.parts) if self.parts else values.unsqueeze(1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without affine, then the condition's scale and shift: (b, n, d), (b, 1 or n, d) -> (b, n, d)."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=EPS), 1 + scale)


class SelfAttention(nn.Module):
    """Multi-head attention with QK-norm and rotary positions.

    Args:
        config: The network's shape.
        axes: ``joint`` over all tokens, ``space`` within a frame, ``time`` over the frames at one position.
    """

    def __init__(self, config: FlexiDiTConfig, axes: str) -> None:
        super().__init__()
        self.axes, self.backend, self.num_heads = axes, config.attention_backend, config.num_heads
        self.q, self.k, self.v = (nn.Linear(config.width, config.width, bias=False) for _ in range(3))
        self.out = nn.Linear(config.width, config.width)
        self.q_norm, self.k_norm = (nn.LayerNorm(config.head_dim, eps=EPS, bias=False) for _ in range(2))

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        """(b, n, d) -> (b, n, d). Queries and keys take a layer norm, which unlike RMS norm is one kernel on CPUs."""
        b, n, d = x.shape
        q, k, v = (y.view(b, n, self.num_heads, -1) for y in self._project(x))  # b n k e
        q, k = (rotate(norm(y), tokens.cos, tokens.sin) for norm, y in ((self.q_norm, q), (self.k_norm, k)))
        return self.out(self._attend(q, k, v, tokens).reshape(b, n, d))

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, each (b, n, d)."""
        return self.q(x), self.k(x), self.v(x)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, tokens: Tokens) -> Tensor:
        """(b, n, k, e) three times -> (b, n, k, e)."""
        if not tokens.parts:
            return self._attend_part(q, k, v, tokens.frames)
        if self.axes == "joint" and (packed := packed_operator(v, self.backend)):
            return packed(q, k, v, lengths_of(tokens.parts))
        pieces = zip(tokens.parts, *(part_from(y, tokens.parts) for y in (q, k, v)), strict=True)
        return join([self._attend_part(q, k, v, part.frames) for part, q, k, v in pieces])

    def _attend_part(self, q: Tensor, k: Tensor, v: Tensor, frames: int) -> Tensor:
        b = len(q)
        q, k, v = (self._fold(y, frames) for y in (q, k, v))  # b' n' k e
        return self._unfold(attend(q, k, v, self.backend), b, frames)  # b n k e

    def _fold(self, y: Tensor, frames: int) -> Tensor:
        """Fold the axis that attention does not mix into the batch."""
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

    def forward(self, x: Tensor, conditioning: Tensor, tokens: Tokens) -> Tensor:
        """Tokens (b, n, d) and the activated conditioning of each sample (samples, d) -> (b, n, d)."""
        chunks = tokens.spread(self.modulation(conditioning)).chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = chunks
        x = torch.addcmul(x, gate_a, self.attention(modulate(x, shift_a, scale_a), tokens))
        hidden = F.gelu(self.mlp_in(modulate(x, shift_m, scale_m)))  # exact: on CPUs 4-7x faster than the tanh form
        return torch.addcmul(x, gate_m, self.mlp_out(hidden))
