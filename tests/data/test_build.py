"""Nothing is looked at twice: not after a restart, a change of one file, or an interrupted build."""

import os
import pickle
import subprocess
import sys
import time

import fsspec
import numpy as np
import pytest

from flexivid.data.decoding.facts import Facts
from flexivid.data.index.build import build_index, index_path
from flexivid.data.index.videos import Videos, _reopen
from flexivid.data.sources.manifest import Manifest
from flexivid.data.storage.errors import VideoError

from .listed import probe_each, scan


class Probe:
    """Finds as many frames as the name says, fails on "bad", and remembers what it was asked for."""

    def __init__(self, *, stop_after=None):
        self.asked, self.stop_after = [], stop_after

    def __call__(self, paths):
        for path in paths:
            if len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(path.rsplit("/", 1)[-1])
            yield self.look(path)

    def look(self, path):
        name = path.rsplit("/", 1)[-1].split(".")[0]
        if name == "bad":
            return VideoError(path, "no video stream")
        ticks = np.arange(int(name)) * 40
        return Facts("h264", "mp4", "yuv420p", (48, 64), 0, ticks, 40 * len(ticks), (1, 1000), np.zeros((1, 2), int))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLEXIVID_CACHE", str(tmp_path / "cache"))


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def build(root, probe, **options):
    return build_index(scan(root), probe_many=probe, progress=False, **options)


def test_rows_in_order_and_the_bad_ones_apart(tmp_path):
    root = touch(tmp_path / "v", "a/5.mp4", "a/bad.mp4", "b/7.mp4", "b/9.mp4")
    index = build(root, Probe())
    videos = index.videos
    assert [os.path.basename(videos.path(row)) for row in range(len(videos))] == ["5.mp4", "7.mp4", "9.mp4"]
    assert (videos.num_frames.tolist(), videos.label.tolist()) == ([5, 7, 9], [0, 1, 1])
    assert (videos.fps.tolist(), videos.heights.tolist(), videos.widths.tolist()) == ([25] * 3, [48] * 3, [64] * 3)
    assert videos.durations.tolist() == pytest.approx([0.2, 0.28, 0.36])
    assert Facts.from_bytes(videos.facts(1)).num_frames == 7
    assert (videos.captions(0)[0], videos.decoder(0), index.class_names) == ("a", "pyav", ("a", "b"))
    assert index.bad == ((str(root / "a/bad.mp4"), "no video stream"),)
    assert index.path == index_path(str(root))


@pytest.mark.parametrize("check", ["stat", "contents", "names"])
def test_warm_start_asks_nothing(tmp_path, check):
    root = touch(tmp_path / "v", "5.mp4", "bad.mp4", "7.mp4")
    first, again = build(root, Probe(), check=check), Probe()
    second = build(root, again, check=check)
    assert again.asked == []
    assert (second.bad, second.videos.num_frames.tolist()) == (first.bad, first.videos.num_frames.tolist())


@pytest.mark.parametrize("check", ["stat", "contents"])
def test_only_changes_are_looked_at(tmp_path, check):
    root = touch(tmp_path / "v", "5.mp4", "6.mp4", "7.mp4", "bad.mp4")
    build(root, Probe(), check=check)
    (root / "6.mp4").unlink()
    (root / "7.mp4").write_bytes(b"longer")
    touch(root, "0/8.mp4")
    probe = Probe()
    index = build(root, probe, check=check)
    assert sorted(probe.asked) == ["7.mp4", "8.mp4"]
    assert sorted(index.videos.num_frames.tolist()) == [5, 7, 8]
    assert len(index.bad) == 1


def test_same_size_but_another_time_or_contents(tmp_path):
    root = touch(tmp_path / "v", "5.mp4", "6.mp4")
    build(root, Probe())
    os.utime(root / "5.mp4", (1, 1))
    probe = Probe()
    build(root, probe)
    assert probe.asked == ["5.mp4"]
    build(root, Probe(), check="contents")
    (root / "6.mp4").write_bytes(b"y")
    os.utime(root / "5.mp4", (2, 2))
    probe = Probe()
    build(root, probe, check="contents")
    assert probe.asked == ["6.mp4"]


def test_a_changed_caption_costs_no_look(tmp_path):
    root = touch(tmp_path / "v", "5.mp4", "6.mp4")
    (root / "6.txt").write_text("a dog")
    assert build(root, Probe()).videos.captions(1)[0] == "a dog"
    (root / "6.txt").write_text("another dog")
    probe = Probe()
    index = build(root, probe)
    assert (probe.asked, index.videos.captions(0)[0], index.videos.captions(1)[0]) == ([], "", "another dog")


def test_new_classes_cost_no_look(tmp_path):
    root = touch(tmp_path / "v", "b/5.mp4", "c/6.mp4")
    build(root, Probe())
    probe = Probe()
    manifest = scan(root, class_names=("a", "b", "c"))
    assert build_index(manifest, probe_many=probe, progress=False).videos.label.tolist() == [1, 2]
    assert probe.asked == []


def test_an_interrupted_build_goes_on(tmp_path):
    root = touch(tmp_path / "v", *(f"{i}.mp4" for i in range(10, 30)))
    with pytest.raises(KeyboardInterrupt):
        build(root, Probe(stop_after=12))
    probe = Probe()
    assert build(root, probe).videos.num_frames.tolist() == list(range(10, 30))
    assert len(probe.asked) == 8
    assert [path.suffix for path in index_path(str(root)).parent.iterdir()] == [".arrow"]


def test_a_killed_build_goes_on(tmp_path):
    root = touch(tmp_path / "v", *(f"{i}.mp4" for i in range(10, 30)))
    script = f"""
import itertools, time
from flexivid.data.index import table
from flexivid.data.index.build import build_index
from flexivid.data.sources.manifest import read_manifests
from flexivid.data.decoding.probe import VideoError
table.MAX_ROWS = 5
def slow(paths):
    for number, path in enumerate(paths):
        if number == 12:
            print("now", flush=True)
            time.sleep(60)
        yield VideoError(path, "first time")
build_index(read_manifests({str(root)!r}).train, probe_many=slow, progress=False)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"now\n"
    process.kill()
    process.wait()
    probe = Probe()
    assert len(build(root, probe).bad) == 10
    assert len(probe.asked) == 10


def test_a_damaged_or_foreign_file_is_made_anew(tmp_path):
    root = touch(tmp_path / "v", "5.mp4")
    path = build(root, Probe()).path
    for junk in (b"", b"junk", path.read_bytes()[:200]):
        path.write_bytes(junk)
        probe = Probe()
        assert len(build(root, probe).videos) == 1
        assert probe.asked == ["5.mp4"]


def test_missing_files_and_repeated_ones(tmp_path):
    root = touch(tmp_path / "v", "5.mp4")
    there, gone = str(root / "5.mp4"), str(root / "6.mp4")
    manifest = Manifest.of([(there, -1, "one"), (gone, -1, ""), (there, -1, "two")], root="list")
    index = build_index(manifest, probe_many=probe_each, progress=False)
    assert [reason for _, reason in index.bad][1] == "cannot be opened: No such file or directory"
    touch(root, "6.mp4")
    probe = Probe()
    index = build_index(manifest, progress=False, probe_many=probe)
    assert probe.asked == ["6.mp4"]
    assert len(index.bad) == 2


def test_remote_files():
    files = fsspec.filesystem("memory")
    for name in ("5.mp4", "bad.mp4"):
        files.pipe(f"/remote_index/{name}", b"x")
    assert len(build("memory://remote_index", Probe()).videos) == 1
    probe = Probe()
    build("memory://remote_index", probe)
    assert probe.asked == []
    time.sleep(0.01)
    files.pipe("/remote_index/bad.mp4", b"xyz")
    build("memory://remote_index", probe)
    assert probe.asked == ["bad.mp4"]
    files.rm("/remote_index", recursive=True)


def test_real_videos(tmp_path, make_video):
    for i in range(3):
        make_video(tmp_path / "v" / f"{i}.mp4", 4 + i)
    (tmp_path / "v" / "bad.mp4").write_bytes(b"junk")
    index = build_index(scan(tmp_path / "v"), probe_many=probe_each, progress=False)
    assert index.videos.num_frames.tolist() == [4, 5, 6]
    assert len(index.bad) == 1


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"file.*cannot be written .*set FLEXIVID_CACHE"):
        build(touch(tmp_path / "v", "5.mp4"), Probe(), path=tmp_path / "file" / "index.arrow")


def test_columns_are_views_of_the_file_and_selections_compose(tmp_path):
    root = touch(tmp_path / "v", *(f"{i}.mp4" for i in range(10, 40)))
    videos = build(root, Probe()).videos
    assert not videos.num_frames.flags.owndata
    assert not videos.num_frames.flags.writeable
    some = videos.select(np.arange(30) % 2 == 1).select(np.array([3, -1]))
    assert some.num_frames.tolist() == [17, 39]
    run = some.cut(1, 9, 20).cut(0, 5, 10)
    assert (run.first.tolist(), run.num_frames.tolist(), run.path(0)) == ([14], [10], videos.path(29))
    assert run.select(np.array([0, 0])).first.tolist() == [14, 14]
    with pytest.raises(ValueError, match="expected at most 10"):
        run.cut(0, 5, 6)
    with pytest.raises(IndexError):
        run.select(np.array([1]))


def test_pickles_are_small_and_know_their_file(tmp_path):
    root = touch(tmp_path / "v", *(f"{i}.mp4" for i in range(10, 400)))
    videos = build(root, Probe()).videos
    data = pickle.dumps(videos)
    assert len(data) < 600
    assert pickle.loads(data).num_frames.tolist() == videos.num_frames.tolist()
    run = pickle.loads(pickle.dumps(videos.cut(3, 1, 2)))
    assert (run.first.tolist(), run.path(0)) == ([1], videos.path(3))
    loose = pickle.loads(pickle.dumps(Videos.of(["a.mp4", "b.mp4"], num_frames=[1, 2]).select(np.array([1]))))
    assert (loose.path(0), loose.num_frames.tolist()) == ("b.mp4", [2])
    data = pickle.dumps(videos.select(np.array([0])))
    touch(root, "5.mp4")
    build(root, Probe())
    assert len(pickle.loads(data)) == 1  # this process still has the old one mapped
    _reopen.cache_clear()
    with pytest.raises(ValueError, match="which was built anew since"):
        pickle.loads(data)
