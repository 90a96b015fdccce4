"""What packets and the first frame tell, and errors that survive a trip between processes."""

import pickle

import numpy as np
import pytest

import flexivid.data.decoding.probe as probe_module
from flexivid.data.decoding.probe import Facts, VideoError, decode_all, probe


def test_facts_of_a_plain_file(tmp_path, make_video):
    info = probe(make_video(tmp_path / "a.mp4", 12, size=(48, 64), fps=6))
    assert (info.codec, info.pixel_format, info.num_frames, info.rotation) == ("h264", "yuv420p", 12, 0)
    assert (info.size, info.decoder, info.is_variable_rate) == ((48, 64), "pyav", False)
    assert (info.fps, info.duration) == (pytest.approx(6), pytest.approx(2))
    np.testing.assert_allclose(info.timestamps, np.arange(12) / 6, atol=1e-4)


def test_facts_of_odd_files(shared_videos):
    info = {
        name: probe(shared_videos / "check" / name)
        for name in (
            *("gen__nasa_editlist_copycut.mp4", "decord__video_270.mov", "ExoPlayer__dolbyVision-hdr.MOV"),
            *("gen__nasa_tsoffset5.mkv", "gen__nasa_vfr.mp4", "ExoPlayer__roadtrip-vp92-10bit.webm"),
        )
    }
    cut, turned, turned_back, late, variable, hidden = info.values()
    assert (cut.num_frames, hidden.num_frames) == (92, 72)
    assert (turned.rotation, turned.size, turned_back.rotation) == (90, (568, 320), -90)
    assert late.timestamps[0] == pytest.approx(5, abs=0.01)
    assert [each.is_variable_rate for each in (late, variable)] == [False, True]


def test_a_long_file_is_known_from_its_packets(shared_videos, monkeypatch):
    path = shared_videos / "train" / "big_buck_bunny_448x252.mp4"
    monkeypatch.setattr(probe_module, "decode_all", lambda source: pytest.fail("decoded a whole film"))
    info = probe(path)
    assert (info.num_frames, info.timed, info.skips) == (14315, True, True)
    assert len(info.entries) > 20
    assert len(info.to_bytes()) < info.num_frames


def test_a_short_file_and_a_long_one_are_known_alike(shared_videos, monkeypatch):
    for name in ("gen__nasa_h264_opengop.mp4", "gen__nasa_h264_intra.mp4", "gen__nasa_editlist_copycut.mp4"):
        whole = probe(shared_videos / "check" / name)
        with monkeypatch.context() as patch:
            patch.setattr(probe_module, "WHOLE_PIXELS", 0)
            long = probe(shared_videos / "check" / name)
        assert np.array_equal(long.ticks, whole.ticks)
        starts = set(map(tuple, long.entries.tolist()))
        assert set(map(tuple, whole.entries.tolist())) <= starts


def test_facts_survive_packing():
    rng = np.random.default_rng(0)
    ticks = np.cumsum(rng.integers(1, 1000, 500)) - 5000
    entries = np.stack([ticks[::50], np.arange(0, 500, 50)], axis=1)
    for info in (
        Facts("h264", "mov,mp4", "yuv420p", (64, 48), -90, ticks, int(ticks[-1]) + 9, (1, 90000), entries, True, True),
        Facts("gif", "gif", "bgra", (1, 1), 0, ticks[:1], 9, (1, 100), entries[:0], False, False, "decord"),
    ):
        back = Facts.from_bytes(info.to_bytes())
        assert all(np.array_equal(a, b) and type(a) is type(b) for a, b in zip(info, back, strict=True))
    assert len(info.to_bytes()) < 200


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_file_that_was_cut_off_is_refused(tmp_path, make_video, name, part):
    whole = make_video(tmp_path / name, 24, size=(64, 64)).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(VideoError, match=r"ends after|no video stream|cannot be opened|fails"):
        probe(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"not a video at all, but text " * 100])
def test_what_is_no_video_is_refused(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    for look in (probe, lambda path: list(decode_all(path))):
        with pytest.raises(VideoError, match=r"got .*a\.mp4: .*; expected a video.*; re-encode or remove"):
            look(path)


def test_sound_alone_is_refused(shared_videos):
    for name in ("gen__nasa_audio_only.mp4", "torchcodec__nasa_13013.mp4.audio.mp3", "ExoPlayer__sample_ac3.ts"):
        with pytest.raises(VideoError, match="no video stream"):
            probe(shared_videos / "check" / name)


def test_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(VideoError("a.mp4", "no video stream")))
    assert (error.path, error.reason) == ("a.mp4", "no video stream")
    assert isinstance(error, ValueError)
