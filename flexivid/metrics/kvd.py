"""Kernel distance between two feature sets (KVD, and KID for pictures): no Gaussian is assumed. Pure."""

from __future__ import annotations

from numpy.typing import ArrayLike
from torch import Tensor

from flexivid.metrics.feature_sets import feature_pair

ROWS = 1024  # of a kernel matrix that are in memory at once


def kernel_distance(x: Tensor | ArrayLike, y: Tensor | ArrayLike) -> float:
    """Squared maximum mean discrepancy under the kernel ``(x . y / d + 1)^3``.

    The unbiased estimate, over all pairs: its mean does not depend on how many videos there are, and for sets of one
    distribution it is negative about every other time. Published KVD and KID average it over random subsets.

    Args:
        x: Features, (n, d). Likewise ``y``, (m, d).

    Raises:
        ValueError: If a set has fewer than 2 videos or numbers that are not finite, or if they differ in d.

    Source:
        KID, arXiv:1801.01401, eq. 4; for videos arXiv:1812.01717.

    Example:
        >>> import torch
        >>> kernel_distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]]))
        297.5
    """
    x, y = feature_pair(x, y)
    return _mean_of_pairs(x) + _mean_of_pairs(y) - 2 * _total(x, y) / (len(x) * len(y))


def _mean_of_pairs(x: Tensor) -> float:
    """Mean of the kernel over pairs of different videos."""
    diagonal = _cubic(x.square().sum(1), x.shape[1]).sum().item()
    return (_total(x, x) - diagonal) / (len(x) * (len(x) - 1))


def _total(x: Tensor, y: Tensor) -> float:
    return sum(_cubic(rows @ y.T, x.shape[1]).sum().item() for rows in x.split(ROWS))


def _cubic(products: Tensor, num_features: int) -> Tensor:
    base = products / num_features + 1
    return base * base * base
