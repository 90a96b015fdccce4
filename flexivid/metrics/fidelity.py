"""Likeness of samples at a budget to samples of the same noise at full compute, video by video."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

MOST_DECIBELS = 100.0  # stands for equality; rounding to 8 bits gives 59
SSIM_WINDOW = 11


class Fidelity(NamedTuple):
    """Means over videos."""

    psnr: float  # of all pixels of a video, decibels; at most 100, which stands for equality
    ssim: float  # structural similarity, mean of the frames; NaN where frames are smaller than its window of 11 pixels
    perceptual: float  # Euclidean distance of the features; NaN where there are none


@torch.no_grad()
def likeness(videos: Tensor, full: Tensor) -> Tensor:
    """PSNR and SSIM of each video, see :class:`Fidelity`: float64 (b, 2).

    Videos at a budget and at full compute, from the same noise, are (b, 3, t, h, w) in [-1, 1]; ``ValueError`` if their
    shapes differ.

    Example:
        >>> grey = torch.zeros(2, 3, 4, 16, 16)
        >>> likeness(grey, grey + 0.2)[0].round(decimals=3).tolist()
        [20.0, 0.984]
    """
    if videos.shape != full.shape or videos.ndim != 5:
        raise ValueError(
            f"got videos {tuple(videos.shape)} and {tuple(full.shape)}; expected one shape (b, 3, t, h, w); generate"
            " both with the same settings"
        )
    rows = []
    for pair in zip(videos.split(1), full.split(1), strict=True):  # the squares and products of all would fill memory
        video, target = (side.cpu().double() for side in pair)
        rows.append((psnr(video, target).item(), _ssim(video, target)))
    return torch.tensor(rows, dtype=torch.float64)


def psnr(videos: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each video in decibels, (b, ...) in [-1, 1] -> (b,); at most 100.

    Example:
        >>> psnr(torch.zeros(1, 4), torch.full((1, 4), 0.2)).round(decimals=3)
        tensor([20.])
    """
    axes = tuple(range(1, videos.ndim))
    ratios = peak_signal_noise_ratio(videos / 2, targets / 2, data_range=1.0, dim=axes, reduction="none")
    return ratios.clamp_max(MOST_DECIBELS)


def _ssim(video: Tensor, target: Tensor) -> float:
    if min(video.shape[-2:]) < SSIM_WINDOW:
        return math.nan
    a, b = ((side[0].transpose(0, 1) + 1) / 2 for side in (video, target))  # t c h w in [0, 1]: SSIM depends on black
    ssim: Any = structural_similarity_index_measure(a, b, data_range=1.0)
    return ssim.item()
