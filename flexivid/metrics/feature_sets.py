"""Checks of two feature sets, (n, d) and (m, d), before any distance between them.

All metrics compute in float64 on the CPU, so that a number depends neither on the device nor on the precision of the
extractor's output.
"""

from __future__ import annotations

import warnings

import torch
from numpy.typing import ArrayLike
from torch import Tensor


def feature_pair(x: Tensor | ArrayLike, y: Tensor | ArrayLike) -> tuple[Tensor, Tensor]:
    """Check two feature sets, (n, d) and (m, d), and return them in float64, on the CPU.

    ``ValueError`` if one is no matrix, has fewer than 2 rows or numbers that are not finite, or if they differ in d.

    Example:
        >>> x, y = feature_pair(torch.zeros(2, 3), torch.ones(4, 3))
        >>> x.dtype, y.sum().item()
        (torch.float64, 12.0)
    """
    pair = tuple(torch.as_tensor(features).detach().to("cpu", torch.float64) for features in (x, y))
    shapes = " and ".join(str(tuple(features.shape)) for features in pair)
    if any(features.ndim != 2 for features in pair) or pair[0].shape[1] != pair[1].shape[1]:
        raise ValueError(f"got features {shapes}; expected (n, d) and (m, d); use one extractor for both")
    check_counts(len(pair[0]), len(pair[1]))
    for features in pair:
        bad = (~features.isfinite().all(1)).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"got features with NaN or infinity for {len(bad)} of {len(features)} videos, first at row {bad[0]};"
                " expected finite numbers; look at these videos, or at the model that made them"
            )
    return pair[0], pair[1]


def check_counts(num_x: int, num_y: int) -> None:
    """Refuse sets too small to have a covariance.

    Example:
        >>> check_counts(1, 64)
        Traceback (most recent call last):
        ...
        ValueError: got 1 and 64 videos; expected at least 2 in each set; add videos
    """
    if min(num_x, num_y) < 2:
        raise ValueError(f"got {num_x} and {num_y} videos; expected at least 2 in each set; add videos")


def warn_if_few(num_x: int, num_y: int, num_features: int) -> None:
    """Warn where there are too few videos for a regular covariance: the distance is exact, but its bias is large."""
    few = min(num_x, num_y)
    if few < num_features:
        warnings.warn(
            f"got {few} videos; expected at least {num_features}, the number of features: with fewer the covariance is"
            " singular, and the distance far larger than that of many videos; add videos, or compare only with"
            " distances of as many",
            stacklevel=3,
        )
