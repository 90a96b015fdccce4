"""What a file says of its display reaches everything that knows a size: index, buckets, clips, caches, reports."""

import io
import json
import tarfile
from functools import partial

import numpy as np
import pytest

from flexivid.data import VideoDataModule, open_video
from flexivid.data.clips.buckets import parse_buckets
from flexivid.data.clips.dataset import ClipDataset, fingerprint
from flexivid.data.clips.windows import ClipSettings
from flexivid.data.decoding.reader import cover, cut
from flexivid.data.index.build import build_index, index_path
from flexivid.data.sources.manifest import Manifest
from flexivid.data.sources.shard_writer import sources_of, write_shards
from flexivid.data.splits import index_collection
from flexivid.dataset import main
from flexivid.evaluation.clips import clip_settings, find_clips

from .crafted import SIZE, write
from .listed import probe_each

WIDE = ClipSettings(num_frames=2, size=(36, 64), windows="uniform")
RAW = WIDE._replace(square_pixels=False)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Indices of the test stay with the test."""
    monkeypatch.setenv("FLEXIVID_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def videos(tmp_path):
    """Two files of 90x72 pixels, which players show as 128x72 and 80x72, and one of square pixels."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, aspect in (("film", (64, 45)), ("ntsc", (8, 9)), ("web", None)):
        write(folder / f"{name}.mp4", aspect=aspect, num_frames=8)
    return folder


def sizes(root, **options):
    index, _ = index_collection(str(root), progress=False, **options)
    return dict(zip([index.videos.path(row).rsplit("/", 1)[-1] for row in range(3)], shapes(index.videos), strict=True))


def shapes(videos):
    return list(zip(videos.widths.tolist(), videos.heights.tolist(), strict=True))


def test_the_index_has_the_sizes_that_are_asked_for(videos):
    raw = {"film.mp4": (90, 72), "ntsc.mp4": (90, 72), "web.mp4": (90, 72)}
    assert sizes(videos) == {"film.mp4": (128, 72), "ntsc.mp4": (80, 72), "web.mp4": (90, 72)}
    assert sizes(videos, square_pixels=False) == raw
    assert sizes(videos)["film.mp4"] == (128, 72)  # each has an index of its own
    assert index_path(str(videos)) != index_path(str(videos), square_pixels=False)


def test_an_index_of_before_is_not_believed(videos, monkeypatch):
    build = partial(
        build_index, Manifest.of([(str(videos / "film.mp4"), -1, "")]), probe_many=probe_each, progress=False
    )
    with monkeypatch.context() as before:
        before.setattr("flexivid.data.index.table.FORMAT", "flexivid index 1")
        assert build().num_probed == 1
        assert build().num_probed == 0
    assert build().num_probed == 1


def test_videos_go_to_the_bucket_of_the_shape_that_they_are_shown_in(videos):
    buckets = parse_buckets([[2, 36, 64], [2, 40, 50]])  # 16:9 and 5:4
    chosen = {}
    for square in (True, False):
        index, _ = index_collection(str(videos), progress=False, square_pixels=square)
        dataset = ClipDataset(index.videos, WIDE, buckets=buckets)
        names = (index.videos.path(dataset.row(clip)).rsplit("/", 1)[-1] for clip in range(len(dataset)))
        chosen[square] = dict(zip(names, (dataset.bucket(clip) for clip in range(len(dataset))), strict=True))
    assert chosen[True] == {"film.mp4": 0, "ntsc.mp4": 1, "web.mp4": 1}
    assert set(chosen[False].values()) == {1}


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("options", [{"cache_gib": 0}, {"cache_gib": 1}, {"cache_gib": 1, "crop": "random"}])
def test_batches_hold_what_a_reader_shows(videos, square, options):
    data = VideoDataModule(
        str(videos), num_frames=2, size=(36, 64), windows="first", batch_size=1, square_pixels=square, **options
    )
    data.setup()
    batches = [*data.train_dataloader(), *data.val_dataloader()]
    shown = [batch["video"][0, :, 0].permute(1, 2, 0).numpy() for batch in batches]
    requests = [part.plan((clip, 0)) for part in data.splits.datasets for clip in range(len(part))]
    data.teardown()
    assert len(shown) == len(requests)
    for request in requests:
        with open_video(request.path, square_pixels=square) as reader:
            scaled = cover(reader.size, request.size)
        with open_video(request.path, size=scaled, square_pixels=square) as reader:
            expected = cut(reader.frames(request.indices[:1]), request.size, request.crop)[0]
        assert any(np.array_equal(expected, frame) for frame in shown)


def test_check_lists_what_is_shown_otherwise_than_stored(videos, tmp_path, capsys):
    for words, size in (([], "128x72"), (["--square-pixels", "false"], "90x72")):
        with pytest.raises(SystemExit) as stop:
            main(["check", str(videos), "--num-frames", "2", "--json", str(tmp_path / "c.json"), *words])
        assert stop.value.code == 0  # none of it is a fault
        report = json.loads((tmp_path / "c.json").read_text())["train"]
        assert size in report["sizes"]
        assert {path.rsplit("/", 1)[-1]: words for path, words in report["displays"].items()} == {
            "film.mp4": "stored as 90x72, pixels of 64:45",
            "ntsc.mp4": "stored as 90x72, pixels of 8:9",
        }
        assert "pixels of 64:45" in capsys.readouterr().out


def test_preview_says_so_beside_the_clip(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(f"data: {{root: {videos}, num_frames: 2, size: [36, 64], batch_size: 1}}\n")
    main(["preview", "--config", "r.yaml", "--num", "6"])
    assert "the file: stored as 90x72, pixels of " in (tmp_path / "preview" / "clips.html").read_text()


def test_shards_keep_it(videos, tmp_path):
    index, _ = index_collection(str(videos), progress=False)
    write_shards(sources_of(index.videos), tmp_path / "store", progress=False)
    assert shapes(index_collection(str(tmp_path / "store"), progress=False)[0].videos) == shapes(index.videos)


def test_tars_keep_it(videos, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for path in sorted(videos.iterdir()):
            member = tarfile.TarInfo(path.name)
            member.size = path.stat().st_size
            archive.addfile(member, io.BytesIO(path.read_bytes()))
    found = index_collection(str(tmp_path / "a.tar"), progress=False)[0].videos
    assert sorted(shapes(found)) == [(80, 72), (90, 72), (128, 72)]


def test_keys_of_caches_tell_pixels_apart(videos, tmp_path):
    keys, sets = [], {}
    for settings in (WIDE, RAW):
        index, _ = index_collection(str(videos), progress=False, square_pixels=settings.square_pixels)
        keys.append(fingerprint(ClipDataset(index.videos, settings)))
        sets[settings.square_pixels] = find_clips(str(videos), settings, split="train")
    assert keys[0] != keys[1]
    assert sets[True].fingerprint != sets[False].fingerprint
    assert clip_settings({"square_pixels": False}, (2, 36, 64)).square_pixels is False
    plain, mirrored = tmp_path / "plain", tmp_path / "mirrored"
    for folder, matrix in ((plain, None), (mirrored, (-1, 0, 0, 1))):
        folder.mkdir()
        write(folder / "a.mp4", matrix=matrix)
    indices = [index_collection(str(folder), progress=False)[0].videos for folder in (plain, mirrored)]
    assert shapes(indices[0]) == shapes(indices[1]) == [SIZE[::-1]]
    assert fingerprint(ClipDataset(indices[0], WIDE)) != fingerprint(ClipDataset(indices[1], WIDE))
