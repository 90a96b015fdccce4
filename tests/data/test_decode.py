"""Frames by number: exact counts and exact pictures on real files, odd and broken ones, or a refusal."""

import csv

import av
import numpy as np
import pytest

from flexivid.data import decode
from flexivid.data.decode import cover, open_video, read_all
from flexivid.data.probe import VideoError

MAX_REFUSED = 1  # decord__corrupted.mp4: 28 of 50 frames decode
SIZE = (48, 64)


def levels(frames):
    return frames.mean(axis=(1, 2, 3)).round().astype(int).tolist()


def sequential(path, wanted):
    """The slow obvious way: frames by number at SIZE, and how many there are before the end or an error."""
    images, number = {}, 0
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = container.streams.best("video")
            stream.thread_type = "FRAME"  # threads within a frame hide damage in another way every time
            for frame in container.decode(stream):
                if number in wanted:
                    turned = frame.rotation % 180 != 0
                    size = (frame.width, frame.height) if turned else (frame.height, frame.width)
                    h, w = cover(size, SIZE)
                    image = frame.to_ndarray(
                        format="rgb24", width=h if turned else w, height=w if turned else h, interpolation="BICUBIC"
                    )
                    image = np.rot90(image, frame.rotation // 90)
                    top, left = (h - SIZE[0]) // 2, (w - SIZE[1]) // 2
                    images[number] = image[top : top + SIZE[0], left : left + SIZE[1]].astype(int)
                number += 1
    except (av.FFmpegError, AttributeError, TypeError):
        pass
    return images, number


def test_real_files_are_exact_or_refused(shared_videos):
    rows = list(csv.DictReader((shared_videos / "check" / "MANIFEST.csv").open()))
    refused, wrong, exact = [], [], 0
    for row in rows:
        path, num_frames = shared_videos / "check" / row["file"], int(row["frames"] or 0)
        try:
            with open_video(path, size=SIZE) as reader:
                count = reader.num_frames
                wanted = sorted({0, 1 % count, count // 3, count // 2, count - 1})
                frames = reader.frames(wanted[::-1])[::-1]
        except VideoError:
            refused.append(row["file"])
            continue
        images, _ = sequential(path, wanted)
        same = len(images) == len(wanted) and all(
            np.abs(images[index] - frame).mean() < 4 for index, frame in zip(wanted, frames, strict=True)
        )
        exact += same and count == num_frames
        if not same or count != num_frames:
            wrong.append(row["file"])
    assert wrong == []
    assert exact >= len(rows) - len(refused)
    valid = {row["file"] for row in rows if int(row["frames"] or 0) > 0 and not row["file"].startswith("bad__")}
    assert len(valid & set(refused)) <= MAX_REFUSED
    assert {row["file"] for row in rows if not int(row["frames"] or 0)} <= set(refused)


def test_damaged_files_give_right_frames_or_none(shared_videos):
    for path in sorted((shared_videos / "check").glob("bad__*")):
        images, count = sequential(path, range(1000))
        for index in range(0, 120, 7):
            try:
                with open_video(path, size=SIZE) as reader:
                    frame = reader.frames([index])[0]
            except ValueError:  # VideoError, or a frame past the end
                continue
            assert index < count, (path.name, index)
            assert np.abs(images[index] - frame).mean() < 4, (path.name, index)
        with pytest.raises(VideoError) if count in (0, 17, 19) else open_video(path):
            read_all(path, SIZE)


def test_plain_files_go_through_decord_alone(tmp_path, make_video, monkeypatch):
    path = make_video(tmp_path / "a.mp4")
    monkeypatch.setattr(decode, "decode_all", lambda path: pytest.fail("PyAV decoded a plain file"))
    with open_video(path) as reader:
        assert reader.num_frames == 16
        assert levels(reader.frames([5, 15, 0])) == pytest.approx([50, 150, 0], abs=3)
    assert read_all(path, (32, 32)).shape == (16, 32, 32, 3)


def test_pyav_takes_over_when_decord_fails(tmp_path, make_video, monkeypatch):
    path = make_video(tmp_path / "a.mp4")
    with open_video(path) as reader:
        expected = reader.frames(range(16))

    class Broken:
        def VideoReader(self, *args, **kwargs):
            raise RuntimeError("no")

        DECORDError = RuntimeError

    monkeypatch.setattr(decode, "_load_decord", Broken)
    with open_video(path) as reader:
        assert reader.num_frames == 16
        assert np.abs(reader.frames(range(16)).astype(int) - expected).max() <= 2
    assert np.abs(read_all(path, (32, 32)).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
@pytest.mark.parametrize("width", [16, 24, 32, 33, 48, 64, 96])
def test_narrow_widths(tmp_path, make_video, name, width):
    path = make_video(tmp_path / name, 3, size=(32, 96), step=100)
    frames = read_all(path, (32, width))
    assert frames.shape == (3, 32, width, 3)
    assert [levels(frames[:, :, side]) for side in (slice(2), slice(-2, None))] == [
        pytest.approx([0, 100, 200], abs=4)
    ] * 2


def test_random_access_equals_reading_all(shared_videos):
    rng = np.random.default_rng(0)
    for name in ("gen__nasa_h264_opengop.mp4", "gen__nasa_vfr.mp4", "gen__nasa_tsoffset5.mkv", "gen__nasa_vp9.mkv"):
        whole = read_all(shared_videos / "check" / name, SIZE)
        with open_video(shared_videos / "check" / name, size=SIZE) as reader:
            for _ in range(6):
                indices = rng.integers(len(whole), size=5)
                assert np.array_equal(reader.frames(indices), whole[indices])


@pytest.mark.parametrize("name", ["a.mp4", "a.mpg"])
def test_order_repeats_and_limits(tmp_path, make_video, name):
    path = make_video(tmp_path / name, fps=25, codec="libx264" if name == "a.mp4" else "mpeg2video")
    with open_video(path) as reader:
        assert reader.frames([]).shape == (0, 32, 32, 3)
        assert levels(reader.frames([9, 2, 2, 9])) == pytest.approx([90, 20, 20, 90], abs=3)
        with pytest.raises(ValueError, match=r"got frame 16 of .*; expected 0 to 15"):
            reader.frames([3, 16])
        with pytest.raises(ValueError, match="got frame -1"):
            reader.frames([-1])
        assert np.diff(reader.timestamps) == pytest.approx(1 / 25, abs=1e-3)
    assert len(read_all(path, (32, 32), max_frames=5)) == 5


def test_picture_is_covered_and_cut_around_its_centre(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = 64, 192, "yuv420p"
        picture = np.zeros((64, 192, 3), np.uint8)
        picture[:, 64:128] = 200  # the middle third
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    assert levels(read_all(path, (32, 32))[:, :, 2:-2]) == pytest.approx([200], abs=3)
    assert cover((252, 448), (32, 32)) == (32, 57)
    assert cover((448, 252), (32, 32)) == (57, 32)
    assert cover((10, 10), (20, 30)) == (30, 30)


def test_rotation_is_applied(shared_videos):
    with open_video(shared_videos / "check" / "decord__video_270.mov") as reader:
        assert reader.size == (568, 320)
        assert reader.frames([0]).shape == (1, 568, 320, 3)
