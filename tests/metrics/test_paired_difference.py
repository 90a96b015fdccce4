"""The paired interval holds the true difference as often as it says, and is narrow where the two sets are alike."""

import math

import pytest
import torch

from flexivid.metrics.bootstrap import Difference, bootstrap, paired_difference
from flexivid.metrics.frechet import frechet_distance

D = 6
SCALES = torch.linspace(0.7, 1.6, D, dtype=torch.float64)


def triple(trial, n=96, m=96, *, shared=0.95, worse=0.15):
    """Two generated sets of the same noises, the first one ``worse`` times farther out, and a real one."""
    generator = torch.Generator().manual_seed(trial)
    noise, own, other, real = (torch.randn(k, D, dtype=torch.float64, generator=generator) for k in (n, n, n, m))
    rest = (1 - shared**2) ** 0.5
    a, b = (SCALES * (shared * noise + rest * part) + 0.4 for part in (own, other))
    return a * (1 + worse), b, real


def gap(sets):
    a, b, real = sets
    return frechet_distance(a, real) - frechet_distance(b, real)


@pytest.mark.parametrize("shared", [0.0, 0.95])
@pytest.mark.parametrize("worse", [0.0, 0.15])
def test_the_interval_holds_the_difference_of_as_many_other_videos(shared, worse):
    mean = sum(gap(triple(1000 + trial, shared=shared, worse=worse)) for trial in range(400)) / 400
    found = [paired_difference(*triple(trial, shared=shared, worse=worse), resamples=40) for trial in range(100)]
    assert sum(one.low <= mean <= one.high for one in found) >= 90
    deviation = torch.tensor([one.difference for one in found]).std().item()
    assert 0.8 < sum(one.high - one.difference for one in found) / 100 / (1.96 * deviation) < 1.4  # and says something


def test_two_sets_of_one_quality_are_told_apart_seldom_and_of_two_qualities_mostly():
    alike, unlike = (
        [paired_difference(*triple(trial, worse=worse), resamples=40).verdict for trial in range(100)]
        for worse in (0.0, 0.15)
    )
    assert alike.count("tied") >= 90
    assert unlike.count("worse") >= 90


def test_what_the_sets_share_cancels():
    def widths(shared):
        """Of the paired interval, and of two distances taken as independent."""
        own = independent = 0.0
        for trial in range(10):
            a, b, real = triple(trial, shared=shared)
            found, ends = paired_difference(a, b, real), [bootstrap(one, real) for one in (a, b)]
            own += found.high - found.low
            independent += 2 * math.hypot(*(end.high - end.value for end in ends))
        return own, independent

    own, independent = widths(0.99)
    assert own < 0.4 * independent
    own, independent = widths(0.0)  # the real videos are shared all the same
    assert 0.5 * independent < own < independent


def test_swapped_sets_give_the_negative():
    a, b, real = triple(0)
    there, back = paired_difference(a, b, real), paired_difference(b, a, real)
    assert there == pytest.approx((-back.difference, -back.high, -back.low), rel=1e-9)
    assert (there.verdict, back.verdict) == ("worse", "better")
    assert there.difference == pytest.approx(gap((a, b, real)), rel=1e-9)


def test_equal_sets_are_tied():
    a, _, real = triple(0)
    assert paired_difference(a, a, real) == Difference(0, 0, 0)
    assert paired_difference(a, a, real).verdict == "tied"


def test_few_videos_have_no_interval_and_are_tied():
    found = paired_difference(*triple(0, 3))
    assert math.isfinite(found.difference)
    assert math.isnan(found.low)
    assert found.verdict == "tied"


def test_refusals():
    a, b, real = triple(0)
    with pytest.raises(ValueError, match="got 96 and 95 videos; expected pairs from the same noises; generate"):
        paired_difference(a, b[1:], real)
    with pytest.raises(ValueError, match="got 1 resamples; expected 2 or more"):
        paired_difference(a, b, real, resamples=1)
    with pytest.raises(ValueError, match="use one extractor"):
        paired_difference(a, b[:, 1:], real)
