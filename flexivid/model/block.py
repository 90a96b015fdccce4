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
from flexivid.patching.embed import zero
from flexivid.patching.shapes import PatchMode

EPS = 1e-6
BlockText = tuple[Tensor, Tensor, Tensor]  # keys and values (samples, l + 1, k, e), mask (samples, l + 1)


class Packed(tuple[PatchMode, ...]):
    """Modes of equal shares of a batch, in order, as the ``mode`` of one pass; written ``1x2x2&2x4x4``."""

    __slots__ = ()

    def __str__(self) -> str:
        return "&".join(map(str, self))


class Part(NamedTuple):
    """Samples of one mode in the row."""

    samples: int
    length: int  # tokens of each
    frames: int  # of these along time; the rest are rows and columns


def lengths_of(parts: Sequence[Part]) -> list[int]:
    """Tokens of every sample, in order."""
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
    """What a block needs to know of the tokens beside their values."""

    cos: Tensor | None  # of the rotary angles, (n, 1, e), in the dtype of the tokens; None = no rotary positions
    sin: Tensor | None  # likewise, the first half negated
    frames: int  # tokens along time; the rest of n are rows and columns
    parts: tuple[Part, ...] = ()  # whose tokens are whose, where samples of different lengths share the row and b = 1
    late: Tensor | None = None  # Latte's positions of frames, (n, d), to add before the second block

    def spread(self, values: Tensor) -> Tensor:
        """One vector a sample, made to fit the tokens: (samples, d) -> (b, 1 or n, d)."""
        return spread(values, self.parts) if self.parts else values.unsqueeze(1)


def packed_tokens(shares: Sequence[Tokens], parts: tuple[Part, ...]) -> Tokens:
    """Tokens of all samples in one row, from those of each part."""

    def row(tables: Sequence[Tensor | None]) -> Tensor | None:
        spread_tables = [
            table.expand(part.samples, *table.shape)
            for table, part in zip(tables, parts, strict=True)
            if table is not None
        ]
        return join(spread_tables)[0] if spread_tables else None

    cos, sin, late = (row([getattr(tokens, name) for tokens in shares]) for name in ("cos", "sin", "late"))
    return Tokens(cos, sin, 0, parts, late)


def modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float = EPS) -> Tensor:
    """Layer norm without affine, then the condition's scale and shift: (b, n, d), (b, 1 or n, d) -> (b, n, d)."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=eps), 1 + scale)


class ModulationTable(nn.Module):
    """Adds a table to the modulation that all blocks share: adaLN-single of PixArt-alpha (2310.00426, sec. 2.3)."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(rows, width))

    def forward(self, shared: Tensor) -> Tensor:
        """(samples, rows d) -> the same."""
        return shared + self.table.flatten()


class SelfAttention(nn.Module):
    """Multi-head attention over all tokens (``joint``), those of a frame (``space``) or of a cell (``time``)."""

    def __init__(self, config: FlexiDiTConfig, axes: str) -> None:
        super().__init__()
        self.axes, self.backend, self.num_heads = axes, config.attention_backend, config.num_heads
        width, bias = config.width, config.attention_bias
        self.q, self.k, self.v = (nn.Linear(width, width, bias=bias) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.q_norm, self.k_norm = (
            nn.LayerNorm(config.head_dim, eps=EPS, bias=False) if config.qk_norm else nn.Identity() for _ in range(2)
        )

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        """(b, n, d) -> (b, n, d). Layer norm, since on CPUs it is one kernel, unlike RMS norm."""
        b, n, d = x.shape
        q, k, v = (y.view(b, n, self.num_heads, -1) for y in self._project(x))  # b n k e
        q, k = self.q_norm(q), self.k_norm(k)
        if tokens.cos is not None and tokens.sin is not None:
            q, k = (rotate(y, tokens.cos, tokens.sin) for y in (q, k))
        return self.out(self._attend(q, k, v, tokens).reshape(b, n, d))

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.q(x), self.k(x), self.v(x)  # each b n d

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


class CrossAttention(nn.Module):
    """Attention of video tokens to text tokens. Starts as nothing, since its output layer starts at zero."""

    def __init__(self, config: FlexiDiTConfig) -> None:
        super().__init__()
        width, plain = config.width, config.cross_attention == "plain"
        self.num_heads = config.num_heads
        self.q, self.k, self.v = (nn.Linear(width, width, bias=plain and config.attention_bias) for _ in range(3))
        self.out = zero(nn.Linear(width, width))
        self.norm = nn.Identity() if plain else nn.LayerNorm(width, bias=False)
        self.q_norm, self.k_norm = (
            nn.Identity() if plain else nn.LayerNorm(config.head_dim, bias=False) for _ in range(2)
        )
        for linear in (self.q, self.k, self.v):
            nn.init.xavier_uniform_(linear.weight)

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Text tokens (b, l + 1, d) -> keys and values (b, l + 1, k, e)."""
        keys, values = (linear(tokens).unflatten(2, (self.num_heads, -1)) for linear in (self.k, self.v))
        return self.k_norm(keys), values

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """(b, n, d), keys and values from :meth:`read` and the mask of the text, bool (b, l + 1) -> (b, n, d)."""
        queries = self.q_norm(self.q(self.norm(x)).unflatten(2, (self.num_heads, -1)))  # b n k e
        return self.out(attend(queries, keys, values, mask=mask).flatten(2))


def modulation_of(config: FlexiDiTConfig, rows: int) -> nn.Module:
    """The layer that makes the vectors of a modulation, ``rows`` of them, zero at first."""
    if config.modulation == "single":
        return ModulationTable(rows, config.width)
    return zero(nn.Linear(config.width, rows * config.width))


class Block(nn.Module):
    """adaLN-zero block (2212.09748, sec. 3.2): starts as the identity, since its gates start at zero."""

    def __init__(self, config: FlexiDiTConfig, axes: str) -> None:
        super().__init__()
        self.attention = SelfAttention(config, axes)
        self.mlp_in = nn.Linear(config.width, config.hidden)
        self.mlp_out = nn.Linear(config.hidden, config.width)
        self.modulation = modulation_of(config, 6)
        self.approximate = "tanh" if config.activation == "gelu_tanh" else "none"
        self.eps = config.attention_eps, config.mlp_eps
        attention = self.attention
        for linear in (attention.q, attention.k, attention.v, attention.out, self.mlp_in, self.mlp_out):
            nn.init.xavier_uniform_(linear.weight)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        has_text = config.text_channels and not (config.cross_attention == "plain" and axes == "time")
        self.cross = CrossAttention(config) if has_text else None

    def forward(self, x: Tensor, conditioning: Tensor, tokens: Tokens, text: BlockText | None = None) -> Tensor:
        """Tokens (b, n, d), the activated condition of each sample (samples, d) and this block's text -> (b, n, d)."""
        chunks = tokens.spread(self.modulation(conditioning)).chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = chunks
        x = torch.addcmul(x, gate_a, self.attention(modulate(x, shift_a, scale_a, self.eps[0]), tokens))
        if self.cross is not None and text is not None:
            x = x + self._attend_to_text(x, tokens, text)
        hidden = self.mlp_in(modulate(x, shift_m, scale_m, self.eps[1]))
        hidden = F.gelu(hidden, approximate=self.approximate)  # exact: on CPUs 4-7x faster than the tanh form
        return torch.addcmul(x, gate_m, self.mlp_out(hidden))

    def _attend_to_text(self, x: Tensor, tokens: Tokens, text: BlockText) -> Tensor:
        assert self.cross is not None
        if not tokens.parts:
            return self.cross(x, *text)
        shares = zip(*(table.split([part.samples for part in tokens.parts]) for table in text), strict=True)
        pieces = zip(part_from(x, tokens.parts), shares, strict=True)
        return join([self.cross(piece, *share) for piece, share in pieces])
