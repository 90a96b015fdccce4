"""Given frames from files: cover and centre cut, the end of a video, errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from flexivid.data.decoding.reader import open_video
from flexivid.media.pixels import to_bytes
from flexivid.media.write import write_video
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
