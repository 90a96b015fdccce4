"""Likeness of samples at a budget to samples of the same noise at full compute, video by video.

Videos are (b, 3, t, h, w) in [-1, 1]; the network for the perceptual distance is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

MOST_DECIBELS = 100.0  # stands for equality; rounding to 8 bits gives 59
SSIM_WINDOW = 11
BATCH = 8  # videos that are compared at a time


class Fidelity(NamedTuple):
    """Means over videos.

    Args:
        psnr: Peak signal-to-noise ratio, decibels, of all pixels of a video; at most 100, which stands for equality.
        ssim: Structural similarity, mean of the frames; NaN where frames are smaller than its window of 11 pixels.
        perceptual: Euclidean distance of the features; NaN without an extractor.

    Example:
        >>> Fidelity._fields
        ('psnr', 'ssim', 'perceptual')
    """

    psnr: float
    ssim: float
    perceptual: float


@torch.no_grad()
def fidelity(videos: Tensor, full: Tensor, extractor: Callable[[Tensor], Tensor] | None = None) -> Fidelity:
    """Compare videos pair by pair.

    Args:
        videos: At a budget, (b, 3, t, h, w); values outside [-1, 1] are clipped, as they are when written to a file.
        full: At full compute, from the same noise.
        extractor: Features (b, d) of such videos.

    Raises:
        ValueError: If the shapes differ, there is no video, or a value is not finite.

    Example:
        >>> grey = torch.zeros(2, 3, 4, 16, 16)
        >>> likeness = fidelity(grey, grey + 0.2, lambda videos: videos.mean((2, 3, 4)))
        >>> [round(number, 3) for number in likeness]
        [20.0, 0.984, 0.346]
    """
    if videos.shape != full.shape or videos.ndim != 5 or len(videos) == 0:
        raise ValueError(
            f"got videos {tuple(videos.shape)} and {tuple(full.shape)}; expected one shape (b, 3, t, h, w), b not 0;"
            " generate both with the same settings"
        )
    if not (videos.isfinite().all() and full.isfinite().all()):
        raise ValueError("got videos with NaN or infinity; expected [-1, 1]; look at the model that made them")
    parts = [
        torch.stack([_psnr(part, target), _ssim(part, target), _perceptual(part, target, extractor)])
        for part, target in zip(videos.clamp(-1, 1).split(BATCH), full.clamp(-1, 1).split(BATCH), strict=True)
    ]
    return Fidelity(*torch.cat(parts, dim=1).mean(1).tolist())


def _psnr(videos: Tensor, full: Tensor) -> Tensor:
    videos, full = _brightness(videos), _brightness(full)
    decibels = peak_signal_noise_ratio(videos, full, data_range=1.0, reduction="none", dim=(1, 2, 3, 4))
    return decibels.clamp_max(MOST_DECIBELS)


def _ssim(videos: Tensor, full: Tensor) -> Tensor:
    """Mean over the frames of each video; one video at a time, because the squares and products of many fill memory."""
    if min(videos.shape[-2:]) < SSIM_WINDOW:
        return torch.full((len(videos),), math.nan, dtype=torch.float64)
    pairs = zip(_brightness(videos).transpose(1, 2), _brightness(full).transpose(1, 2), strict=True)
    values: list[Any] = [
        structural_similarity_index_measure(frames, target, data_range=1.0) for frames, target in pairs
    ]
    return torch.stack(values)


def _perceptual(videos: Tensor, full: Tensor, extractor: Callable[[Tensor], Tensor] | None) -> Tensor:
    if extractor is None:
        return torch.full((len(videos),), math.nan, dtype=torch.float64)
    features, target = (extractor(part.float()).cpu().double() for part in (videos, full))
    return (features - target).square().sum(1).sqrt()


def _brightness(videos: Tensor) -> Tensor:
    """Pixels in [0, 1]: SSIM depends on the value of black."""
    return (videos.cpu().double() + 1) / 2
