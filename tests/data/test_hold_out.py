"""Held-out videos are spread evenly, and a single one is cut without a frame in both parts."""

import numpy as np
import pytest

from flexivid.data.index.videos import Videos
from flexivid.data.splits import hold_out


@pytest.mark.parametrize("number", [2, 3, 19, 40, 2000])
def test_hold_out_parts_the_videos(number):
    videos = Videos.of([f"{i}.mp4" for i in range(number)], num_frames=50, label=np.arange(number))
    train, val = hold_out(videos, min_frames=8)
    assert sorted([*train.label, *val.label]) == list(range(number))
    assert len(val) == max(1, round(number / 20))
    gaps = np.diff(val.label)
    assert len(gaps) == 0 or gaps.max() <= gaps.min() + 1  # spread evenly


@pytest.mark.parametrize("rows_of_a_file", [2, 20])
def test_all_rows_of_a_file_go_together(rows_of_a_file):
    """As in lists with a row for each caption of a video."""
    names = [f"{i}.mp4" for i in range(60)]
    rows = [name for name in names for _ in range(rows_of_a_file)]
    one_each, several = (hold_out(Videos.of(some, num_frames=50), min_frames=8) for some in (names, rows))
    for part, expected in zip(several, one_each, strict=True):
        paths = [part.path(row) for row in range(len(part))]
        assert sorted(set(paths)) == sorted(expected.path(row) for row in range(len(expected)))
        assert len(paths) == rows_of_a_file * len(expected)


def test_a_single_file_with_two_rows_is_cut():
    train, val = hold_out(Videos.of(["a.mp4"] * 2, num_frames=250), min_frames=8)
    assert (train.first.tolist(), train.num_frames.tolist()) == ([0, 0], [225, 225])
    assert (val.first.tolist(), val.num_frames.tolist()) == ([225, 225], [25, 25])


@pytest.mark.parametrize(("num_frames", "cut"), [(250, 225), (80, 72), (20, 12), (16, 8), (15, None)])
def test_hold_out_cuts_a_single_video(num_frames, cut):
    train, val = hold_out(Videos.of(["a.mp4"], num_frames=num_frames), min_frames=8)
    parts = [part for part in (train, val) if part is not None]
    seen = [frame for part in parts for frame in part.first[0] + np.arange(part.num_frames[0])]
    assert seen == list(range(num_frames))
    assert (val is None) == (cut is None)
    assert cut is None or train.num_frames[0] == cut
