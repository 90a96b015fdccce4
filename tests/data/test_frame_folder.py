"""Folders of pictures: the order of their numbers, exact pixels, and a refusal where one is missing or broken."""

import numpy as np
import pytest
from PIL import Image

from flexivid.data.decoding.facts import Facts
from flexivid.data.decoding.frame_folder import FolderDecoder, probe_folder
from flexivid.data.storage.errors import VideoError


def make(folder, numbers, *, size=(12, 16), name="{}.png"):
    folder.mkdir(exist_ok=True)
    for number in numbers:
        Image.fromarray(np.full((*size, 3), 10 * number, np.uint8)).save(folder / name.format(number))
    return folder


@pytest.mark.parametrize("name", ["{}.png", "frame_{:05d}.png", "v1_{}.png"])
def test_order_and_pixels(tmp_path, name):
    info = probe_folder(make(tmp_path / "v", range(8, 13), name=name))
    assert (info.num_frames, info.size, info.fps, info.is_variable_rate) == (5, (12, 16), 0, False)
    again = Facts.from_bytes(info.to_bytes())
    pictures = dict(FolderDecoder(tmp_path / "v", again, (None, "bicubic")).pictures([0, 4]))
    assert [(number, picture.shape, int(picture.mean())) for number, picture in pictures.items()] == [
        (0, (12, 16, 3), 80),
        (4, (12, 16, 3), 120),
    ]


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear", "area", "lanczos"])
def test_resizes(tmp_path, kernel):
    folder = make(tmp_path / "v", range(2))
    ((_, picture),) = FolderDecoder(folder, probe_folder(folder), ((6, 8), kernel)).pictures([1])
    assert picture.shape == (6, 8, 3)
    assert int(picture.max()) == int(picture.min()) == 10


def test_equal_steps_are_no_gap_but_a_gap_is(tmp_path):
    assert probe_folder(make(tmp_path / "every_fifth", (0, 5, 10))).num_frames == 3
    with pytest.raises(VideoError, match=r"between 1\.png and 3\.png, pictures are missing"):
        probe_folder(make(tmp_path / "gap", (0, 1, 3)))


def test_refusals(tmp_path):
    with pytest.raises(VideoError, match="without numbered pictures"):
        probe_folder(make(tmp_path / "empty", ()))
    make(tmp_path / "sizes", (0,))
    with pytest.raises(VideoError, match=r"1\.png has 6x8 pixels, 0\.png 12x16"):
        probe_folder(make(tmp_path / "sizes", (1,), size=(6, 8)))
    folder = make(tmp_path / "cut", (0, 1), size=(64, 64))
    info = probe_folder(folder)
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:80])
    with pytest.raises(VideoError, match=r"1\.png cannot be read"):
        list(FolderDecoder(folder, info, (None, "area")).pictures([1]))
    make(tmp_path / "twice", (0, 1))
    with pytest.raises(VideoError, match="have the same number"):
        probe_folder(make(tmp_path / "twice", (1,), name="0{}.png"))


def test_sixteen_bits_and_transparency(tmp_path):
    folder = make(tmp_path / "v", ())
    Image.fromarray(np.full((4, 4), 0x80FF, np.uint16)).save(folder / "0.png")
    Image.new("RGBA", (4, 4), (1, 2, 3, 255)).save(folder / "1.png")
    pictures = [picture for _, picture in FolderDecoder(folder, probe_folder(folder), (None, "area")).pictures([0, 1])]
    assert [picture[0, 0].tolist() for picture in pictures] == [[128, 128, 128], [1, 2, 3]]
