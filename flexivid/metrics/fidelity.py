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
    """Means over videos.

    Args:
        psnr: Peak signal-to-noise ratio, decibels, of all pixels of a video; at most 100, which stands for equality.
        ssim: Structural similarity, mean of the frames; NaN where frames are smaller than its window of 11 pixels.
        perceptual: Euclidean distance of the features; NaN where there are none.

    Example:
        >>> Fidelity._fields
        ('psnr', 'ssim', 'perceptual')
    """

    psnr: float
    ssim: float
    perceptual: float


@torch.no_grad()
def likeness(videos: Tensor, full: Tensor) -> Tensor:
    """PSNR and SSIM of each video, see :class:`Fidelity`: float64 (b, 2).

    Args:
        videos: At a budget, (b, 3, t, h, w) in [-1, 1].
        full: At full compute, from the same noise.

    Raises:
        ValueError: If the shapes differ.

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
    pairs = zip(videos.split(1), full.split(1), strict=True)  # the squares and products of all would fill memory
    rows = [_psnr_and_ssim(_brightness(video), _brightness(target)) for video, target in pairs]
    return torch.tensor(rows, dtype=torch.float64)


def _psnr_and_ssim(video: Tensor, target: Tensor) -> tuple[float, float]:
    psnr = peak_signal_noise_ratio(video, target, data_range=1.0).clamp_max(MOST_DECIBELS).item()
    if min(video.shape[-2:]) < SSIM_WINDOW:
        return psnr, math.nan
    frames, target_frames = video[0].transpose(0, 1), target[0].transpose(0, 1)  # t c h w
    ssim: Any = structural_similarity_index_measure(frames, target_frames, data_range=1.0)
    return psnr, ssim.item()


def _brightness(video: Tensor) -> Tensor:
    """Pixels in [0, 1]: SSIM depends on the value of black."""
    return (video.cpu().double() + 1) / 2
