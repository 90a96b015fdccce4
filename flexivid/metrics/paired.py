"""The difference of two Frechet distances to the same real videos, with its interval. Pure.

Two sets generated from the same noises and labels share most of their randomness, and so do their distances to the
same real videos. Resampling them together cancels it: the interval of the difference is narrower than that of two
independent distances, often several times.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from flexivid.metrics.bootstrap import QUANTILE
from flexivid.metrics.feature_sets import feature_pair
from flexivid.metrics.frechet import Gaussian, distance


class Difference(NamedTuple):
    """By how much a Frechet distance is above another one.

    Args:
        difference: The distance minus the other one: negative = it is nearer to the real videos.
        low: Lower end of the 95 % interval. Likewise ``high``. NaN with fewer than 4 videos.

    Example:
        >>> Difference(-2.0, -3.5, -0.5).verdict, Difference(0.2, -0.3, 0.7).verdict
        ('better', 'tied')
    """

    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the interval leaves out 0, else ``tied``."""
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "tied"


def paired_difference(a: Tensor, b: Tensor, real: Tensor, *, seed: int = 0, resamples: int = 100) -> Difference:
    """The difference of two Frechet distances to the same real videos, with its interval.

    As in :func:`flexivid.metrics.bootstrap.bootstrap`, a resample is a random half of each set without replacement, and
    the interval is 1.96 deviations of the halves. Here one draw serves both distances: the same rows of both
    generated sets and the same real videos. The bias of a distance, too, is nearly the same on both sides and cancels.

    Args:
        a: Features of the first set, (n, d); row i of it and of ``b`` start from the same noise.
        b: Features of the second set, (n, d).
        real: Features of real videos, (m, d).
        seed: Of the halves; they depend on it and on the order of the rows alone.
        resamples: How many, 2 or more.

    Raises:
        ValueError: If the sets differ in their number of rows, there are fewer than 2 resamples, or the features cannot
            be used (see ``feature_sets.feature_pair``).

    Example:
        >>> x = torch.arange(64.0)[:, None] / 64
        >>> difference = paired_difference(x + 1, x + 0.5, x)
        >>> [round(number, 2) for number in difference], difference.verdict
        ([0.75, 0.64, 0.86], 'worse')
    """
    if resamples < 2:
        raise ValueError(f"got {resamples} resamples; expected 2 or more; 100 give the interval to within a tenth")
    if len(a) != len(b):
        raise ValueError(f"got {len(a)} and {len(b)} videos; expected pairs from the same noises; generate both alike")
    a, real = feature_pair(a, real)
    b, _ = feature_pair(b, real)
    difference, num = _difference(a, b, real), min(len(a), len(real))
    if num < 4:
        return Difference(difference, math.nan, math.nan)
    generator = torch.Generator().manual_seed(seed)
    halves = []
    for _ in range(resamples):
        rows, clips = (torch.randperm(count, generator=generator)[: count // 2] for count in (len(a), len(real)))
        halves.append(_difference(a[rows], b[rows], real[clips]))
    deviation = torch.tensor(halves, dtype=torch.float64).std().item()
    return Difference(difference, difference - QUANTILE * deviation, difference + QUANTILE * deviation)


def _difference(a: Tensor, b: Tensor, real: Tensor) -> float:
    target = Gaussian.of(real)
    return distance(Gaussian.of(a), target) - distance(Gaussian.of(b), target)
