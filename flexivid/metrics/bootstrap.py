"""Uncertainty of a Frechet distance: a 95 % interval, and an extrapolation to endless videos. Pure.

A resample is a random half of each set, without replacement (half-sample bootstrap): the distances of halves spread
around their mean as those of whole sets do around theirs. Drawing n of n with replacement repeats videos, which adds
the bias of a small set once more: the quantiles of such distances lie above the distance itself.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from flexivid.metrics.feature_sets import feature_pair
from flexivid.metrics.frechet import Gaussian, distance

QUANTILE = 1.96  # of the normal distribution, two-sided 95 %


class Bootstrap(NamedTuple):
    """A distance and its uncertainty by resampling.

    Args:
        value: Frechet distance of the whole sets.
        low: Lower end of the 95 % interval, at least 0. Likewise ``high``. NaN with fewer than 4 videos.
        infinity: Extrapolation to endless videos; ``None`` where halves have fewer videos than features.

    Example:
        >>> Bootstrap._fields
        ('value', 'low', 'high', 'infinity')
    """

    value: float
    low: float
    high: float
    infinity: float | None


def bootstrap(generated: Tensor, real: Tensor, *, seed: int = 0, resamples: int = 100) -> Bootstrap:
    """Resample both sets.

    The interval, value +- 1.96 deviations of the halves, covers the distance of *as many* other videos, so it shows
    whether two such distances differ. Where both sets are nearly of one distribution it is wider than necessary.

    The bias of a Frechet distance is proportional to 1/n. As in FID_infinity (arXiv:1911.07023), a straight line in 1/n
    is followed to 0; here it goes through the mean of the halves and the whole, so ``infinity = 2 value - mean``. Both
    sets are halved, so the bias of both is gone; FID_infinity fits 15 sizes of the generated set alone.

    Args:
        generated: Features, (n, d). Likewise ``real``, (m, d).
        seed: Of the halves; they depend on it and on the order of the rows alone.
        resamples: How many, 2 or more.

    Raises:
        ValueError: If there are fewer than 2 resamples, or ``feature_sets.feature_pair`` refuses the features.

    Example:
        >>> x = torch.arange(64.0)[:, None] / 64
        >>> [round(number, 2) for number in bootstrap(x + 1, x)]
        [1.0, 0.78, 1.22, 0.99]
    """
    if resamples < 2:
        raise ValueError(f"got {resamples} resamples; expected 2 or more; 100 give the interval to within a tenth")
    generated, real = feature_pair(generated, real)
    value, num = distance(Gaussian.of(generated), Gaussian.of(real)), min(len(generated), len(real))
    if num < 4:
        return Bootstrap(value, math.nan, math.nan, None)
    generator = torch.Generator().manual_seed(seed)
    halves = [distance(_half(generated, generator), _half(real, generator)) for _ in range(resamples)]
    deviation, mean = (statistic.item() for statistic in torch.std_mean(torch.tensor(halves, dtype=torch.float64)))
    infinity = 2 * value - mean if num // 2 >= real.shape[1] else None
    low, high = value - QUANTILE * deviation, value + QUANTILE * deviation
    return Bootstrap(value, max(low, 0.0), high, infinity)


def _half(features: Tensor, generator: torch.Generator) -> Gaussian:
    return Gaussian.of(features[torch.randperm(len(features), generator=generator)[: len(features) // 2]])
