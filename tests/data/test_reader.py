"""Frames by number: exact counts and exact pictures on real files, odd and broken ones, or a refusal."""

import csv

import av
import fsspec
import numpy as np
import pytest

from flexivid.data.decoding.probe import VideoError, probe
from flexivid.data.decoding.pyav import KERNELS
from flexivid.data.decoding.reader import ClipRequest, cover, open_video, read_clip

MAX_REFUSED = 1  # decord__corrupted.mp4: 28 of 50 frames decode
SIZE = (48, 64)


def read_all(path, size, max_frames=None):
    with open_video(path, size=size) as reader:
        return reader.read(max_frames)


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
                    turned, aspect = frame.rotation % 180 != 0, stream.sample_aspect_ratio or 1
                    size = (frame.height, round(frame.width * aspect))
                    size = size[::-1] if turned else size
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
    refused, wrong = [], []
    for row in rows:
        path, num_frames = shared_videos / "check" / row["file"], int(row["frames"] or 0)
        try:
            with open_video(path, size=SIZE) as reader:
                count = reader.num_frames
                wanted = sorted({0, 1 % count, count // 3, count // 2, count - 1})
                frames = {index: reader.frames([index])[0] for index in wanted[::-1]}
        except VideoError:
            refused.append(row["file"])
            continue
        images, _ = sequential(path, wanted)
        same = all(np.abs(images[index] - frame).mean() < 0.5 for index, frame in frames.items())
        if not same or count != num_frames:
            wrong.append(row["file"])
    assert wrong == []
    valid = {row["file"] for row in rows if int(row["frames"] or 0) > 0 and not row["file"].startswith("bad__")}
    assert len(valid & set(refused)) <= MAX_REFUSED
    assert {row["file"] for row in rows} - valid <= set(refused)


@pytest.mark.slow
def test_real_files_in_twenty_seeks(shared_videos):
    folders = ((shared_videos / "check", "MANIFEST.csv", "file"), (shared_videos / "train", "metadata.csv", "path"))
    for folder, table, column in folders:
        for row in csv.DictReader((folder / table).open()):
            if int(row["frames"] or 0) == 0 or row[column].startswith(("bad__", "decord__corrupted")):
                continue
            count = int(row["frames"])
            wanted = np.random.default_rng(count).integers(min(count, 1500), size=20).tolist()
            images, _ = sequential(folder / row[column], {*wanted})
            with open_video(folder / row[column], size=SIZE) as reader:
                assert reader.num_frames == count, row[column]
                for index in wanted:
                    assert np.abs(images[index] - reader.frames([index])[0]).mean() < 0.5, (row[column], index)


def test_damaged_files_are_refused_at_once(shared_videos):
    for path in sorted((shared_videos / "check").glob("bad__*")):
        with pytest.raises(VideoError):
            open_video(path)


def test_size_none_is_what_pyav_gives(shared_videos):
    for name in ("gen__nasa_odd65x49_mpeg4.mp4", "moviepy__bitmap.mp4", "moviepy__pigs_in_a_polka.gif"):
        with open_video(shared_videos / "check" / name) as reader, av.open(str(shared_videos / "check" / name)) as file:
            for index, frame in zip(range(4), file.decode(video=0), strict=False):
                assert np.array_equal(reader.frames([index])[0], frame.to_ndarray(format="rgb24"))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_bytes_and_addresses(tmp_path, make_video, name):
    path = make_video(tmp_path / name)
    with fsspec.open(f"memory://videos/{name}", "wb") as file:
        file.write(path.read_bytes())
    for source in (path.read_bytes(), f"memory://videos/{name}", f"file://{path}"):
        with open_video(source) as reader:
            assert (reader.num_frames, reader.timestamps[1] - reader.timestamps[0]) == (
                16,
                pytest.approx(1 / 8, abs=1e-3),
            )
            assert levels(reader.frames([15, 2])) == pytest.approx([150, 20], abs=3)
    with pytest.raises(VideoError, match=r"got memory://videos/none\.mp4: cannot be opened"):
        open_video("memory://videos/none.mp4")
    with pytest.raises(VideoError, match="got <4 bytes>: cannot be opened"):
        open_video(b"1234")


def test_clip_is_cropped_flipped_and_resized_as_asked(tmp_path):
    path = tmp_path / "a.mp4"
    ramp = np.broadcast_to(np.arange(0, 192, dtype=np.uint8)[None, :, None], (64, 192, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = 64, 192, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(ramp))))
        container.mux(stream.encode())
    info = probe(path).to_bytes()
    for kernel in KERNELS:
        request = ClipRequest(str(path), info, np.array([0, 3, 3]), (32, 32), kernel=kernel)
        left, right = (read_clip(request._replace(crop=(0.5, at))) for at in (0, 1))
        assert left.shape == (3, 32, 32, 3)
        assert (left[..., 16, 0].mean(), right[..., 16, 0].mean()) == (
            pytest.approx(33, abs=4),
            pytest.approx(160, abs=4),
        )
        assert np.array_equal(read_clip(request._replace(flip=True))[:, :, ::-1], read_clip(request))
    assert np.array_equal(read_clip(request), read_clip(request._replace(info=b"")))
    with pytest.raises(VideoError, match="no frame 4"):
        read_clip(request._replace(indices=np.array([4])))


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
