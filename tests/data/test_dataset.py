"""The same (clip, epoch) gives the same request and pixels, whoever asks; memory grows by a few numbers a video."""

import pickle
import time
import tracemalloc

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from flexivid.data.clips.dataset import NEAR, ClipDataset, ClipSettings
from flexivid.data.clips.frame_cache import FrameCache, fill
from flexivid.data.clips.sampler import StepBatchSampler
from flexivid.data.clips.windows import MAX_TRIES
from flexivid.data.decoding.probe import probe
from flexivid.data.decoding.reader import read_clip
from flexivid.data.index.videos import Videos
from flexivid.data.workers.pool import DecodePool


def table(*numbers, **columns):
    """Videos of so many frames, number i of label i."""
    return Videos.of(["a.mp4"] * len(numbers), num_frames=list(numbers), label=list(range(len(numbers))), **columns)


def starts(dataset, epoch=0):
    return [int(dataset.plan((clip, epoch)).indices[0]) for clip in range(len(dataset))]


def probed(paths):
    info = [probe(path) for path in paths]
    return Videos.of(
        [str(path) for path in paths],
        num_frames=[look.num_frames for look in info],
        fps=[look.fps for look in info],
        height=[look.size[0] for look in info],
        width=[look.size[1] for look in info],
        facts=[look.to_bytes() for look in info],
        label=list(range(len(paths))),
    )


def keep(dataset, max_bytes=10**9):
    sizes = dataset.kept_sizes()
    dataset.cache = FrameCache(dataset.videos.num_frames, sizes, max_bytes=max_bytes)
    with DecodePool(1) as pool:
        return fill(dataset.cache, dataset.videos, sizes, kernel=dataset.settings.kernel, pool=pool, progress=False)


def test_windows_differ_between_epochs_and_seeds_only():
    videos = table(100, 30)
    dataset, other = (ClipDataset(videos, ClipSettings(seed=seed)) for seed in (0, 1))
    assert len(dataset) == 12 + 3
    assert starts(dataset) == starts(dataset)
    assert starts(dataset) != starts(dataset, epoch=1)
    assert starts(dataset) != starts(other)
    fixed = ClipDataset(videos, ClipSettings(windows="uniform"))
    assert starts(fixed) == starts(fixed, epoch=1)
    assert starts(ClipDataset(videos, ClipSettings(windows="all"))) == [*range(0, 96, 8), 0, 8, 16]
    assert starts(ClipDataset(videos, ClipSettings(windows="first", clips_per_video=2))) == [0, 8, 0, 8]


def test_a_run_of_frames_is_counted_from_its_first():
    dataset = ClipDataset(table(100).cut(0, 60, 20), ClipSettings(windows="all"))
    assert [dataset.plan((clip, 0)).indices.tolist() for clip in range(2)] == [[*range(60, 68)], [*range(68, 76)]]


def test_short_videos():
    skipping = ClipDataset(table(5, 20, 7), ClipSettings())
    assert skipping.too_short.tolist() == [0, 2]
    assert {skipping.label(clip) for clip in range(len(skipping))} == {1}
    for short, expected in (("loop", [0, 1, 2, 3, 4, 0, 1, 2]), ("pad", [0, 1, 2, 3, 4, 4, 4, 4])):
        dataset = ClipDataset(table(5, 20, 7), ClipSettings(short=short))
        assert dataset.too_short.tolist() == [0, 2]
        assert dataset.plan((0, 0)).indices.tolist() == expected


def test_flip_and_crop_are_drawn():
    dataset = ClipDataset(table(*[100] * 20), ClipSettings(flip=True, crop="random"))
    plans = [dataset.plan((clip, 0)) for clip in range(len(dataset))]
    assert 0.4 < np.mean([plan.flip for plan in plans]) < 0.6
    crops = np.array([plan.crop for plan in plans])
    assert crops.min() >= 0
    assert crops.max() < 1
    assert np.allclose(crops.mean(axis=0), 0.5, atol=0.1)


@pytest.mark.parametrize("options", [{}, {"crop": "random", "flip": True}, {"kernel": "area", "fps": 4}])
def test_memory_changes_no_pixel(tmp_path, make_video, monkeypatch, options):
    monkeypatch.setattr("flexivid.data.clips.frame_cache.CHUNK_FRAMES", 7)
    paths = [make_video(tmp_path / f"{i}.mp4", 20, size=(48, 80), first=i, step=9) for i in range(3)]
    dataset = ClipDataset(probed(paths), ClipSettings(4, (24, 20), **options))
    assert dataset.cached((0, 0)) is None
    assert keep(dataset) == {}
    for clip in range(len(dataset)):
        expected = read_clip(dataset.plan((clip, 1)))
        assert np.array_equal(dataset.cached((clip, 1)), expected)


def test_smallest_videos_are_kept_and_bad_ones_named(tmp_path, make_video):
    paths = [make_video(tmp_path / f"{i}.mp4", number, step=5) for i, number in enumerate((40, 12, 20))]
    dataset = ClipDataset(probed(paths), ClipSettings())
    paths[1].write_bytes(b"gone")
    failed = keep(dataset, max_bytes=40 * 32 * 32 * 3)
    assert list(failed) == [1]
    assert dataset.cache.rows.tolist() == [1, 2]
    assert [dataset.cache.frames(row) is None for row in range(3)] == [True, True, False]
    rest = dataset.without([str(paths[1])])
    assert (len(rest.videos), rest.cache.frames(0), rest.cache.frames(1).shape) == (2, None, (20, 32, 32, 3))


@pytest.mark.parametrize("max_bytes", [0, 10**9])
def test_worker_count_changes_nothing_as_a_map_style_set(tmp_path, make_video, max_bytes):
    paths = [make_video(tmp_path / f"{i}.mp4", 20, first=i, step=9) for i in range(4)]
    dataset = ClipDataset(probed(paths), ClipSettings(flip=True))
    keep(dataset, max_bytes)
    runs = []
    for num_workers in (0, 2):
        sampler = StepBatchSampler(len(dataset), lambda step: 3 + step % 2, seed=0, num_steps=6)
        runs.append(list(DataLoader(dataset, batch_sampler=sampler, num_workers=num_workers)))
    for alone, shared in zip(*runs, strict=True):
        assert torch.equal(alone["video"], shared["video"])
        assert torch.equal(alone["label"], shared["label"])
    assert runs[0][0]["video"].shape == (3, 3, 8, 32, 32)
    assert [len(batch["label"]) for batch in runs[0]] == [3, 4, 3, 4, 3, 4]


def test_file_that_breaks_later_is_replaced_and_named(tmp_path, make_video):
    paths = [make_video(tmp_path / f"{i}.mp4") for i in range(2)]
    dataset = ClipDataset(probed(paths), ClipSettings())
    paths[0].write_bytes(b"gone")
    with pytest.warns(UserWarning, match=r"got .*0\.mp4: "):
        assert dataset[0, 0]["label"].item() == 1
    paths[1].unlink()
    with pytest.warns(UserWarning, match=r"1\.mp4"), pytest.raises(ValueError, match="cannot be opened"):
        dataset[0, 0]


def test_a_million_videos():
    rng = np.random.default_rng(0)
    videos = Videos.of(["a.mp4"] * 1_000_000, num_frames=rng.integers(1, 900, 1_000_000), fps=25.0)
    videos.num_frames, videos.fps, videos.label  # noqa: B018
    tracemalloc.start()
    begin = time.perf_counter()
    dataset = ClipDataset(videos, ClipSettings(short="loop"))
    plans = [dataset.plan((clip, 0)) for clip in range(0, len(dataset), len(dataset) // 1000)]
    assert time.perf_counter() - begin < 5  # 0.2 on an idle core
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 30e6  # 8 bytes a video for the clips, 4 for what is too short
    assert len(pickle.dumps(plans[0])) < 1000


def test_a_file_of_many_clips_may_be_bad_as_a_whole():
    clips = ClipDataset(Videos.of([f"{i}.mp4" for i in range(9)], num_frames=8 * 300), ClipSettings())
    for clip in (0, 300, 599, 8 * 300, 9 * 300 - 1):
        tried = [clips.substitute(clip, number) for number in range(1, MAX_TRIES)]
        assert tried[:NEAR] == [(clip + number) % len(clips) for number in range(1, NEAR + 1)]
        assert len({clips.row(each) for each in tried}) >= 8
    listed = ClipDataset(Videos.of([f"{i // 20}.mp4" for i in range(200)], num_frames=8), ClipSettings())
    assert len({listed.row(listed.substitute(40, number)) // 20 for number in range(1, MAX_TRIES)}) > 2
