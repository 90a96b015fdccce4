"""A folder becomes clips to train on and clips to validate on, and nothing is left out in silence."""

import json

import pytest

from flexivid.data.dataset import ClipSettings
from flexivid.data.splits import load_splits, write_bad


def load(root, **settings):
    return load_splits(str(root), ClipSettings(**settings), max_bytes=10**9, progress=False)


def names(dataset):
    return [video.path.name for video in dataset.videos]


def test_held_out_folder_and_shared_labels(tmp_path, make_video):
    for name in ("train/a/1.mp4", "train/b/2.mp4", "train/c/3.mp4", "held_out/c/4.mp4"):
        make_video(tmp_path / name)
    splits = load(tmp_path, stride=2)
    assert splits.class_names == ("a", "b", "c")
    assert names(splits.train) == ["1.mp4", "2.mp4", "3.mp4"]
    assert [(video.path.name, video.label) for video in splits.val.videos] == [("4.mp4", 2)]
    assert splits.fps == pytest.approx(4)
    assert (splits.train.settings.fixed, splits.val.settings.fixed) == (False, True)


def test_some_are_held_out_if_no_folder_is(tmp_path, make_video):
    for i in range(6):
        make_video(tmp_path / f"{i}.mp4", 4 if i == 0 else 16)
    (tmp_path / "bad.mp4").write_bytes(b"junk")
    splits = load(tmp_path)
    assert sorted(names(splits.train) + names(splits.val)) == [f"{i}.mp4" for i in range(1, 6)]
    assert len(splits.val.videos) == 1
    assert [path.name for path in splits.too_short] == ["0.mp4"]
    assert [bad.path for bad in splits.bad] == [str(tmp_path / "bad.mp4")]


def test_single_video_shares_no_frame(tmp_path, make_video):
    make_video(tmp_path / "a.mp4", 60, step=4)
    splits = load(tmp_path)
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
    assert len(load(tmp_path, stride=2, loop=True).train) == 1


def test_list_of_bad_files(tmp_path):
    (tmp_path / "v").mkdir()
    for i in range(2):
        (tmp_path / "v" / f"{i}.mp4").write_bytes(b"junk")
    with pytest.raises(ValueError, match="0 clips"):
        load(tmp_path / "v")
    from flexivid.data.footage import BadVideo

    path = write_bad([BadVideo("x.mp4", "why"), BadVideo("y.mp4", "so")], tmp_path / "runs" / "1")
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"path": "x.mp4", "reason": "why"},
        {"path": "y.mp4", "reason": "so"},
    ]
