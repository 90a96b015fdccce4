"""A folder becomes clips to train on and clips to validate on, and nothing is left out in silence."""

import json
from pathlib import Path

import pytest

from flexivid.data.clips.windows import ClipSettings
from flexivid.data.index.build import BadVideo
from flexivid.data.splits import keep_in_memory, load_splits, write_bad
from flexivid.data.workers.pool import DecodePool


def load(root, **settings):
    return load_splits(str(root), ClipSettings(**settings), progress=False)


def names(dataset):
    return [Path(dataset.videos.path(row)).name for row in range(len(dataset.videos))]


def test_held_out_folder_and_shared_labels(tmp_path, make_video):
    for name in ("train/a/1.mp4", "train/b/2.mp4", "train/c/3.mp4", "held_out/c/4.mp4"):
        make_video(tmp_path / name)
    splits = load(tmp_path, stride=2)
    assert splits.class_names == ("a", "b", "c")
    assert names(splits.train) == ["1.mp4", "2.mp4", "3.mp4"]
    assert (names(splits.val), splits.val.videos.label.tolist()) == (["4.mp4"], [2])
    assert splits.train.fps == pytest.approx(4)
    assert (splits.train.settings.windows, splits.val.settings.windows) == ("random", "uniform")


def test_some_are_held_out_if_no_folder_is(tmp_path, make_video):
    for i in range(6):
        make_video(tmp_path / f"{i}.mp4", 4 if i == 0 else 16)
    (tmp_path / "bad.mp4").write_bytes(b"junk")
    splits = load(tmp_path)
    assert sorted(names(splits.train) + names(splits.val)) == [f"{i}.mp4" for i in range(1, 6)]
    assert len(splits.val.videos) == 1
    assert [Path(path).name for path in splits.too_short] == ["0.mp4"]
    assert splits.num_files == 7
    assert [bad.path for bad in splits.bad] == [str(tmp_path / "bad.mp4")]


def test_single_video_shares_no_frame(tmp_path, make_video):
    make_video(tmp_path / "a.mp4", 60, step=4)
    splits = load(tmp_path)
    assert splits.num_files == 1
    seen = {int(splits.train[0, epoch]["video"].max()) for epoch in range(200)}
    assert max(seen) < int(splits.val[0, 0]["video"].min())


def test_nothing_to_train_on_says_why(tmp_path, make_video):
    (tmp_path / "bad.mp4").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"got 0 clips .*all 1 videos fail to decode \(.*bad\.mp4: cannot be opened"):
        load(tmp_path)
    make_video(tmp_path / "a.mp4", 12)
    (tmp_path / "bad.mp4").unlink()
    with pytest.raises(
        ValueError, match=r"0 clips .*all 1 videos are too short.*12 frames; expected at least 15 .*data\.short=loop"
    ):
        load(tmp_path, stride=2)
    assert len(load(tmp_path, stride=2, short="loop").train) == 1


def test_list_of_bad_files(tmp_path):
    (tmp_path / "v").mkdir()
    for i in range(2):
        (tmp_path / "v" / f"{i}.mp4").write_bytes(b"junk")
    with pytest.raises(ValueError, match="0 clips"):
        load(tmp_path / "v")
    path = write_bad([BadVideo("x.mp4", "why"), BadVideo("y.mp4", "so")], tmp_path / "runs" / "1")
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"path": "x.mp4", "reason": "why"},
        {"path": "y.mp4", "reason": "so"},
    ]
    write_bad([BadVideo("z.mp4", "too")], path.parent, append=True)
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize(("quick_seconds", "kept"), [(60, 3), (0, 0)])
def test_videos_are_read_before_training_only_if_that_is_quick(tmp_path, make_video, monkeypatch, quick_seconds, kept):
    for i in range(4):
        make_video(tmp_path / f"{i}.mp4")
    monkeypatch.setattr("flexivid.data.splits.QUICK_SECONDS", quick_seconds)
    with DecodePool(1) as pool:
        splits = keep_in_memory(load(tmp_path), pool=pool, progress=False)
    assert len(splits.train.cache.rows) == kept


def test_file_that_fails_while_it_is_kept_in_memory_is_left_out_everywhere(tmp_path, make_video):
    for i in range(4):
        make_video(tmp_path / f"{i}.mp4")
    splits = load(tmp_path)
    (bad,) = names(splits.val)
    (tmp_path / bad).write_bytes(b"gone")
    with DecodePool(1) as pool:
        kept = keep_in_memory(splits, pool=pool, max_bytes=10**9, progress=False)
        other = keep_in_memory(
            splits, pool=pool, max_bytes=0, agree=lambda bad: [*bad, BadVideo(str(tmp_path / "0.mp4"), "elsewhere")]
        )
    assert [Path(video.path).name for video in kept.bad] == [bad]
    assert (len(kept.train.videos), len(kept.val)) == (3, 0)
    assert "0.mp4" not in names(other.train) + names(other.val)
