"""Everything about two feature sets at once. Knows the pure metrics, no extractor and no ranks."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from flexivid.metrics.bootstrap import bootstrap
from flexivid.metrics.feature_sets import feature_pair, warn_if_few
from flexivid.metrics.floor import frechet_floor
from flexivid.metrics.kvd import kernel_distance
from flexivid.metrics.prdc import prdc


class Scores(NamedTuple):
    """What can be said of generated videos next to real ones.

    Args:
        fvd: Frechet distance; its name proper is the protocol's label, for it depends on the extractor.
        low: Lower end of its 95 % interval. Likewise ``high``. NaN with fewer than 4 videos.
        kvd: Unbiased kernel distance.
        precision: Likewise ``recall``, ``density``, ``coverage``: see ``coverage.Prdc``.
        fvd_infinity: Extrapolation to endless videos; ``None`` where there are too few.
        num_real: How many videos. Likewise ``num_generated``.
        floor: What as many videos of a perfect generator would have for ``fvd``, see ``floor.frechet_floor``; NaN with
            fewer than 4 real videos, or where it was not measured.

    Example:
        >>> Scores._fields[:3]
        ('fvd', 'low', 'high')
    """

    fvd: float
    low: float
    high: float
    kvd: float
    precision: float
    recall: float
    density: float
    coverage: float
    fvd_infinity: float | None
    num_real: int
    num_generated: int
    floor: float = math.nan


def score(generated: Tensor, real: Tensor, *, seed: int = 0, resamples: int = 100) -> Scores:
    """Score generated videos by their features.

    The result does not depend on the order of the rows, and so not on how many ranks gathered them.

    Args:
        generated: Features, (n, d). Likewise ``real``, (m, d).
        seed: Of the resampling.
        resamples: For the interval and the extrapolation.

    Raises:
        ValueError: If a set has fewer than 2 videos or numbers that are not finite, or if they differ in d.

    Example:
        >>> import torch
        >>> x = torch.arange(64.0)[:, None] / 64
        >>> scores = score(x + 0.5, x)
        >>> round(scores.fvd, 4), scores.precision, scores.num_real, round(scores.floor, 3)
        (0.25, 0.578125, 64, 0.003)
    """
    generated, real = (_in_order(features) for features in feature_pair(generated, real))
    warn_if_few(len(generated), len(real), real.shape[1])
    found = bootstrap(generated, real, seed=seed, resamples=resamples)
    return Scores(
        found.value,
        found.low,
        found.high,
        kernel_distance(generated, real),
        *prdc(generated, real),
        found.infinity,
        num_real=len(real),
        num_generated=len(generated),
        floor=frechet_floor(real, len(generated), seed=seed),
    )


def _in_order(features: Tensor) -> Tensor:
    return features[features.sum(1).argsort(stable=True)]
