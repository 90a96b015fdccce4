"""A written video is what PyAV reads back: frames, size, rate, and levels to within the codec's loss."""

import av
import numpy as np
import pytest
import torch
from PIL import Image

from flexivid.media import write as video_io
from flexivid.media.write import enlarge, film_strip, tile, to_frames, write_grid, write_video

LEVELS = 8  # of 256: the largest difference that 4:2:0 and CRF 10 may make in slow colour waves


def smooth(frames=6, height=32, width=48):
    """Slow colour waves that move: what 4:2:0 can carry."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    waves = [np.sin((x + t) / 25), np.cos((y - t) / 30), np.sin((x + y) / 35)]
    return np.stack([127 + 60 * wave for wave in waves], axis=-1).round().astype(np.uint8)


def read(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        kept = {"codec": stream.codec_context.name, "fps": float(stream.average_rate)}  # while the file is open
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]), kept


def difference(read_back, frames):
    return np.abs(read_back.astype(int) - frames).max()


@pytest.mark.parametrize("fps", [8, 16.0, 12.5, 30000 / 1001])
def test_read_back(tmp_path, fps):
    frames = smooth()
    seen, kept = read(write_video(tmp_path / "a.mp4", frames, fps))
    assert kept["codec"] == "h264"
    assert seen.shape == frames.shape
    assert difference(seen, frames) <= LEVELS
    assert kept["fps"] == pytest.approx(fps, rel=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("size", [(15, 17), (16, 17), (33, 16), (1, 1)])
def test_odd_sides_get_one_more_row_or_column(tmp_path, size):
    frames = smooth(3, *size)
    seen, _ = read(write_video(tmp_path / "a.mp4", frames, 8))
    height, width = size
    assert seen.shape == (3, height + height % 2, width + width % 2, 3)
    assert difference(seen[:, :height, :width], frames) <= LEVELS
    assert difference(seen[:, -1, :width], frames[:, -1]) <= LEVELS  # the edge is repeated


@pytest.mark.parametrize("count", [1, 2, 50])
def test_every_frame_is_written(tmp_path, count):
    seen, _ = read(write_video(tmp_path / "a.mp4", smooth(count), 8))
    assert difference(seen, smooth(count)) <= LEVELS


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_when_encoding_fails(tmp_path, monkeypatch, error):
    whole = write_video(tmp_path / "a.mp4", smooth(), 8).read_bytes()
    real, calls = np.ascontiguousarray, []

    def fail_at_the_third(frame):
        calls.append(frame)
        if len(calls) == 3:
            raise error
        return real(frame)

    monkeypatch.setattr(video_io.np, "ascontiguousarray", fail_at_the_third)
    for name in ("a.mp4", "b.mp4"):
        calls.clear()
        with pytest.raises(error):
            write_video(tmp_path / name, smooth(), 8)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == whole


def test_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        write_video(tmp_path / "nowhere" / "a.mp4", smooth(), 8)


def test_to_frames():
    video = torch.linspace(-1.2, 1.2, 3)[:, None, None, None].expand(3, 2, 4, 5)
    frames = to_frames(video)
    assert (frames.shape, frames.dtype) == ((2, 4, 5, 3), np.uint8)
    assert frames[0, 0, 0].tolist() == [0, 128, 255]


def test_enlarged_pixels_are_repeated():
    frames = smooth(2, 16, 24)
    big = enlarge(frames, 40)
    assert big.shape == (2, 48, 72, 3)
    assert np.array_equal(big[:, 1::3, 2::3], frames)
    assert enlarge(frames, 8) is not None
    assert enlarge(frames, 8).shape == frames.shape


def test_tiles_lie_where_they_belong():
    one, two, three = (np.full((2, 4, 6, 3), level, np.uint8) for level in (10, 20, 30))
    grid = tile([[one, two], [three]])
    assert grid.shape == (2, 4 + 2 + 4, 6 + 2 + 6, 3)
    assert (grid[:, :4, :6] == 10).all()
    assert (grid[:, :4, 8:] == 20).all()
    assert (grid[:, 6:, :6] == 30).all()
    assert (grid[:, 6:, 8:] == 40).all()  # nothing there


def test_film_strip_shows_first_and_last():
    frames = np.arange(9, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    strip = film_strip(frames, 3)
    assert strip.shape == (1, 4, 3 * 4 + 2 * 2, 3)
    assert strip[0, 0, ::6, 0].tolist() == [0, 4, 8]
    assert film_strip(frames[:2], 8).shape == (1, 4, 2 * 4 + 2, 3)


def test_grid_is_a_video_and_a_picture(tmp_path):
    rows = [("budget 1", [smooth()] * 3), ("budget 0.25", [smooth()] * 2)]
    paths = write_grid(tmp_path / "grid", rows, 8)
    assert paths == (tmp_path / "grid.mp4", tmp_path / "grid.png")
    seen, kept = read(paths[0])
    assert len(seen) == 6
    assert seen.shape[1] > 2 * 128
    assert kept["fps"] == pytest.approx(8)
    with Image.open(paths[1]) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 2 * 48
        assert np.asarray(picture).std() > 10
    assert {file.name for file in tmp_path.iterdir()} == {"grid.mp4", "grid.png"}
