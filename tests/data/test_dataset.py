"""The same (clip, epoch) gives the same pixels, whoever asks; windows hold consecutive frames of one video."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from flexivid.data.dataset import ClipDataset, ClipSettings
from flexivid.data.footage import Video, prepare
from flexivid.data.manifest import VideoItem
from flexivid.data.sampler import StepBatchSampler


def numbered(num_frames, label=0):
    """A video whose frame i is of level i, darker by 100 in its right half."""
    frames = np.arange(num_frames, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 4, 4, 3), np.uint8)
    frames[:, :, :2] += 100
    return Video(Path(f"{label}.mp4"), label, num_frames, 10.0, frames=frames)


def starts(dataset, epoch=0):
    return [int(dataset[clip, epoch]["video"][0, 0, 0, -1]) for clip in range(len(dataset))]


def test_item(tmp_path):
    dataset = ClipDataset([numbered(40, label=3)], ClipSettings(num_frames=4, size=(4, 4), stride=3))
    item = dataset[0, 0]
    assert item["video"].shape == (3, 4, 4, 4)
    assert item["video"].dtype == torch.uint8
    assert item["video"].is_contiguous()
    assert (item["label"].dtype, item["label"].item()) == (torch.int64, 3)
    assert np.diff(item["video"][0, :, 0, 0].tolist()).tolist() == [3, 3, 3]


def test_windows_differ_between_epochs_and_seeds_only():
    videos = [numbered(100), numbered(30, label=1)]
    dataset, other = (ClipDataset(videos, ClipSettings(size=(4, 4), seed=seed)) for seed in (0, 1))
    assert len(dataset) == 12 + 3
    assert starts(dataset) == starts(dataset)
    assert starts(dataset) != starts(dataset, epoch=1)
    assert starts(dataset) != starts(other)
    fixed = ClipDataset(videos, ClipSettings(size=(4, 4), fixed=True, flip=True))
    assert starts(fixed) == starts(fixed, epoch=1)


def test_short_videos():
    videos = [numbered(5), numbered(20, label=1), numbered(7, label=2)]
    skipping = ClipDataset(videos, ClipSettings(size=(4, 4)))
    assert [video.label for video in skipping.too_short] == [0, 2]
    assert {int(skipping[clip, 0]["label"]) for clip in range(len(skipping))} == {1}
    looping = ClipDataset(videos, ClipSettings(size=(4, 4), loop=True))
    assert looping.too_short == []
    assert looping[0, 0]["video"][0, :, 0, -1].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]


def test_flip_mirrors_half_of_the_clips():
    dataset = ClipDataset([numbered(100)] * 20, ClipSettings(size=(4, 4), flip=True))
    clips = [dataset[clip, 0]["video"][0, 0, 0] for clip in range(len(dataset))]
    mirrored = [bool(clip[-1] > clip[0]) for clip in clips]
    assert 0.4 < np.mean(mirrored) < 0.6
    assert all(abs(int(clip[-1]) - int(clip[0])) == 100 for clip in clips)


@pytest.mark.parametrize("max_bytes", [0, 10**9])
def test_worker_count_changes_nothing(tmp_path, make_video, max_bytes):
    items = [VideoItem(make_video(tmp_path / f"{i}.mp4", 20, first=i, step=9), i, "") for i in range(4)]
    videos = prepare(items, size=(32, 32), max_bytes=max_bytes, progress=False).videos
    dataset = ClipDataset(videos, ClipSettings(flip=True))
    runs = []
    for num_workers in (0, 2):
        sampler = StepBatchSampler(len(dataset), lambda step: 3 + step % 2, seed=0, num_steps=6)
        runs.append(list(DataLoader(dataset, batch_sampler=sampler, num_workers=num_workers)))
    for alone, shared in zip(*runs, strict=True):
        assert torch.equal(alone["video"], shared["video"])
        assert torch.equal(alone["label"], shared["label"])
    assert [len(batch["label"]) for batch in runs[0]] == [3, 4, 3, 4, 3, 4]


def test_file_that_breaks_later_is_replaced_and_named(tmp_path, make_video):
    items = [VideoItem(make_video(tmp_path / f"{i}.mp4"), i, "") for i in range(2)]
    dataset = ClipDataset(prepare(items, size=(32, 32), max_bytes=0, progress=False).videos, ClipSettings())
    items[0].path.write_bytes(b"gone")
    with pytest.warns(UserWarning, match=r"got .*0\.mp4: cannot be opened"):
        assert dataset[0, 0]["label"].item() == 1
    items[1].path.unlink()
    with pytest.warns(UserWarning, match=r"1\.mp4"), pytest.raises(ValueError, match="cannot be opened"):
        dataset[0, 0]
