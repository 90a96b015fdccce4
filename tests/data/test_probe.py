"""What packets and the first frame tell, and errors that survive a trip between processes."""

import pickle

import numpy as np
import pytest

from flexivid.data.probe import VideoError, decode_all, probe


def test_facts_of_a_plain_file(tmp_path, make_video):
    facts = probe(make_video(tmp_path / "a.mp4", 12, size=(48, 64), fps=6))
    assert (facts.codec, facts.pixel_format, facts.num_packets, facts.rotation) == ("h264", "yuv420p", 12, 0)
    assert facts.size == (48, 64)
    assert facts.is_plain
    assert facts.fps == pytest.approx(6)
    np.testing.assert_allclose(facts.timestamps, np.arange(12) / 6, atol=1e-4)


def test_other_codecs_and_containers_are_not_plain(tmp_path, make_video):
    assert not probe(make_video(tmp_path / "a.mpg", codec="mpeg2video", fps=25)).is_plain
    assert not probe(make_video(tmp_path / "a.ts")).is_plain
    assert not probe(make_video(tmp_path / "a.avi", codec="mpeg4")).is_plain
    assert probe(make_video(tmp_path / "a.mkv")).is_plain


def test_what_makes_a_file_less_than_plain(shared_videos):
    check = shared_videos / "check"
    cut, turned = probe(check / "gen__nasa_editlist_copycut.mp4"), probe(check / "decord__video_270.mov")
    assert (cut.num_packets, cut.num_hidden, cut.is_plain) == (152, 60, False)
    assert (turned.rotation, turned.size, turned.is_plain) == (90, (568, 320), False)
    assert [probe(check / f"gen__nasa_{name}.mp4").is_open for name in ("h264_opengop", "h264_intra", "vfr")] == [
        1,
        0,
        0,
    ]
    assert probe(check / "ExoPlayer__dolbyVision-hdr.MOV").rotation == -90
    assert probe(check / "gen__nasa_tsoffset5.mkv").timestamps[0] == pytest.approx(5, abs=0.01)


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
