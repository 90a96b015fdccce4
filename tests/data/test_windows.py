"""Windows lie inside the video, all are reachable, footage counts in proportion to its length, times are kept."""

import time
from itertools import pairwise

import numpy as np
import pytest

from flexivid.data.clips.windows import (
    ClipSettings,
    Clock,
    by_step,
    clips_per_epoch,
    num_windows,
    refuse_settings,
    span_of,
    start_of,
    step_of,
)

SHAPES = [(length, stride) for length in (1, 4, 8) for stride in (1, 2, 5)]
UNIFORM = ClipSettings(windows="uniform")


def counts(numbers, length=8, step=2, **settings):
    return clips_per_epoch(np.asarray(numbers), length, step, ClipSettings(**settings)).tolist()


@pytest.mark.parametrize(("length", "stride"), SHAPES)
def test_windows_equal_brute_force(length, stride):
    for num_frames in range(60):
        fitting = [s for s in range(num_frames) if s + (length - 1) * stride < num_frames]
        assert max(0, num_windows(num_frames, length, stride)) == len(fitting)
        assert max(0, int(num_windows(num_frames, length, np.float32(stride)))) == len(fitting)
        if fitting:
            assert by_step(fitting[-1], length, num_frames, stride)[-1] == num_frames - 1


@pytest.mark.parametrize(("length", "stride"), SHAPES)
def test_uniform_starts_are_symmetric_distinct_and_inside(length, stride):
    for num_frames in (span_of(length, stride), 77, 300):
        (parts,) = counts([num_frames], length, stride)
        windows = num_windows(num_frames, length, stride)
        starts = [start_of(windows, i, parts, step=length * stride, settings=UNIFORM) for i in range(parts)]
        assert len(set(starts)) == parts
        assert all(0 <= start < windows for start in starts)
        mirrored = [windows - 1 - start for start in reversed(starts)]
        assert np.abs(np.subtract(starts, mirrored)).max() <= 1


def test_clips_per_epoch():
    numbers = counts(range(200))
    assert numbers[:15] == [0] * 15
    assert numbers[15] == 1
    assert numbers == sorted(numbers)
    assert counts([16000]) == [1000]  # no frame is in two clips
    for short in ("loop", "pad"):
        assert counts([0, 1, 14, 15], short=short) == [0, 1, 1, 1]
    assert counts([14, 15, 17, 900], clips_per_video=5) == [0, 5, 5, 5]
    assert counts([14, 15, 17, 900], clips_per_video=5, windows="uniform") == [0, 1, 3, 5]
    assert counts([14, 15, 900], windows="first") == [0, 1, 1]
    assert counts([14, 15, 30, 31, 900], windows="first", clips_per_video=3) == [0, 1, 1, 2, 3]


@pytest.mark.parametrize("step", [1, 2, 2.4])
def test_all_windows_follow_each_other_to_the_end(step):
    settings = ClipSettings(windows="all")
    for number in range(1, 120):
        (parts,) = counts([number], 8, step, windows="all")
        windows = int(num_windows(number, 8, step if step != 2.4 else np.array(step)))
        starts = [start_of(windows, i, parts, step=8 * step, settings=settings) for i in range(parts)]
        clips = [by_step(start, 8, number, step) for start in starts]
        assert all(clip.max() < number for clip in clips)
        assert all(clip[0] > before[-1] for before, clip in pairwise(clips))
        assert parts == 0 or starts[-1] + 8 * step + span_of(8, 1) * step > number - step


def test_a_million_rows_in_seconds():
    rng = np.random.default_rng(0)
    numbers, fps = rng.integers(1, 900, 1_000_000, dtype=np.int32), np.full(1_000_000, 29.97, np.float32)
    begin = time.perf_counter()
    settings = ClipSettings(fps=10)
    total = clips_per_epoch(numbers, 8, step_of(fps, settings), settings).sum()
    assert time.perf_counter() - begin < 5  # 0.1 on an idle core
    assert total > 1_000_000


def shown(times, seconds):
    """The frame on show, slowly."""
    return [max(i for i, at in enumerate(times) if at <= second + 1e-9) for second in seconds]


def test_frames_at_times_equal_brute_force():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.02, 0.3, 60))
    clock, settings = Clock(times), ClipSettings(num_frames=6, fps=7.3)
    windows = clock.num_windows(6, 7.3)
    assert windows == sum(5 / 7.3 + at - times[0] < clock.seconds - clock.slack for at in times)
    for start in range(windows):
        wanted = times[start] + np.arange(6) / 7.3
        assert clock.clip(start, 6, settings=settings).tolist() == shown(times, wanted + clock.slack)


@pytest.mark.parametrize(("source", "target"), [(30, 10), (25, 25), (24, 8), (30000 / 1001, 30000 / 1001), (12, 24)])
@pytest.mark.parametrize("decimals", [3, 9])  # a container may round to milliseconds
def test_constant_rates_give_even_frames(source, target, decimals):
    clock = Clock(np.round(np.arange(200) / source + 1.4, decimals))
    settings = ClipSettings(num_frames=12, fps=target)
    steps = np.diff(clock.clip(5, 12, settings=settings))
    assert set(steps.tolist()) == ({0, 1} if target > source else {round(source / target)})
    step = step_of(source, settings)
    assert clock.num_windows(12, target) == num_windows(200, 12, step)


def test_too_short_by_time_is_looped_or_padded():
    clock = Clock(np.array([0.0, 0.1, 0.2, 0.3]))
    assert clock.num_windows(8, 10) <= 0
    for short, expected in (("loop", [0, 1, 2, 3, 0, 1, 2, 3]), ("pad", [0, 1, 2, 3, 3, 3, 3, 3])):
        assert clock.clip(0, 8, settings=ClipSettings(8, fps=10, short=short)).tolist() == expected
    assert Clock(np.array([3.0])).clip(0, 3, settings=ClipSettings(3, fps=10, short="loop")).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 10, "stride": 2}, "data.fps=10 and data.stride=2"),
        ({"windows": "all", "clips_per_video": 2}, "data.windows=all and data.clips_per_video=2"),
        ({"fps": 0}, "data.fps=0"),
        ({"clips_per_video": 0}, "data.clips_per_video=0"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=message):
        refuse_settings(ClipSettings(**settings))
