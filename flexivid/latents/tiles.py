"""Large pictures tile by tile: tiles overlap and are blended, so that no seam is seen and memory is bounded.

One way for all autoencoders: those of diffusers differ in tile sizes and names, and ``AutoencoderTiny`` can tile only
latents of four channels. All tiles are whole ones: the last tile of a row ends where the picture ends.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

OVERLAP = Fraction(1, 4)  # of a tile, as in diffusers


def starts(length: int, tile: int, step: int) -> list[int]:
    """Where tiles begin along an axis.

    Example:
        >>> starts(20, 8, 6), starts(6, 8, 6)
        ([0, 6, 12], [0])
    """
    return [*range(0, max(1, length - tile), step), *([length - tile] if length > tile else [])]


def ramp(length: int, overlap: int, *, first: bool, last: bool) -> Tensor:
    """Weights of a tile along an axis, (length,): rising and falling where it meets other tiles.

    Example:
        >>> ramp(5, 2, first=True, last=False).tolist()
        [1.0, 1.0, 1.0, 0.6666666865348816, 0.3333333432674408]
    """
    weights = torch.ones(length)
    rise = torch.arange(1, overlap + 1) / (overlap + 1)
    if not first:
        weights[:overlap] *= rise
    if not last:
        weights[length - overlap :] *= rise.flip(0)
    return weights


def in_tiles(
    function: Callable[[Tensor], Tensor], x: Tensor, tile: int, *, unit: int = 1, scale: Fraction = Fraction(1)
) -> Tensor:
    """Apply a function to overlapping square tiles of the last two axes of (..., h, w), and blend what it gives.

    The function multiplies rows and columns by ``scale``. Tiles begin at multiples of ``unit``, of which their side is
    one too. Where ``x`` is no larger than a tile, the result is exactly ``function(x)``.

    Example:
        >>> x = torch.arange(100.0).reshape(1, 10, 10)
        >>> torch.allclose(in_tiles(lambda part: 2 * part, x, 4), 2 * x)
        True
    """
    height, width = x.shape[-2:]
    if height <= tile and width <= tile:
        return function(x)
    overlap = max(unit, int(tile * OVERLAP) // unit * unit)
    rows, columns = (starts(length, tile, tile - overlap) for length in (height, width))
    total, weight = None, None
    for top in rows:
        for column in columns:
            part = function(x[..., top : top + tile, column : column + tile])
            if total is None or weight is None:
                full_size = int(height * scale), int(width * scale)
                total, weight = part.new_zeros((*part.shape[:-2], *full_size)), part.new_zeros(full_size)
            down = ramp(part.shape[-2], int(overlap * scale), first=top == 0, last=top == rows[-1])
            right = ramp(part.shape[-1], int(overlap * scale), first=column == 0, last=column == columns[-1])
            mask = (down[:, None] * right).to(part)
            i, j = int(top * scale), int(column * scale)
            total[..., i : i + len(down), j : j + len(right)] += mask * part
            weight[i : i + len(down), j : j + len(right)] += mask
    assert total is not None
    assert weight is not None
    return total / weight
