"""All metrics of two feature sets at once. Uses no extractor and no ranks."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from flexivid.metrics.bootstrap import Difference, bootstrap
from flexivid.metrics.feature_sets import feature_pair, warn_if_few
from flexivid.metrics.floor import frechet_floor
from flexivid.metrics.pairs import kernel_distance, prdc


class Scores(NamedTuple):
    """Metrics of generated videos against real ones."""

    fvd: float  # Frechet distance; the protocol's label says of which extractor
    low: float  # lower end of its 95 % interval; NaN with fewer than 4 videos
    high: float  # its upper end
    kvd: float  # unbiased kernel distance
    precision: float  # this and the next three: see ``pairs.Prdc``
    recall: float
    density: float
    coverage: float
    fvd_infinity: float | None  # extrapolation to endless videos; ``None`` where there are too few
    num_real: int
    num_generated: int
    floor: float = math.nan  # ``fvd`` of as many videos of a perfect generator (``floor.frechet_floor``); NaN: unknown


def score(generated: Tensor, real: Tensor, *, seed: int = 0, resamples: int = 100) -> Scores:
    """Score generated videos (n, d) against real ones (m, d) by their features.

    The result does not depend on the order of the rows, nor on the number of ranks that gathered them. ``seed`` and
    ``resamples`` are those of :func:`bootstrap`. ``ValueError`` if ``feature_pair`` refuses the features.

    Example:
        >>> import torch
        >>> x = torch.arange(64.0)[:, None] / 64
        >>> scores = score(x + 0.5, x)
        >>> round(scores.fvd, 4), scores.precision, scores.num_real, round(scores.floor, 3)
        (0.25, 0.578125, 64, 0.003)
    """
    pair = feature_pair(generated, real)
    generated, real = (features[features.sum(1).argsort(stable=True)] for features in pair)
    warn_if_few(len(generated), len(real), real.shape[1])
    value, low, high, infinity = bootstrap(generated, real, seed=seed, resamples=resamples)
    kernel, parts = kernel_distance(generated, real), prdc(generated, real)
    floor = frechet_floor(real, len(generated), seed=seed)
    return Scores(value, low, high, kernel, *parts, infinity, len(real), len(generated), floor)


def independent_difference(a: Scores, b: Scores) -> Difference:
    """By how much the distance of ``b`` is above that of ``a``; ``protocol.check_alike`` says whether they compare.

    The intervals are combined as if the two were independent; shared noise and reference make the truth narrower.

    Example:
        >>> a = Scores(150.0, 147.0, 153.0, 0, 1, 1, 1, 1, None, 64, 64)
        >>> independent_difference(a, a._replace(fvd=140.0, low=136.0, high=144.0))
        Difference(difference=-10.0, low=-15.0, high=-5.0)
    """
    change, half = b.fvd - a.fvd, math.hypot(a.high - a.fvd, b.high - b.fvd)  # low may be cut off at 0
    return Difference(change, change - half, change + half)
