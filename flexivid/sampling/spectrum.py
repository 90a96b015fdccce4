"""The power spectrum in a model's recipe, and the times that the spectral planner compares it with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from flexivid.budget.spectral import Spectrum
from flexivid.diffusion.process import Process
from flexivid.model.flexidit import FlexiDiT


def required_spectrum(model: FlexiDiT, planner: str) -> Spectrum:
    """The spectrum of the model's training data, for a planner that needs one; refuses a recipe without."""
    spectrum = model.recipe.spectrum
    if spectrum is None:
        raise ValueError(
            f"got planner {planner} for a model whose recipe has no spectrum; expected one that training measured;"
            " train anew, or choose --planner weak_first"
        )
    return spectrum


def noise_shares(process: Process, times: Sequence[float]) -> list[float]:
    """Times of any process as times of the flow path with the same ratio of data to noise: sigma / (alpha + sigma).

    Example:
        >>> noise_shares(Process("flow"), [1.0, 0.25])
        [1.0, 0.25]
        >>> [round(share, 2) for share in noise_shares(Process("cosine"), [1.0, 0.5, 0.0])]
        [1.0, 0.5, 0.0]
    """
    if process.path == "flow":
        return list(times)
    alpha, sigma = process.alpha_sigma(torch.tensor(times, dtype=torch.float64))
    return (sigma / (alpha + sigma)).tolist()
