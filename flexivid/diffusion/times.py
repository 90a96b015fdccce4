"""Draw the times a network is trained at, (b,) in (0, 1), 1 = noise; and give those of a process on the flow path."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flexivid.diffusion.process import Process


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


def shift_time(time: Tensor, shift: float) -> Tensor:
    """Move times towards noise (shift > 1) or data (shift < 1); 0 and 1 stay.

    Source:
        SD3 (arXiv:2403.03206, eq. 23).

    Example:
        >>> shift_time(torch.tensor([0.0, 0.5, 1.0]), 3.0).tolist()
        [0.0, 0.75, 1.0]
    """
    return shift * time / (1 + (shift - 1) * time)


def draw_times(
    count: int,
    *,
    distribution: str = "uniform",
    mean: float = 0.0,
    std: float = 1.0,
    shift: float = 1.0,
    within: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw training times, float32 (count,) in (0, 1), one in each of ``count`` equal shares of the distribution.

    Args:
        count: Number of times.
        distribution: ``uniform`` or ``logit_normal``, a normal distribution of ``mean`` and ``std`` of the logit.
        mean: Above 0 means more noise.
        std: > 0.
        shift: See :func:`shift_time`.
        within: The part of the distribution that is drawn from: times (low, high), after the shift.
        generator: Of the CPU.

    Source:
        Logit-normal: SD3 (arXiv:2403.03206, sec. 3.1). Even spread: VDM (arXiv:2107.00630, app. I.1).
    """
    if distribution not in ("uniform", "logit_normal"):
        raise ValueError(f"got times {distribution!r}; expected uniform or logit_normal; choose one")
    order = torch.randperm(count, generator=generator)
    share = (order + torch.rand(count, generator=generator)) / count
    logit = (mean, std) if distribution == "logit_normal" else None
    if within != (0.0, 1.0):
        low, high = _shares_below(torch.tensor(within, dtype=torch.float64), logit, shift)
        share = (low + (high - low) * share).float()
    if logit is not None:
        share = torch.sigmoid(mean + std * torch.special.ndtri(share.double())).float()
    return shift_time(share, shift).clamp(max(1e-4, within[0]), min(1 - 1e-4, within[1]))


def _shares_below(times: Tensor, logit: tuple[float, float] | None, shift: float) -> Tensor:
    """Share of the distribution below each time."""
    before = shift_time(times, 1 / shift)
    if logit is None:
        return before
    mean, std = logit
    return torch.special.ndtr((torch.logit(before) - mean) / std)
