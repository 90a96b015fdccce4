"""Precision, recall, density and coverage equal their definitions, written as loops, and tell copies from strangers."""

import pytest
import torch

from flexivid.metrics import pairs as coverage
from flexivid.metrics.pairs import Prdc, prdc


def draw(n, d=4, seed=0, shift=0.0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + shift


def by_definition(generated, real, k):
    """Sets of balls, one video at a time."""

    def reach(video, videos):
        return sorted(float((video - other).norm()) for other in videos)[k]  # [0] is the video itself

    def inside(video, centre, videos):
        return float((video - centre).norm()) <= reach(centre, videos)

    held = [sum(inside(g, r, real) for r in real) for g in generated]
    recalled = [any(inside(r, g, generated) for g in generated) for r in real]
    covered = [any(inside(g, r, real) for g in generated) for r in real]
    n, m = len(generated), len(real)
    return Prdc(sum(count > 0 for count in held) / n, sum(recalled) / m, sum(held) / n / k, sum(covered) / m)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_equals_the_definition(k, monkeypatch):
    generated, real = draw(20, shift=0.8), draw(26, seed=1)
    truth = by_definition(generated, real, k)
    assert prdc(generated, real, neighbours=k) == pytest.approx(truth, rel=1e-12)
    monkeypatch.setattr(coverage, "ROWS", 7)
    assert prdc(generated, real, neighbours=k) == pytest.approx(truth, rel=1e-12)


def test_copies_are_precise_and_cover_all_also_far_from_zero():
    real = draw(64, seed=2) + 1e4
    real = torch.cat([real, *[real[:1]] * 7])  # so many equal videos that their balls have no extent
    found = prdc(real, real)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_strangers_are_neither():
    assert prdc(draw(30, shift=100), draw(40)) == (0, 0, 0, 0)


def test_one_good_video_many_times_is_precise_but_covers_little():
    real = draw(200, seed=3)
    found = prdc(real[:1] + 0.001 * draw(100, seed=4), real)
    assert found.precision == 1
    assert found.recall < 0.05
    assert found.coverage < 0.1


def test_few_videos_have_fewer_neighbours():
    assert prdc(draw(3), draw(3)) == prdc(draw(3), draw(3), neighbours=2)


def test_one_video_is_refused():
    with pytest.raises(ValueError, match="got 1 and 4 videos"):
        prdc(draw(1), draw(4))
