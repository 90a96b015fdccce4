"""Measures the power spectrum of latents along frames, rows and columns (``flexivid.budget.spectral.Spectrum``).

The transform is the orthonormal DCT-II, which continues a clip by its mirror image: a Fourier transform would see a
jump from the last frame to the first, whose power hides the data's own, and a window mixes the few bins there are. It
keeps the energy: the mean power over the bins of an axis is the variance of the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from flexivid.budget.spectral import Spectrum


class SpectrumMeter:
    """Adds up spectra batch by batch, in float64, until it has seen so many clips. A plain object with plain state.

    Example:
        >>> meter = SpectrumMeter(limit=4)
        >>> for _ in range(3):
        ...     meter.add(torch.randn(2, 3, 4, 8, 8))
        >>> meter.clips, meter.spectrum().size
        (4, Size3(t=4, h=8, w=8))
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit, self.clips = limit, 0
        self._values, self._total = 0, 0.0  # count and sum of all numbers seen
        self._power: list[Tensor] = []  # of t, h, w: sums of squared coefficients of each bin, float64 (n,)

    @property
    def is_full(self) -> bool:
        """Whether further batches are ignored."""
        return self.limit is not None and self.clips >= self.limit

    @torch.no_grad()
    def add(self, latents: Tensor) -> None:
        """Count a batch, (b, c, t, h, w), all of one size, unless the limit is reached; the last one counts whole."""
        if self.is_full:
            return
        size, before = tuple(latents.shape[2:]), tuple(len(row) for row in self._power)
        if len(size) != 3 or before not in ((), size):
            raise ValueError(
                f"got latents {tuple(latents.shape)}; expected (b, c, t, h, w) with (t, h, w) = {before or 'any size'};"
                " measure clips of one size"
            )
        latents = latents.cpu() if latents.device.type == "mps" else latents  # has no float64
        x = latents.double()
        coefficients = (x.movedim(axis, -1) @ _dct(x.shape[axis], x.device) for axis in (2, 3, 4))
        power = [rows.square().sum((0, 1, 2, 3)).cpu() for rows in coefficients]
        self._power = [old + new for old, new in zip(self._power, power, strict=True)] if before else power
        self._total += float(x.sum())
        self._values += x.numel()
        self.clips += len(x)

    def spectrum(self) -> Spectrum | None:
        """The spectrum of all clips so far; ``None`` if there are none, or nothing in them varies."""
        if not self.clips:
            return None
        mean = self._total / self._values
        rows = [row * (len(row) / self._values) for row in self._power]
        for row in rows:
            row[0] = (row[0] - len(row) * mean**2).clamp_min(0)  # a constant has its whole power in bin 0
        variance = float(rows[0].mean())
        if not variance > 1e-12 * (1 + mean**2) or not math.isfinite(variance):
            return None
        t, h, w = (tuple((row / variance).tolist()) for row in rows)
        return Spectrum((t, h, w), math.sqrt(variance), self.clips)

    def state_dict(self) -> dict[str, Any]:
        """All sums, as plain data; a meter that loads them continues exactly."""
        return {
            "clips": self.clips,
            "values": self._values,
            "total": self._total,
            "power": [row.tolist() for row in self._power],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.clips, self._values, self._total = state["clips"], state["values"], state["total"]
        self._power = [torch.tensor(row, dtype=torch.float64) for row in state["power"]]


def _dct(n: int, device: torch.device) -> Tensor:
    """Orthonormal DCT-II, float64 (cell, bin): column k has the frequency k / (2 n)."""
    cells = torch.arange(n, dtype=torch.float64, device=device)
    matrix = torch.cos(torch.pi / n * (cells[:, None] + 0.5) * cells) * math.sqrt(2 / n)
    matrix[:, 0] = math.sqrt(1 / n)
    return matrix
