"""95 % intervals of Frechet distances: of one, and of the difference of two; an extrapolation to endless videos. Pure.

A resample is a random half of each set, without replacement (half-sample bootstrap): the distances of halves spread
around their mean as those of whole sets do around theirs. Drawing n of n with replacement repeats videos, which adds
the bias of a small set once more: the quantiles of such distances lie above the distance itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from flexivid.metrics.feature_sets import feature_pair
from flexivid.metrics.frechet import Gaussian, distance

QUANTILE = 1.96  # of the normal distribution, two-sided 95 %


class Bootstrap(NamedTuple):
    """A Frechet distance and its uncertainty by resampling."""

    value: float
    low: float  # lower end of the 95 % interval, at least 0; NaN with fewer than 4 videos
    high: float  # its upper end
    infinity: float | None  # extrapolation to endless videos; ``None`` where halves have fewer videos than features


class Difference(NamedTuple):
    """By how much a Frechet distance is above another one.

    Example:
        >>> Difference(-2.0, -3.5, -0.5).verdict, Difference(0.2, -0.3, 0.7).verdict
        ('better', 'tied')
    """

    difference: float  # negative = the first distance is the smaller one, nearer to the real videos
    low: float  # lower end of the 95 % interval; NaN with fewer than 4 videos
    high: float  # its upper end

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the interval leaves out 0, else ``tied``."""
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "tied"


def bootstrap(generated: Tensor, real: Tensor, *, seed: int = 0, resamples: int = 100) -> Bootstrap:
    """Measure a Frechet distance, and resample both sets for its interval and its extrapolation.

    The interval, value +- 1.96 deviations of the halves, covers the distance of *as many* other videos, so it shows
    whether two such distances differ. Where both sets are nearly of one distribution it is wider than necessary.

    The bias of a Frechet distance is proportional to 1/n. As in FID_infinity (arXiv:1911.07023), a straight line in 1/n
    is followed to 0; here it goes through the mean of the halves and the whole, so ``infinity = 2 value - mean``. Both
    sets are halved, so the bias of both is gone; FID_infinity fits 15 sizes of the generated set alone.

    Features are (n, d) and (m, d). The halves depend on the seed and on the order of the rows alone. ``ValueError`` if
    there are fewer than 2 resamples, or ``feature_sets.feature_pair`` refuses the features.

    Example:
        >>> x = torch.arange(64.0)[:, None] / 64
        >>> [round(number, 2) for number in bootstrap(x + 1, x)]
        [1.0, 0.78, 1.22, 0.99]
    """
    generated, real = feature_pair(generated, real)

    def measure(rows: Tensor, clips: Tensor) -> float:
        return distance(Gaussian.of(generated[rows]), Gaussian.of(real[clips]))

    value, mean, radius = _resampled(measure, len(generated), len(real), seed, resamples)
    has_infinity = min(len(generated), len(real)) // 2 >= max(2, real.shape[1])
    return Bootstrap(value, max(value - radius, 0.0), value + radius, 2 * value - mean if has_infinity else None)


def paired_difference(a: Tensor, b: Tensor, real: Tensor, *, seed: int = 0, resamples: int = 100) -> Difference:
    """Compare two sets that were generated from the same noises and labels, by their distances to the same real videos.

    Such sets share most of their randomness, and so do their distances. Here one draw of halves serves both: the same
    rows of both generated sets and the same real videos. What they share cancels, the bias of a distance too, so the
    interval is narrower than that of two independent distances, often several times.

    Rows i of ``a`` and ``b``, (n, d) each, start from the same noise; ``real`` is (m, d). ``ValueError`` if the sets
    differ in their number of rows, or for the reasons of :func:`bootstrap`.

    Example:
        >>> x = torch.arange(64.0)[:, None] / 64
        >>> difference = paired_difference(x + 1, x + 0.5, x)
        >>> [round(number, 2) for number in difference], difference.verdict
        ([0.75, 0.64, 0.86], 'worse')
    """
    if len(a) != len(b):
        raise ValueError(f"got {len(a)} and {len(b)} videos; expected pairs from the same noises; generate both alike")
    a, real = feature_pair(a, real)
    b, _ = feature_pair(b, real)

    def measure(rows: Tensor, clips: Tensor) -> float:
        target = Gaussian.of(real[clips])
        return distance(Gaussian.of(a[rows]), target) - distance(Gaussian.of(b[rows]), target)

    difference, _, radius = _resampled(measure, len(a), len(real), seed, resamples)
    return Difference(difference, difference - radius, difference + radius)


def _resampled(
    measure: Callable[[Tensor, Tensor], float], num_generated: int, num_real: int, seed: int, resamples: int
) -> tuple[float, float, float]:
    """Value of all rows, mean of random halves, half the width of the 95 % interval; NaN with fewer than 4 videos."""
    if resamples < 2:
        raise ValueError(f"got {resamples} resamples; expected 2 or more; 100 give the interval to within a tenth")
    counts = (num_generated, num_real)
    value = measure(torch.arange(num_generated), torch.arange(num_real))
    if min(counts) < 4:
        return value, math.nan, math.nan
    generator = torch.Generator().manual_seed(seed)
    halves = []
    for _ in range(resamples):
        rows, clips = (torch.randperm(count, generator=generator)[: count // 2] for count in counts)
        halves.append(measure(rows, clips))
    deviation, mean = torch.std_mean(torch.tensor(halves, dtype=torch.float64))
    return value, mean.item(), QUANTILE * deviation.item()
