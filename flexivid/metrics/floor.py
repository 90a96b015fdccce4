"""The Frechet distance of a perfect generator: real videos against real ones. Pure.

The distance of finite sets is above 0 even if both are of one distribution, and a measured distance means little
without that floor. For one distribution the Frechet distance is smallest, 0, where the two estimates (mean, covariance)
agree. So it is quadratic in their difference, whose variance is the sum of the variances of the two estimates:

    E d(n, m) = c (1/n + 1/m), to leading order, whatever the distribution.

The n videos of a perfect generator differ from the m real ones, but usually there are no n + m real videos. So the m
real ones are split at random into p and q with the same 1/p + 1/q. The smallest sum is 4/m, of two halves; where that
is still too large, for n > m/3, the distance of the halves is scaled down to 1/n + 1/m.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flexivid.metrics.feature_sets import feature_pair
from flexivid.metrics.frechet import Gaussian, distance


def frechet_floor(real: Tensor, num_generated: int, *, seed: int = 0, splits: int = 20) -> float:
    """The mean Frechet distance of ``num_generated`` videos of the real distribution itself to the real ones.

    Parts smaller than the number of features are beyond the leading order: with halves of d/2 videos the floor is too
    low by an eighth where all features vary alike. Those of real videos do not: few directions hold most of the
    variance, and the floor of 128 clips is right to 3 % with halves of 2d/3.

    Features of the real videos are (m, d). The distances of ``splits`` random parts are averaged; these depend on the
    seed and on the order of the rows alone. NaN with fewer than 4 real videos or 2 generated ones. ``ValueError`` if
    the features cannot be used (see ``feature_sets.feature_pair``).

    Example:
        >>> real = torch.randn(400, 20, generator=torch.Generator().manual_seed(0))
        >>> [round(frechet_floor(real, num), 1) for num in (100, 400, 1600)]
        [1.6, 0.6, 0.4]
    """
    real, _ = feature_pair(real, real)
    if len(real) < 4 or num_generated < 2:
        return math.nan
    first = part_size(num_generated, len(real))
    generator = torch.Generator().manual_seed(seed)
    distances = []
    for _ in range(splits):
        order = torch.randperm(len(real), generator=generator)
        distances.append(distance(Gaussian.of(real[order[:first]]), Gaussian.of(real[order[first:]])))
    bias = 1 / num_generated + 1 / len(real)
    return sum(distances) / splits * bias / (1 / first + 1 / (len(real) - first))


def part_size(num_generated: int, num_real: int) -> int:
    """Size p of the smaller part of m videos, so that 1/p + 1/(m - p) is as near to 1/n + 1/m as possible.

    Example:
        >>> part_size(100, 500), part_size(250, 500), part_size(2000, 500)
        (106, 250, 250)
    """
    product = num_real / (1 / num_generated + 1 / num_real)  # p (m - p)
    spread = max(0.0, num_real**2 / 4 - product)
    return max(2, round(num_real / 2 - math.sqrt(spread)))
