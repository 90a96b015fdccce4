"""Held-out videos are spread evenly, and a single one is cut without a frame in both parts."""

import numpy as np
import pytest

from flexivid.data.index.videos import Videos
from flexivid.data.splits import hold_out


@pytest.mark.parametrize("number", [2, 3, 19, 40, 2000])
def test_hold_out_parts_the_videos(number):
    videos = Videos.of(["a.mp4"] * number, num_frames=50, label=np.arange(number))
    train, val = hold_out(videos, min_frames=8)
    assert sorted([*train.label, *val.label]) == list(range(number))
    assert len(val) == max(1, round(number / 20))
    gaps = np.diff(val.label)
    assert len(gaps) == 0 or gaps.max() <= gaps.min() + 1  # spread evenly


@pytest.mark.parametrize(("num_frames", "cut"), [(250, 225), (80, 72), (20, 12), (16, 8), (15, None)])
def test_hold_out_cuts_a_single_video(num_frames, cut):
    train, val = hold_out(Videos.of(["a.mp4"], num_frames=num_frames), min_frames=8)
    parts = [part for part in (train, val) if part is not None]
    seen = [frame for part in parts for frame in part.first[0] + np.arange(part.num_frames[0])]
    assert seen == list(range(num_frames))
    assert (val is None) == (cut is None)
    assert cut is None or train.num_frames[0] == cut
