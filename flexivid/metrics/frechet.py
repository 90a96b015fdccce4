"""Frechet distance between two feature sets, each taken as a Gaussian. Pure: features or their sums in, a number out.

    |m_x - m_y|^2 + tr S_x + tr S_y - 2 tr (S_x S_y)^(1/2)                                      (1812.01717, 1706.08500)

S is the covariance with N - 1. With roots R, S = R^T R, the last trace is the sum of the singular values of R_x R_y^T.
So there is no square root of a matrix, no clipping and no regularisation, and fewer videos than features are no special
case: the centred features themselves are a root.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from flexivid.metrics.feature_sets import check_counts, feature_pair, warn_if_few


class Gaussian(NamedTuple):
    """A mean and a root of the covariance.

    Example:
        >>> Gaussian.of(torch.tensor([[0.0], [2.0]])).root.square().sum().round(decimals=6).item()
        2.0
    """

    mean: Tensor  # (d,)
    root: Tensor  # (r, d) with ``root.T @ root`` = covariance; r is at most d

    @staticmethod
    def of(features: Tensor) -> Gaussian:
        """Fit features (n, d)."""
        mean = features.mean(0)
        root = (features - mean) / (len(features) - 1) ** 0.5
        return Gaussian(mean, torch.linalg.qr(root, mode="r").R if len(root) > root.shape[1] else root)


class Moments(NamedTuple):
    """Sums over videos, float64: those of several ranks or batches add up.

    Example:
        >>> Moments.of(torch.tensor([[1.0], [2.0]])).outer
        tensor([[5.]], dtype=torch.float64)
    """

    num_videos: Tensor  # ()
    total: Tensor  # sum of their features, (d,)
    outer: Tensor  # sum of the outer products of each one's features with themselves, (d, d)

    @staticmethod
    def of(features: Tensor) -> Moments:
        """Sum up features (n, d)."""
        features = features.double()
        num_videos = torch.tensor(len(features), dtype=torch.float64, device=features.device)
        return Moments(num_videos, features.sum(0), features.T @ features)

    def gaussian(self) -> Gaussian:
        """The Gaussian of the summed videos; digits are lost where means are far larger than deviations."""
        num, total, outer = (sums.to("cpu", torch.float64) for sums in self)
        mean = total / num
        variances, axes = torch.linalg.eigh((outer - torch.outer(total, mean)) / (num - 1))
        rank = min(len(total), int(num) - 1)  # of an exact covariance: what lies below is rounding
        return Gaussian(mean, variances[-rank:].clamp_min(0).sqrt()[:, None] * axes[:, -rank:].T)


def frechet_distance(x: Tensor | ArrayLike, y: Tensor | ArrayLike) -> float:
    """Frechet distance between two sets of features; the FVD, where they are the logits of the I3D network.

    Exact for any number of videos, also below the number of features. It falls as videos are added, to the distance of
    the distributions: compare only distances of equal numbers of videos.

    Args:
        x: Features, (n, d). Likewise ``y``, (m, d).

    Returns:
        The squared distance, as FVD and FID are defined. Equal sets give 0 up to rounding, which may be negative.

    Raises:
        ValueError: If a set has fewer than 2 videos or numbers that are not finite, or if they differ in d.

    Source:
        FVD, arXiv:1812.01717.

    Example:
        >>> frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0]]))
        9.0
    """
    x, y = feature_pair(x, y)
    warn_if_few(len(x), len(y), x.shape[1])
    return distance(Gaussian.of(x), Gaussian.of(y))


def frechet_from_moments(a: Moments, b: Moments) -> float:
    """The same distance from sums: 2 d^2 numbers, however many videos there are.

    ``ValueError`` if a set has fewer than 2 videos, or a sum is not finite.

    Example:
        >>> sums = [Moments.of(torch.tensor(features)) for features in ([[0.0], [2.0]], [[3.0], [5.0]])]
        >>> round(frechet_from_moments(*sums), 9)
        9.0
    """
    check_counts(int(a.num_videos), int(b.num_videos))
    if not all(sums.isfinite().all() for moments in (a, b) for sums in moments):
        raise ValueError("got sums with NaN or infinity; expected finite ones; look at the features that were added")
    warn_if_few(int(a.num_videos), int(b.num_videos), len(a.total))
    return distance(a.gaussian(), b.gaussian())


def distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Frechet (2-Wasserstein) distance between two Gaussians.

    Example:
        >>> narrow, wide = (Gaussian(torch.zeros(2), scale * torch.eye(2)) for scale in (1, 3))
        >>> distance(narrow, wide)
        8.0
    """
    traces = a.root.square().sum() + b.root.square().sum()
    shared = torch.linalg.svdvals(a.root @ b.root.T).sum()
    return float((a.mean - b.mean).square().sum() + traces - 2 * shared)
