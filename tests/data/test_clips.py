"""Windows lie inside the video, all are reachable, and footage counts in proportion to its length."""

import numpy as np
import pytest

from flexivid.data.clips import central_start, clips_per_epoch, num_windows, random_start, span_of, window_indices

SHAPES = [(length, stride) for length in (1, 4, 8) for stride in (1, 2, 5)]


@pytest.mark.parametrize(("length", "stride"), SHAPES)
def test_windows_equal_brute_force(length, stride):
    for num_frames in range(60):
        fitting = [s for s in range(num_frames) if s + (length - 1) * stride < num_frames]
        assert num_windows(num_frames, length, stride=stride) == len(fitting)
        if fitting:
            assert window_indices(fitting[-1], length, stride=stride)[-1] == num_frames - 1


@pytest.mark.parametrize(("length", "stride"), SHAPES)
def test_random_starts_reach_every_window_and_no_other(length, stride):
    rng = np.random.default_rng(0)
    num_frames = span_of(length, stride=stride) + 6
    starts = {random_start(num_frames, length, stride=stride, rng=rng) for _ in range(200)}
    assert starts == set(range(7))


@pytest.mark.parametrize(("length", "stride"), SHAPES)
def test_central_starts_are_symmetric_distinct_and_inside(length, stride):
    for num_frames in (span_of(length, stride=stride), 77, 300):
        parts = clips_per_epoch(num_frames, length, stride=stride)
        windows = num_windows(num_frames, length, stride=stride)
        starts = [central_start(num_frames, length, stride=stride, part=i, num_parts=parts) for i in range(parts)]
        assert len(set(starts)) == parts
        assert all(0 <= start < windows for start in starts)
        mirrored = [windows - 1 - start for start in reversed(starts)]
        assert np.abs(np.subtract(starts, mirrored)).max() <= 1


def test_clips_per_epoch():
    counts = [clips_per_epoch(n, 8, stride=2) for n in range(200)]
    assert counts[:15] == [0] * 15
    assert counts[15] == 1
    assert counts == sorted(counts)
    assert clips_per_epoch(16000, 8, stride=2) == 1000  # no frame is in two clips
    assert [clips_per_epoch(n, 8, stride=2, loop=True) for n in (0, 1, 14, 15)] == [0, 1, 1, 1]


def test_too_short_starts_at_the_first_frame():
    assert random_start(3, 8, stride=2, rng=np.random.default_rng(0)) == 0
    assert central_start(3, 8, stride=2) == 0
