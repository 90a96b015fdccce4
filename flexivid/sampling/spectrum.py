"""The power spectrum in a model's recipe, and the times that the spectral planner compares it with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from flexivid.budget.spectral import Spectrum
from flexivid.diffusion.process import Process
from flexivid.model.flexidit import FlexiDiT

RECIPE_KEY = "spectrum"


def spectrum_of(model: FlexiDiT) -> Spectrum | None:
    """The power spectrum of the model's training data; ``None`` if its recipe has none.

    Raises:
        ValueError: If the recipe's entry cannot be read.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2))
        >>> spectrum_of(model) is None
        True
        >>> model.recipe = {"spectrum": Spectrum(((1.0,), (1.5, 0.5), (1.0, 1.0)), 0.5, 8).to_plain()}
        >>> spectrum_of(model).clips
        8
    """
    plain = model.recipe.get(RECIPE_KEY)
    return None if plain is None else Spectrum.from_plain(plain)


def required_spectrum(model: FlexiDiT, planner: str) -> Spectrum:
    """The spectrum of the model's training data, for a planner that needs one.

    Args:
        model: The network.
        planner: Name of the planner, for the error.

    Raises:
        ValueError: If the recipe has none or it cannot be read.
    """
    spectrum = spectrum_of(model)
    if spectrum is None:
        raise ValueError(
            f"got planner {planner} for a model whose recipe has no {RECIPE_KEY}; expected one that training measured;"
            " train anew, or choose --planner weak_first"
        )
    return spectrum


def noise_shares(process: Process, times: Sequence[float]) -> list[float]:
    """Times of any process as times of the flow path with the same ratio of data to noise: sigma / (alpha + sigma).

    Args:
        process: The process that the times are of.
        times: In [0, 1].

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
