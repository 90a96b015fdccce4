"""Drawing the times a network is trained at. Times are (b,) in (0, 1); 1 = noise."""

from __future__ import annotations

import torch
from torch import Tensor


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
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw training times, spread evenly over the distribution (one in each of ``count`` equal shares, shuffled).

    Args:
        count: Number of times b.
        distribution: ``uniform`` or ``logit_normal``.
        mean: Mean of the logit.
        std: Deviation of the logit, > 0.
        shift: See :func:`shift_time`.
        generator: Source of randomness (a CPU generator).

    Returns:
        float32 (b,) in (0, 1).

    Source:
        Logit-normal: SD3 (arXiv:2403.03206, sec. 3.1). Even spread: VDM (arXiv:2107.00630, app. I.1).
    """
    order = torch.randperm(count, generator=generator)
    share = (order + torch.rand(count, generator=generator)) / count
    if distribution == "logit_normal":
        share = torch.sigmoid(mean + std * torch.special.ndtri(share.double())).float()
    elif distribution != "uniform":
        raise ValueError(f"got times {distribution!r}; expected uniform or logit_normal; choose one")
    return shift_time(share, shift).clamp(1e-4, 1 - 1e-4)
