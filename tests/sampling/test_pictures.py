"""Given frames from files: cover and centre cut, the end of a video, errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from flexivid.data.decoding.reader import VideoReader, open_video
from flexivid.media.pixels import to_bytes
from flexivid.media.write import write_video
from flexivid.patching.shapes import Size3
from flexivid.sampling.encoders import codec_of
from flexivid.sampling.pictures import prefix_length, read_pictures
from flexivid.sampling.settings import Sampling

FILES = {"image": None, "last_image": None, "video": None}


def read(model, **files):
    return read_pictures(model, Sampling().filled(model), **{**FILES, **{k: str(v) for k, v in files.items()}})


def test_a_picture_of_the_size_is_taken_as_it_is(frame_model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    pictures, notes = read(frame_model, image=tmp_path / "a.png", last_image=tmp_path / "a.png")
    assert np.array_equal(to_bytes(pictures.first)[:, 0].permute(1, 2, 0), pixels)
    assert torch.equal(pictures.first, pictures.last)
    assert notes == []


def test_a_picture_of_another_size_covers_and_is_cut_around_its_centre(frame_model, tmp_path):
    pixels = np.zeros((16, 48, 3), np.uint8)
    pixels[:, 16:32] = 255
    Image.fromarray(pixels).convert("L").save(tmp_path / "a.png")
    pictures, notes = read(frame_model, image=tmp_path / "a.png")
    assert (pictures.first[:, :, 1:-1, 1:-1] > 0.95).all()
    assert notes == [f"{tmp_path / 'a.png'}: 16x48 resized to cover 8x8 and cut to it around its centre"]


def test_a_video_is_continued_by_its_last_frames_at_the_rate_of_the_model(frame_model, tmp_path):
    levels = np.linspace(0, 255, 12).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (12, 16, 16, 3)).copy()
    write_video(tmp_path / "a.mp4", frames, 16)  # twice the model's 8
    pictures, _ = read(frame_model, video=tmp_path / "a.mp4")
    assert pictures.first.shape == (3, 2, 8, 8)  # half of 4 frames
    with open_video(tmp_path / "a.mp4", size=(8, 8)) as reader:
        last = reader.frames([9, 11])
    assert np.array_equal(to_bytes(pictures.first).permute(1, 2, 3, 0), last)
    frame_model.recipe = replace(frame_model.recipe, fps=0.5)
    assert read(frame_model, video=tmp_path / "a.mp4")[0].first.shape[1] == 1  # it is too short for two


def test_a_beginning_has_as_many_frames_as_the_codec_codes(latent_model):
    codec = codec_of(latent_model)
    assert [prefix_length(codec, frames) for frames in range(1, 7)] == [1, 1, 3, 3, 5, 5]


def test_what_cannot_be_read_is_refused(frame_model, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="which cannot be read"):
        read(frame_model, image=tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        read(frame_model, last_image=tmp_path / "b.png")
    with pytest.raises(ValueError, match="got --image and --continue-from"):
        read(frame_model, image=tmp_path / "a.png", video=tmp_path / "a.mp4")
    assert read(frame_model) == (None, [])


def test_sixteen_bits_of_grey_keep_their_brightness(frame_model, tmp_path):
    levels = np.linspace(0, 255, 64).round().astype(np.uint16).reshape(8, 8)
    Image.fromarray(levels * 257).save(tmp_path / "a.png")
    pictures, _ = read(frame_model, image=tmp_path / "a.png")
    assert np.array_equal(to_bytes(pictures.first)[:, 0], np.broadcast_to(levels, (3, 8, 8)))


@pytest.mark.parametrize("rate", [8, 10, 24, 30])
def test_a_video_of_the_rate_of_the_model_is_continued_by_all_its_last_frames(frame_model, tmp_path, rate):
    """Times in seconds are rounded, and a difference of two may fall just before the frame that is meant."""
    write_video(tmp_path / "a.mp4", np.zeros((64, 16, 16, 3), np.uint8), rate)
    frame_model.recipe = replace(frame_model.recipe, fps=rate, size=Size3(32, 8, 8))
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoReader, "frames", lambda _, numbers: shown.extend(numbers) or np.zeros((16, 8, 8, 3), "u1"))
        read(frame_model, video=tmp_path / "a.mp4")
    assert shown == list(range(48, 64))


def test_a_video_too_short_for_a_group_of_frames_is_continued_from_its_end(latent_model, tmp_path):
    levels = np.array([40, 200], np.uint8)  # the codec takes 1 or 3 frames
    write_video(tmp_path / "a.mp4", np.broadcast_to(levels[:, None, None, None], (2, 32, 32, 3)).copy(), 8)
    pictures, _ = read(latent_model, video=tmp_path / "a.mp4")
    assert pictures.first.shape == (3, 1, 32, 32)
    assert to_bytes(pictures.first).float().mean() > 180


def test_a_folder_of_pictures_is_continued_by_its_last_ones(frame_model, tmp_path):
    for number, level in enumerate((0, 100, 200)):
        Image.new("L", (8, 8), level).save(tmp_path / f"{number}.png")
    pictures, _ = read(frame_model, video=tmp_path)
    assert to_bytes(pictures.first)[0, :, 0, 0].tolist() == [100, 200]
