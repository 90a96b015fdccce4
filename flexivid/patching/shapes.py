"""Sizes and patch modes as plain named tuples. Standard library only.

Axes are always (t, h, w) = frames, rows, columns; a mode's sides are in latent cells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from operator import index
from typing import NamedTuple


class Size3(NamedTuple):
    """Extent along frames, rows and columns."""

    t: int
    h: int
    w: int

    @property
    def volume(self) -> int:
        """Number of cells."""
        return self.t * self.h * self.w


class PatchMode(Size3):
    """A 3-D patch size, written ``2x4x4`` = frames x rows x columns of the latent.

    Accepts the written form, three numbers, or any sequence of three.

    Raises:
        ValueError: If the text is not of the form ``2x4x4`` or a side is below 1.

    Example:
        >>> PatchMode("2x4x4") == PatchMode(2, 4, 4) == (2, 4, 4)
        True
        >>> str(PatchMode("1x2x2")), PatchMode("1x2x2").volume
        ('1x2x2', 4)
    """

    __slots__ = ()

    def __new__(cls, t: int | str | tuple[int, int, int], h: int | None = None, w: int | None = None) -> PatchMode:
        sides = (
            _parse(t) if isinstance(t, str) else tuple(t) if h is w is None and isinstance(t, Iterable) else (t, h, w)
        )
        numbers = [whole_number(side) for side in sides]
        if len(numbers) != 3 or not all(number is not None and number >= 1 for number in numbers):
            raise ValueError(f"got patch mode {sides}; expected three whole numbers >= 1; write it like '2x4x4'")
        return super().__new__(cls, *numbers)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.t}x{self.h}x{self.w}"

    def __repr__(self) -> str:
        return f"PatchMode('{self}')"


def _parse(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\s*\d+x\d+x\d+\s*", text):
        raise ValueError(f"got patch mode {text!r}; expected FRAMESxROWSxCOLUMNS; write it like '2x4x4'")
    return tuple(int(side) for side in text.split("x"))


def whole_number(value: object) -> int | None:
    """Return a whole number of any library as an int; None for anything else, truth values and 2.0 too.

    Example:
        >>> whole_number(3), whole_number(3.0), whole_number(True), whole_number("3")
        (3, None, None, None)
    """
    try:
        number = index(value)  # type: ignore[arg-type]
    except TypeError:
        return None
    return None if isinstance(value, bool) else number


def grid_of(size: tuple[int, int, int], mode: PatchMode) -> Size3:
    """Tokens along t, h, w for a latent of ``size``; a side the mode does not divide is rounded up (it is padded).

    Example:
        >>> grid_of((21, 60, 104), PatchMode("2x4x4"))
        Size3(t=11, h=15, w=26)
    """
    if len(size) != 3 or min(size) < 1:
        raise ValueError(f"got latent size {tuple(size)}; expected (t, h, w), each >= 1; pass the size of the latent")
    return Size3(*(-(-side // patch) for side, patch in zip(size, mode, strict=True)))


def num_tokens(size: tuple[int, int, int], mode: PatchMode) -> int:
    """Length of the token sequence of one sample."""
    return grid_of(size, mode).volume


def underlying_patch(modes: tuple[PatchMode, ...]) -> PatchMode:
    """The patch of the shared kernel: the largest side of any mode along each axis (the paper's p').

    Example:
        >>> underlying_patch((PatchMode("1x2x2"), PatchMode("2x2x2"), PatchMode("1x4x4")))
        PatchMode('2x4x4')
    """
    return PatchMode(*(max(sides) for sides in zip(*modes, strict=True)))


def shrinks_far(old: int, new: int) -> bool:
    """Whether a side shrinks to less than half: bilinear interpolation skips cells there."""
    return old > 2 * new


def axis_split(width: int) -> tuple[int, int, int]:
    """Share an even number of features among t, h, w as even numbers, rows and columns alike, the rest to frames.

    Example:
        >>> axis_split(64), axis_split(72)
        ((24, 20, 20), (24, 24, 24))
    """
    if width < 6 or width % 2:
        raise ValueError(f"got {width} features for three axes; expected an even number >= 6; change width / num_heads")
    side = width // 6 * 2
    return width - 2 * side, side, side
