"""Samples of different patch modes in one pass: all their tokens in one row, and who attends to whom.

A linear layer sees one long row of tokens; attention stays inside each sample. Nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from flexivid.patching.shapes import PatchMode


class Packed(tuple[PatchMode, ...]):
    """Modes of equal shares of a batch, in order: what to pass as ``mode`` for several modes in one pass.

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
        samples: How many.
        length: Tokens of each.
        frames: Of these along time; the rest are rows and columns.
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
