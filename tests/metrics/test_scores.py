"""All scores of two sets at once: each is what its own function gives, in whatever order the videos come."""

import pytest
import torch

from flexivid.metrics.floor import frechet_floor
from flexivid.metrics.frechet import frechet_distance
from flexivid.metrics.pairs import kernel_distance, prdc
from flexivid.metrics.scores import Scores, independent_difference, score


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 8, generator=generator) * 1.2, torch.randn(50, 8, generator=generator)


def test_each_is_what_its_own_function_gives(pair):
    found = score(*pair)
    assert found.fvd == pytest.approx(frechet_distance(*pair), rel=1e-12)
    assert found.kvd == pytest.approx(kernel_distance(*pair), rel=1e-10)
    assert (found.precision, found.recall, found.density, found.coverage) == prdc(*pair)
    assert (found.num_generated, found.num_real) == (40, 50)
    assert found.low < found.fvd < found.high
    assert found.fvd_infinity < found.fvd
    assert 0 < found.floor < found.fvd
    ordered = pair[1][pair[1].double().sum(1).argsort(stable=True)]
    assert found.floor == frechet_floor(ordered, 40)


def test_the_order_of_the_videos_changes_nothing(pair):
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert score(pair[0][order], pair[1].flip(0)) == score(*pair)


def test_few_videos_warn_once_and_are_scored(pair):
    with pytest.warns(UserWarning, match="got 7 videos; expected at least 8") as warned:
        found = score(pair[0][:7], pair[1])
    assert len(warned) == 1
    assert found.fvd > 0
    assert found.fvd_infinity is None


def test_one_video_is_refused(pair):
    with pytest.raises(ValueError, match="got 1 and 50 videos"):
        score(pair[0][:1], pair[1])


def test_a_difference_is_certain_only_outside_both_intervals():
    one, near, far = (Scores(v, v - 3, v + 3, 0, 1, 1, 1, 1, None, 64, 64) for v in (10.0, 14.0, 15.0))
    assert independent_difference(one, near).verdict == "tied"
    assert independent_difference(one, far).verdict == "worse"
    assert independent_difference(far, one).verdict == "better"
    assert independent_difference(far, one).difference == -5
