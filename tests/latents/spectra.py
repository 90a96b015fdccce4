"""Spectra of latents that are at hand."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from flexivid.budget.spectral import Spectrum
from flexivid.latents.spectrum import SpectrumMeter


def measure_spectrum(latents: Tensor | Iterable[Tensor]) -> Spectrum | None:
    """The spectrum of latents (b, c, t, h, w), or of batches of them; ``None`` if nothing in them varies."""
    meter = SpectrumMeter()
    for batch in [latents] if isinstance(latents, Tensor) else latents:
        meter.add(batch)
    return meter.spectrum()
