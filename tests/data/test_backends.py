"""Three decoders, one interface: whichever is asked for, the frames are the same, or the file is refused."""

import gc
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from flexivid.data.clips.windows import ClipSettings
from flexivid.data.decoding import backends as decoders
from flexivid.data.decoding import pyav as seeking
from flexivid.data.decoding import reader as readers
from flexivid.data.decoding.backends import DecordDecoder, PyavDecoder, View
from flexivid.data.decoding.probe import probe
from flexivid.data.decoding.reader import ClipRequest, VideoReader, open_video, read_clip
from flexivid.data.splits import load_splits
from flexivid.data.storage.errors import VideoError


def levels(frames):
    return frames.mean(axis=(1, 2, 3)).round().astype(int).tolist()


@pytest.fixture
def make_video():
    """As everywhere, with options for the encoder."""

    def make(path, num_frames=16, *, size=(32, 32), fps=8, step=10, codec="libx264", options=None):
        with av.open(str(path), "w") as container:
            options = {**({"crf": "4"} if codec == "libx264" else {}), **(options or {})}
            stream = container.add_stream(codec, rate=fps, options=options)
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            for i in range(num_frames):
                picture = np.full((*size, 3), step * i, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(stream.encode())
        return path

    return make


@pytest.fixture
def fake_torchcodec(monkeypatch):
    """torchcodec's interface, on frames that PyAV decodes; ``length`` and ``level`` falsify it."""
    fake = SimpleNamespace(length=None, level=0)

    class VideoDecoder:
        def __init__(self, source, *, seek_mode, num_ffmpeg_threads):
            assert (seek_mode, num_ffmpeg_threads) == ("exact", 1)
            info = probe(source)
            self.reader = VideoReader(source, info=info)

        def __len__(self):
            return fake.length or self.reader.num_frames

        def get_frame_at(self, index):
            picture = torch.from_numpy(self.reader.frames([index])[0]).permute(2, 0, 1) + fake.level
            return SimpleNamespace(data=picture, pts_seconds=self.reader.timestamps[index])

    real = decoders.import_module
    stub = SimpleNamespace(VideoDecoder=VideoDecoder)
    monkeypatch.setattr(decoders, "import_module", lambda name: stub if "torchcodec" in name else real(name))
    return fake


def test_every_decoder_gives_the_same_frames(tmp_path, make_video, fake_torchcodec):
    path = make_video(tmp_path / "a.mp4", 20)
    found = {name: probe(path, decoder=name) for name in ("pyav", "decord", "torchcodec")}
    assert {name: info.decoder for name, info in found.items()} == {name: name for name in found}
    frames = []
    for info in found.values():
        with open_video(path, size=(24, 24), info=info) as reader:
            frames.append(reader.frames([19, 3, 3, 4]))
            assert type(reader._decoder) is decoders.DECODERS[info.decoder]
    assert np.abs(frames[0].astype(int) - frames[1]).max() <= 2
    assert np.abs(frames[0].astype(int) - frames[2]).max() <= 2


def test_a_decoder_that_counts_or_shows_something_else_is_not_used(tmp_path, make_video, fake_torchcodec):
    path = make_video(tmp_path / "a.mp4")
    fake_torchcodec.length = 15
    with pytest.raises(VideoError, match=r"not decoded exactly by torchcodec \(torchcodec counts other frames\)"):
        probe(path, decoder="torchcodec")
    fake_torchcodec.length, fake_torchcodec.level = None, 9
    with pytest.raises(VideoError, match=r"another picture after a seek\); decoder=auto takes another"):
        open_video(path, decoder="torchcodec")
    with open_video(path, decoder="auto") as reader:
        assert reader.info.decoder == "pyav"


def test_a_decoder_that_raises_is_refused(tmp_path, make_video, fake_torchcodec, monkeypatch):
    def fail(self, index):
        raise RuntimeError("Requested next frame while there are no more frames left to decode.")

    monkeypatch.setattr(decoders.import_module("torchcodec.decoders").VideoDecoder, "get_frame_at", fail)
    with pytest.raises(VideoError, match="not decoded exactly by torchcodec"):
        probe(make_video(tmp_path / "a.mp4"), decoder="torchcodec")


def test_torchcodec_that_is_not_installed_is_said_once_and_not_for_each_file(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(ValueError, match=r"got decoder=torchcodec, which cannot be imported .*take decoder=auto"):
        load_splits("nowhere", ClipSettings(decoder="torchcodec"))


def test_a_decoder_is_pinned_for_a_reader(tmp_path, make_video):
    path = make_video(tmp_path / "a.mp4")
    with open_video(path, info=probe(path), decoder="decord") as reader:
        assert levels(reader.frames([15, 2])) == pytest.approx([150, 20], abs=3)
        assert isinstance(reader._decoder, DecordDecoder)


def test_decord_has_one_filter():
    with pytest.raises(ValueError, match=r"got data\.kernel=area for decoder=decord; expected bicubic"):
        load_splits("nowhere", ClipSettings(kernel="area", decoder="decord"))


def test_clips_of_files_that_decord_keeps_open_are_those_of_pyav(tmp_path, make_video):
    """In any order, over key frames and back, from more files than stay open, and after one is written anew."""
    groups = {"keyint": "8", "scenecut": "0"}
    paths = [make_video(tmp_path / f"{i}.mp4", 20, step=12 + i % 2, options={**groups, "bf": "2"}) for i in range(6)]
    info = {path: probe(path, decoder="decord") for path in paths}
    rng = np.random.default_rng(0)
    for _ in range(40):
        path = paths[rng.integers(6)]
        request = ClipRequest(str(path), info[path].to_bytes(), rng.integers(17) + np.arange(0, 4, 2), (24, 24))
        expected = read_clip(request._replace(info=info[path]._replace(decoder="pyav").to_bytes()))
        assert np.abs(read_clip(request).astype(int) - expected).max() <= 2
    assert 1 < len(readers._OPEN) <= readers.MAX_OPEN
    os.utime(make_video(path, 20, step=2), ns=(1, 1))
    assert levels(read_clip(request._replace(indices=np.array([10])))) == pytest.approx([20], abs=3)


def test_decord_only_where_it_is_exact(shared_videos):
    names = {  # decord counts hidden frames, turns nothing
        "ExoPlayer__roadtrip-vp92-10bit.webm",
        "gen__nasa_editlist_copycut.mp4",
        "decord__video_270.mov",
    }
    for name in names:
        with pytest.raises(VideoError, match="not decoded exactly by decord"):
            probe(shared_videos / "check" / name, decoder="decord")
    assert probe(shared_videos / "check" / "gen__nasa_h264_intra.mp4", decoder="decord").decoder == "decord"


def test_unknown_decoder_is_named(tmp_path, make_video):
    with pytest.raises(ValueError, match=r"got decoder=ffmpeg; expected one of auto, pyav, decord, torchcodec"):
        probe(make_video(tmp_path / "a.mp4"), decoder="ffmpeg")


def test_seeking_reads_only_what_it_must(tmp_path, make_video, monkeypatch):
    path = make_video(tmp_path / "a.mp4", 240, step=1, options={"g": "12", "bf": "2"})
    info, packets = probe(path), []
    assert len(info.entries) >= 19
    real = seeking.decode
    monkeypatch.setattr(seeking, "decode", lambda packet, name: packets.append(packet.pts) or real(packet, name))
    decoder = PyavDecoder(path, info, View())
    assert [int(picture.mean().round()) for _, picture in decoder.pictures([150])] == pytest.approx([150], abs=3)
    assert len(packets) < 24
    packets.clear()
    for number in range(151, 200):  # one after another, without going back
        list(decoder.pictures([number]))
    assert len(packets) < 80
    packets.clear()
    assert [number for number, _ in decoder.pictures([3, 100, 230])] == [3, 100, 230]
    assert len(packets) < 60
    decoder.close()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts", "a.mpg"])
def test_wrong_places_to_start_at_cost_time_only(tmp_path, make_video, name):
    codec = {"a.avi": "mpeg4", "a.mpg": "mpeg2video"}.get(name, "libx264")
    path = make_video(tmp_path / name, 60, step=4, fps=25, codec=codec, options={"g": "12"})
    info = probe(path)
    lost = info._replace(entries=np.array([[0, 0], [10**6, 20], [2 * 10**6, 40]]))
    for wrong in (lost, info._replace(entries=info.entries[:0]), info._replace(timed=False)):
        with VideoReader(path, info=wrong) as reader:
            assert levels(reader.frames([50, 7, 30])) == pytest.approx([200, 28, 120], abs=4)


def test_a_file_that_changed_is_refused(tmp_path, make_video):
    path = make_video(tmp_path / "a.mp4", 30, step=5)
    info = probe(path)
    make_video(path, 20, step=5, fps=10)
    with pytest.raises(VideoError, match="frame"), VideoReader(path, info=info) as reader:
        reader.frames([25])


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_many_opens_leave_nothing_behind(tmp_path, make_video):
    path = make_video(tmp_path / "a.mp4", 30, step=5, options={"g": "5"})
    info = probe(path)

    def use(times):
        for i in range(times):
            with open_video(path, info=info) as reader:
                reader.frames([i % 30, 2])
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return len(os.listdir("/proc/self/fd")), pages * os.sysconf("SC_PAGE_SIZE")

    files, memory = use(200)
    files_later, memory_later = use(1000)
    assert files_later <= files
    assert memory_later - memory < 20 << 20
