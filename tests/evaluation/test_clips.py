"""Which clips of a folder are measured: fixed windows, known by their contents, each mistake in three parts."""

import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from flexivid.data import VideoDataModule
from flexivid.data.clips.windows import ClipSettings
from flexivid.data.decoding.probe import VideoError
from flexivid.data.decoding.reader import read_clip
from flexivid.data.encode_request import EncodeRequest
from flexivid.data.encoding import encode_collection
from flexivid.data.index.build import index_path
from flexivid.data.sources.layout import Collection
from flexivid.data.splits import load_splits
from flexivid.evaluation import clips as evaluation_clips
from flexivid.evaluation import run
from flexivid.evaluation.clips import clip_settings, data_root, data_section, find_clips, read_blocks
from flexivid.latents.settings import CodecSettings
from flexivid.media.write import write_video
from flexivid.patching.shapes import Size3
from flexivid.runtime.ranks import Ranks
from flexivid.training.callbacks.plans_and_clips import training_clips

SIZE = (4, 16, 16)


@pytest.fixture
def make_folder(tmp_path):
    """A function that writes videos of frames that get brighter; returns their folder."""

    def make(name, lengths, *, size=(16, 16)):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for i, length in enumerate(lengths):
            frames = (
                np.zeros((length, *size, 3), np.uint8) + 10 * np.arange(length, dtype=np.uint8)[:, None, None, None]
            )
            write_video(folder / f"{i:03d}.mp4", frames + np.uint8(i), 8)
        return folder

    return make


def frame_numbers(clips):
    return [(request.path[-7:-4], request.indices.tolist()) for request in map(clips.plan, range(len(clips)))]


def test_windows_are_spread_over_each_video_and_always_the_same(make_folder):
    folder = make_folder("videos", [4, 9])
    settings = clip_settings({"windows": "random", "flip": True, "crop": "random", "seed": 5}, SIZE)
    clips = find_clips(str(folder), settings)
    assert frame_numbers(clips) == [("000", [0, 1, 2, 3]), ("001", [1, 2, 3, 4]), ("001", [4, 5, 6, 7])]
    assert not any(clips.plan(i).flip for i in range(3))
    assert clips.split == "all"


def test_a_file_with_a_row_for_each_caption_counts_once_and_is_in_one_part(make_folder):
    folder = make_folder("videos", [9, 9, 9])
    listed = folder / "list.csv"
    listed.write_text("path,text\n" + "".join(f"{i:03d}.mp4,words {i} {j}\n" for i in range(3) for j in range(5)))
    parts = [find_clips(str(listed), clip_settings({}, SIZE), split=split) for split in ("train", "held_out", "all")]
    names = [[path for path, _ in frame_numbers(part)] for part in parts]
    assert sorted(names[0]) == ["000", "000", "002", "002"]
    assert (names[1], sorted(names[2])) == (["001"] * 2, ["000", "000", "001", "001", "002", "002"])
    assert parts[0].trained is None
    assert parts[1].seen([parts[1].caption(0)]) == "0 of 1 held-out captions are among those trained on"


def test_the_rate_of_training_is_kept_unless_another_is_asked_for(make_folder):
    folder = make_folder("videos", [9, 9])
    section = {"stride": 2, "fps": None, "root": "videos", "batch_size": 3}
    clips = find_clips(str(folder), clip_settings(section, SIZE))
    assert frame_numbers(clips)[0][1] == [1, 3, 5, 7]
    assert clips.fps == 4
    assert clip_settings(section, SIZE, fps=4.0)[2:5:2] == (1, 4.0)


def test_the_decoder_of_training_is_kept_so_that_no_file_is_looked_at_twice(make_folder):
    folder = make_folder("videos", [9] * 4)
    data = VideoDataModule(str(folder), num_frames=4, size=16, decoder="decord", num_workers=1)
    data.setup()
    files = set(index_path(str(folder)).parent.iterdir())
    for root in (data.manifests, str(folder)):
        clips = find_clips(root, clip_settings(data.settings._asdict(), SIZE))
        assert {clips.dataset.videos.decoder(row) for row in range(4)} == {"decord"}
    assert set(index_path(str(folder)).parent.iterdir()) == files
    find_clips(str(folder), clip_settings({}, SIZE))
    assert set(index_path(str(folder)).parent.iterdir()) > files


def test_some_clips_are_spread_evenly(make_folder):
    folder = make_folder("videos", [4] * 6)
    clips = find_clips(str(folder), clip_settings({}, SIZE), num_clips=3)
    assert [name for name, _ in frame_numbers(clips)] == ["000", "002", "004"]
    assert len(find_clips(str(folder), clip_settings({}, SIZE), num_clips=99)) == 6


def test_parts_are_those_of_training(tmp_path, make_folder):
    make_folder("set/train", [4, 4, 4])
    make_folder("set/val", [4, 4])
    settings, root = clip_settings({}, SIZE), str(tmp_path / "set")
    sizes = {split: len(find_clips(root, settings, split=split)) for split in (None, "train", "held_out")}
    assert sizes == {None: 3, "train": 3, "held_out": 2}
    assert find_clips(root, settings).split == "train"
    with pytest.raises(ValueError, match=r"got split all of .*, which has a held-out part; expected"):
        find_clips(root, settings, split="all")
    with pytest.raises(ValueError, match=r"got split 'test'; expected one of train, held_out, all"):
        find_clips(root, settings, split="test")


@pytest.mark.parametrize(("held_out_from", "split"), [(None, "train"), (2, "held_out"), (3, "train")])
def test_held_out_clips_are_taken_where_there_are_enough(tmp_path, make_folder, held_out_from, split):
    make_folder("set/train", [4, 4, 4])
    make_folder("set/val", [4, 4])
    settings, root = clip_settings({}, SIZE), str(tmp_path / "set")
    for asked in (None, "train"):
        assert find_clips(root, settings, split=asked, held_out_from=held_out_from).split == split
    assert find_clips(root, settings, split="held_out", held_out_from=held_out_from).split == "held_out"


def test_nothing_is_held_out_of_a_folder_that_nobody_trained_on(make_folder):
    root, settings = str(make_folder("videos", [4] * 40)), clip_settings({}, SIZE)
    parted = find_clips(root, settings, split="held_out")
    assert len(parted) >= 2
    assert find_clips(root, settings, held_out_from=2).split == "all"
    assert find_clips(root, settings, split="train", held_out_from=len(parted)).split == "held_out"
    assert find_clips(root, settings, split="train", held_out_from=len(parted) + 1).split == "train"


def test_a_fingerprint_tells_contents_and_frames_and_not_places(tmp_path, make_folder):
    folder = make_folder("videos", [5, 5])
    settings = clip_settings({}, SIZE)
    before = find_clips(str(folder), settings).fingerprint
    moved = shutil.move(folder, tmp_path / "elsewhere")
    os.utime(moved / "000.mp4", (1, 1))
    assert find_clips(str(moved), settings).fingerprint == before
    assert find_clips(str(moved), settings, num_clips=1).fingerprint != before
    assert find_clips(str(moved), settings._replace(num_frames=3)).fingerprint != before
    assert find_clips(str(moved), settings._replace(kernel="area")).fingerprint != before
    shutil.copy(moved / "001.mp4", moved / "000.mp4")
    assert find_clips(str(moved), settings).fingerprint != before


def test_blocks_hold_the_pixels_of_the_files(make_folder):
    clips = find_clips(str(make_folder("videos", [4, 4, 4])), clip_settings({}, SIZE))
    found = list(read_blocks(clips, [[0, 1], [2]], num_workers=1))
    assert [(block, tuple(videos.shape)) for block, videos in found] == [([0, 1], (2, 3, *SIZE)), ([2], (1, 3, *SIZE))]
    levels = found[0][1].double().mean((1, 3, 4))
    assert torch.allclose(levels[0], torch.tensor([0.0, 10, 20, 30], dtype=torch.float64), atol=2)
    assert (levels[1] - levels[0]).mean().item() == pytest.approx(1, abs=0.5)


def test_a_clip_that_fails_is_left_out_with_a_warning(make_folder, monkeypatch):
    clips = find_clips(str(make_folder("videos", [4, 4, 4])), clip_settings({}, SIZE))
    real = evaluation_clips.outcomes

    def broken(requests, pool):
        for number, frames in real(requests, pool):
            yield number, VideoError(clips.plan(1).path, "ends too early") if number == 1 else frames

    monkeypatch.setattr(evaluation_clips, "outcomes", broken)
    with pytest.warns(UserWarning, match=r"001.mp4: ends too early; .*; its clip is left out of the reference"):
        found = list(read_blocks(clips, [[0], [1], [2]], num_workers=1))
    assert [len(videos) for _, videos in found] == [1, 0, 1]


def test_each_mistake_is_told_in_three_parts(tmp_path, make_folder):
    settings = clip_settings({}, SIZE)
    with pytest.raises(FileNotFoundError, match=r"got .*nowhere, which does not exist; expected"):
        find_clips(str(tmp_path / "nowhere"), settings)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"got .*empty, which holds 0 other files and no video; expected .*; correct"):
        find_clips(str(tmp_path / "empty"), settings)
    (tmp_path / "broken").mkdir()
    for name in "ab":
        (tmp_path / "broken" / f"{name}.mp4").write_bytes(b"no video at all")
    with pytest.raises(
        ValueError, match=r"got 0 clips from .*broken: all 2 videos fail to decode \(.*; expected videos; conv"
    ):
        find_clips(str(tmp_path / "broken"), settings)
    with pytest.raises(
        ValueError, match=r"has 3 frames; expected at least 4 frames for num_frames=4 and stride=1; lower num_frames"
    ):
        find_clips(str(make_folder("short", [3, 2])), settings)
    with pytest.raises(ValueError, match=r"got 1 clips in .* \(all\); expected at least 2 for a distance; name"):
        find_clips(str(make_folder("single", [4])), settings)


def test_what_is_left_out_is_counted(make_folder):
    folder = make_folder("videos", [4, 4, 2])
    (folder / "bad.mp4").write_bytes(b"no video at all")
    clips = find_clips(str(folder), clip_settings({}, SIZE))
    text = "2 of 2 clips of 3 videos; left out: 1 files that cannot be decoded, 1 videos shorter than a clip"
    assert str(clips).endswith(text)


def test_the_data_of_a_run_is_found_from_anywhere(tmp_path, monkeypatch):
    run = tmp_path / "runs" / "digits"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("data:\n  root: data/digits\n  stride: 2\n")
    (tmp_path / "data" / "digits").mkdir(parents=True)
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    section = data_section(run)
    assert section == {"root": "data/digits", "stride": 2}
    assert data_root(run, section) == str(tmp_path / "data" / "digits")
    (tmp_path / "data" / "digits").rmdir()
    with pytest.raises(ValueError, match=r"got data.root=data/digits in .*config.yaml, which does not exist; .* --ref"):
        data_root(run, section)
    with pytest.raises(ValueError, match=r"got no reference for .*away, .*; expected real videos; .* --reference"):
        data_root(tmp_path / "away", data_section(tmp_path / "away"))


def test_clips_of_a_run_on_latents_are_those_of_their_source(make_folder, tmp_path):
    """In the program and in callbacks; where it is gone, held-out latents are decoded, and the split says so."""
    folder = make_folder("videos", [9, 9, 20, 9])
    settings = ClipSettings(num_frames=4, size=(16, 16), stride=2, windows="uniform")
    request = EncodeRequest(Collection(str(folder)), str(tmp_path / "out"), settings, CodecSettings("pixel"))
    encode_collection(request, torch.device("cpu"), Ranks(0, 1))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(f"data: {{root: {tmp_path / 'out'}}}")
    asked = run.Request(str(tmp_path / "run"), str(tmp_path / "result"), num_videos=8, held_out=False)

    def in_training():
        trainer = SimpleNamespace(datamodule=VideoDataModule(str(tmp_path / "out")), world_size=1)
        return training_clips(trainer, 8)

    expected = find_clips(str(folder), clip_settings({"stride": 2}, SIZE), split="train")
    for clips in (run._clips(asked, Size3(*SIZE)), in_training()):
        assert (clips.split, clips.fingerprint) == ("train", expected.fingerprint)
    held_out = np.stack([read_clip(clip) for clip in clips_of(folder, settings)])
    folder.rename(tmp_path / "gone")
    for clips in (run._clips(asked, Size3(*SIZE)), in_training()):
        assert (clips.split, clips.fps) == ("held_out, decoded latents", 4.0)
        videos = torch.cat([videos for _, videos in read_blocks(clips, [range(len(clips))], num_workers=1)])
        assert np.array_equal(videos.permute(0, 2, 3, 4, 1).numpy(), held_out)


def test_what_was_held_out_stays_so_at_another_rate_and_length(make_folder, tmp_path):
    """Then other videos are too short, and would move the choice of one in twenty."""
    folder = make_folder("videos", [12 if number % 3 == 0 else 5 for number in range(40)])
    data = VideoDataModule(str(folder), num_frames=4, size=16, buckets=[[4, 16, 16], [8, 16, 32]])
    data.setup()
    held_out = {data.splits.val.videos.path(row) for row in range(2)}
    (tmp_path / "run").mkdir()
    section = f"data: {{root: {folder}, num_frames: 4, buckets: [[4, 16, 16], [8, 16, 32]]}}"
    (tmp_path / "run" / "config.yaml").write_text(section)
    asked = run.Request(str(tmp_path / "run"), str(tmp_path / "result"), num_videos=99)
    for rate, frames in (({}, 4), ({"stride": 2}, 4), ({"fps": 4.0}, 4), ({}, 8)):
        request = replace(asked, rate=rate)
        train = run._clips(replace(request, split="train"), Size3(frames, 16, 16))
        assert not held_out & {train.plan(i).path for i in range(len(train))}
        if not rate and frames == 4:
            val = run._clips(replace(request, split="held_out"), Size3(frames, 16, 16))
            assert {val.plan(i).path for i in range(len(val))} == held_out
    trainer = SimpleNamespace(datamodule=data, world_size=1)
    assert {training_clips(trainer, 99, "val").plan(i).path for i in range(2)} == held_out


@pytest.mark.parametrize("encoded", [False, True])
def test_pictures_are_held_out_as_in_training(tmp_path, encoded):
    """Numbered ones would be frames of a video, whose end is held out."""
    (tmp_path / "photos").mkdir()
    for number in range(40):
        Image.new("RGB", (16, 16), (5 * number, 0, 0)).save(tmp_path / "photos" / f"{number:02d}.png")
    data, source = VideoDataModule(str(tmp_path / "photos"), num_frames=1, size=16, pictures=True), "photos"
    if encoded:
        settings = ClipSettings(num_frames=1, size=(16, 16), windows="uniform")
        request = EncodeRequest(data.collection, str(tmp_path / "out"), settings, CodecSettings("pixel"))
        encode_collection(request, torch.device("cpu"), Ranks(0, 1))
        source = "out"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(f"data: {{root: {tmp_path / source}, pictures: {not encoded}}}")
    asked = run.Request(str(tmp_path / "run"), str(tmp_path / "result"), num_videos=2)
    clips, other = run._clips(asked, Size3(1, 16, 16)), replace(asked, reference=str(tmp_path / "photos"))
    data.setup()
    assert clips.split == "held_out"
    assert [clips.plan(i).path for i in range(2)] == [data.splits.val.plan((i, 0)).path for i in range(2)]
    assert len(run._clips(other, Size3(1, 16, 16)).dataset.videos) == 40


def clips_of(folder, settings):
    dataset = load_splits(str(folder), settings).val
    return [dataset.plan((clip, 0)) for clip in range(len(dataset))]
