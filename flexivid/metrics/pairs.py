"""Distances over all pairs of videos, without a Gaussian: the kernel distance (KVD, and KID for pictures), and PRDC.

Precision, recall, density and coverage tell quality and variety apart, which FVD mixes: each video has a ball in
feature space that reaches to the k-th nearest video of its own set. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from flexivid.metrics.feature_sets import feature_pair

ROWS = 1024  # of a matrix of pairs that are in memory at once
SAME = 1e-12  # squared distance, over squared lengths, below which two videos count as one: rounding of float32


def kernel_distance(x: Tensor | ArrayLike, y: Tensor | ArrayLike) -> float:
    """Squared maximum mean discrepancy under the kernel ``(x . y / d + 1)^3``.

    The unbiased estimate, over all pairs: its mean does not depend on how many videos there are, and for sets of one
    distribution it is negative about every other time. Published KVD and KID average it over random subsets.

    Features are (n, d) and (m, d); ``ValueError`` if ``feature_pair`` refuses them.

    Source:
        KID, arXiv:1801.01401, eq. 4; for videos arXiv:1812.01717.

    Example:
        >>> kernel_distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]]))
        297.5
    """
    x, y = feature_pair(x, y)
    return _mean_of_pairs(x) + _mean_of_pairs(y) - 2 * _total(x, y) / (len(x) * len(y))


class Prdc(NamedTuple):
    """Fractions and counts of videos inside the balls of the other set."""

    precision: float  # fraction of generated videos inside a real one's ball: quality
    recall: float  # fraction of real videos inside a generated one's ball: variety
    density: float  # real balls that hold a generated video, over k; may exceed 1; outliers move it little
    coverage: float  # fraction of real videos with a generated one inside their ball; outliers do not raise it


def prdc(generated: Tensor | ArrayLike, real: Tensor | ArrayLike, *, neighbours: int = 5) -> Prdc:
    """Precision, recall, density and coverage of features (n, d) by features (m, d).

    k is ``neighbours``, or fewer where a set has no more than k videos. ``ValueError`` if ``feature_pair`` refuses
    them.

    Source:
        Precision and recall arXiv:1904.06991; density and coverage arXiv:2002.09797, whose k = 5 serves all four.

    Example:
        >>> real = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
        >>> prdc(torch.tensor([[0.5], [1.5]]), real, neighbours=1)
        Prdc(precision=1.0, recall=0.75, density=2.0, coverage=0.75)
    """
    generated, real = feature_pair(generated, real)
    k = min(neighbours, len(generated) - 1, len(real) - 1)
    centre = real.mean(0)  # distances stay, squares of lengths shrink, and with them the rounding
    generated, real = generated - centre, real - centre
    reach, reach_real = _reach(generated, k), _reach(real, k)
    balls = torch.zeros(len(generated))  # how many real ones hold each generated video
    recalled = covered = 0
    for rows, own_reach in zip(real.split(ROWS), reach_real.split(ROWS), strict=True):
        gaps = _gaps(rows, generated)
        inside = gaps <= own_reach[:, None]
        balls += inside.sum(0)
        covered += int(inside.any(1).sum())
        recalled += int((gaps <= reach).any(1).sum())
    precision, density = (balls > 0).double().mean().item(), balls.double().mean().item() / k
    return Prdc(precision, recalled / len(real), density, covered / len(real))


def _reach(x: Tensor, k: int) -> Tensor:
    """Squared distance of each row to its k-th nearest other row."""
    return torch.cat([_gaps(rows, x).kthvalue(k + 1).values for rows in x.split(ROWS)])


def _gaps(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (n, m); exactly 0 between equal rows."""
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    gaps = lengths - 2 * x @ y.T
    return gaps.masked_fill_(gaps < SAME * lengths, 0)


def _mean_of_pairs(x: Tensor) -> float:
    """Mean of the kernel over pairs of different videos."""
    diagonal = _cubic(x.square().sum(1), x.shape[1]).sum().item()
    return (_total(x, x) - diagonal) / (len(x) * (len(x) - 1))


def _total(x: Tensor, y: Tensor) -> float:
    return sum(_cubic(rows @ y.T, x.shape[1]).sum().item() for rows in x.split(ROWS))


def _cubic(products: Tensor, num_features: int) -> Tensor:
    base = products / num_features + 1
    return base * base * base
