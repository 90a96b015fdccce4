"""Every video is looked at once: in memory or not makes no difference to its pixels, and bad files are named."""

from pathlib import Path

import numpy as np
import pytest

from flexivid.data.footage import Video, hold_out, prepare
from flexivid.data.manifest import VideoItem


@pytest.fixture
def items(tmp_path, make_video):
    make_video(tmp_path / "0.mp4", 12)
    make_video(tmp_path / "1.avi", 20, codec="mpeg4")
    (tmp_path / "2.mp4").write_bytes(b"junk" * 100)
    make_video(tmp_path / "3.mkv", 16, first=40)
    return [VideoItem(path, number, "") for number, path in enumerate(sorted(tmp_path.iterdir()))]


@pytest.mark.parametrize("num_threads", [1, 4])
def test_order_counts_and_bad_files(items, num_threads):
    footage = prepare(items, size=(32, 32), max_bytes=10**9, num_threads=num_threads, progress=False)
    assert [(video.label, video.num_frames) for video in footage.videos] == [(0, 12), (1, 20), (3, 16)]
    assert [(Path(bad.path).name, bad.reason[:16]) for bad in footage.bad] == [("2.mp4", "cannot be opened")]
    assert footage.num_bytes == 48 * 32 * 32 * 3
    assert [video.fps for video in footage.videos] == pytest.approx([8, 8, 8], rel=0.01)


def test_memory_changes_no_pixel(items):
    inside = prepare(items, size=(24, 20), max_bytes=10**9, progress=False).videos
    outside = prepare(items, size=(24, 20), max_bytes=0, progress=False).videos
    indices = np.array([3, 5, 7])
    for kept, looked_at in zip(inside, outside, strict=True):
        assert looked_at.frames is None
        assert kept.num_frames == looked_at.num_frames
        assert np.array_equal(kept.read(indices, size=(24, 20)), looked_at.read(indices, size=(24, 20)))


def test_room_is_kept(items):
    footage = prepare(items, size=(32, 32), max_bytes=40 * 32 * 32 * 3, progress=False)
    assert 0 < footage.num_bytes <= 40 * 32 * 32 * 3
    assert len(footage.videos) == 3


@pytest.mark.parametrize("number", [2, 3, 19, 40, 2000])
def test_hold_out_parts_the_videos(number):
    videos = [Video(Path(f"{i}.mp4"), i, 50, 10.0) for i in range(number)]
    train, val = hold_out(videos, min_frames=8)
    assert sorted(video.label for video in train + val) == list(range(number))
    assert len(val) == max(1, round(number / 20))
    gaps = np.diff([video.label for video in val])
    assert len(gaps) == 0 or gaps.max() <= gaps.min() + 1  # spread evenly


@pytest.mark.parametrize(("num_frames", "cut"), [(250, 225), (80, 72), (20, 12), (16, 8), (15, None)])
def test_hold_out_cuts_a_single_video(num_frames, cut):
    frames = np.arange(num_frames, dtype=np.uint8)[:, None, None, None]
    train, val = hold_out([Video(Path("a.mp4"), -1, num_frames, 10.0, frames=frames)], min_frames=8)
    seen = [
        [int(video.read(np.array([i]), size=(1, 1)).item()) for i in range(video.num_frames)] for video in train + val
    ]
    assert [level for run in seen for level in run] == list(range(num_frames))
    assert (len(val) == 0) == (cut is None)
    assert cut is None or len(seen[0]) == cut
