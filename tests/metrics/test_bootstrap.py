"""The interval holds the distance that other videos would give, and the extrapolation that of the distributions."""

import math

import pytest
import torch

from flexivid.metrics.bootstrap import bootstrap
from flexivid.metrics.frechet import frechet_distance

D = 6
SCALES = torch.linspace(0.5, 2, D, dtype=torch.float64)
TRUTH = 0.25 * D + float(((SCALES - 1) ** 2).sum())  # distance of the two distributions


def sets(trial, n=96, m=96, *, differ=True):
    generator = torch.Generator().manual_seed(trial)
    x, y = (torch.randn(k, D, dtype=torch.float64, generator=generator) for k in (n, m))
    return (x * SCALES + 0.5 if differ else x), y


@pytest.mark.parametrize("differ", [True, False])
def test_the_interval_holds_the_mean_distance_of_as_many_videos(differ):
    mean = sum(frechet_distance(*sets(1000 + trial, differ=differ)) for trial in range(400)) / 400
    found = [bootstrap(*sets(trial, differ=differ), resamples=40) for trial in range(100)]
    assert sum(one.low <= mean <= one.high for one in found) >= 90
    deviation = torch.tensor([one.value for one in found]).std().item()
    assert 0.8 < sum(one.high - one.value for one in found) / 100 / (1.96 * deviation) < 2  # and says something


def test_the_extrapolation_has_no_bias_where_the_distance_has():
    found = [bootstrap(*sets(trial), resamples=20) for trial in range(200)]
    values, limits = (torch.tensor(column, dtype=torch.float64) for column in list(zip(*found, strict=True))[::3])
    assert values.mean() > TRUTH + 5 * values.std() / 200**0.5
    assert abs(limits.mean() - TRUTH) < 3 * limits.std() / 200**0.5


def test_four_times_the_videos_halve_the_interval():
    widths = [sum(b.high - b.value for b in (bootstrap(*sets(t, n, n)) for t in range(10))) for n in (100, 400)]
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.15)


def test_the_seed_decides():
    x, y = sets(0)
    assert bootstrap(x, y, seed=1) == bootstrap(x, y, seed=1) != bootstrap(x, y, seed=2)


def test_too_few_videos_have_no_extrapolation_and_then_no_interval():
    assert bootstrap(*sets(0, 2 * D, 50)).infinity is not None
    assert bootstrap(*sets(0, 2 * D - 1, 50)).infinity is None
    few = bootstrap(*sets(0, 3, 50))
    assert few.value > 0
    assert math.isnan(few.low)
    assert math.isnan(few.high)


def test_one_resample_is_refused():
    with pytest.raises(ValueError, match="got 1 resamples; expected 2 or more"):
        bootstrap(*sets(0), resamples=1)
