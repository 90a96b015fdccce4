"""Frames that a video is given: its first ones, its last one, or both; from files or at hand.

They are coded as the frames of training were, and stand in the latent where they stand in the video. Autoencoders of
video code the first frame alone and then groups, so a beginning has one frame and whole groups, and a last frame stands
still for the length of a group.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from flexivid.data.decoding.frame_folder import upright
from flexivid.data.decoding.reader import open_video
from flexivid.latents.codec import Codec
from flexivid.media.pixels import to_unit
from flexivid.model.conditioning import Frames
from flexivid.model.flexidit import FlexiDiT
from flexivid.sampling.encoders import codec_of
from flexivid.sampling.settings import Settings, video_size

SLACK_SECONDS = 1e-3  # some containers (Matroska, FLV) round times to milliseconds
PREFIX_SHARE = 0.5  # of a video, at most, that continues another one


class Pictures(NamedTuple):
    """Frames of a video in pixels, (3, k, h, w) in [-1, 1]."""

    first: Tensor | None = None  # the frames that it begins with; ``None`` = none
    last: Tensor | None = None  # the frame that it ends with, k = 1; ``None`` = none


def given_frames(model: FlexiDiT, settings: Settings, pictures: Pictures | Tensor) -> Frames:
    """Given frames as the network takes them: latent and mask (1, c or 1, t, h, w).

    Pictures have the size of the videos; a tensor are the first frames. ``ValueError`` if the model has no given
    frames, or they do not fit.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> from flexivid.sampling.settings import Sampling
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, given_frames=True))
        >>> settings = Sampling(size=(4, 8, 8)).filled(model)
        >>> given_frames(model, settings, torch.ones(3, 1, 8, 8)).mask.mean((0, 1, 3, 4)).tolist()
        [1.0, 0.0, 0.0, 0.0]
    """
    if not model.config.given_frames:
        raise ValueError(
            "got given frames for a model without; expected none; leave them out, or train with given_frames"
        )
    first, last = (pictures, None) if isinstance(pictures, Tensor) else pictures
    codec, device = codec_of(model), next(model.parameters()).device
    latent = torch.zeros(1, model.config.in_channels, *settings.size, device=device)
    mask = torch.zeros_like(latent[:, :1])
    size = video_size(model, settings)
    if first is not None:
        _check(first, size, most=size.t - (last is not None))
        beginning = codec.encode(first[None, :, : prefix_length(codec, first.shape[1])].to(device))
        latent[:, :, : beginning.shape[2]], mask[:, :, : beginning.shape[2]] = beginning, 1
    if last is not None:
        _check(last, size, most=1)
        still = codec.encode(last[None].expand(-1, -1, codec.fit_frames(2), -1, -1).to(device))
        latent[:, :, -1:], mask[:, :, -1:] = still[:, :, -1:], 1
    return Frames(latent.cpu(), mask.cpu())


def prefix_length(codec: Codec, frames: int) -> int:
    """The most frames up to so many that a codec codes without adding any, at least one.

    Example:
        >>> from flexivid.latents.codec import PixelCodec
        >>> prefix_length(PixelCodec(), 7)
        7
    """
    return max(count for count in range(1, frames + 1) if count == 1 or codec.fit_frames(count) == count)


def read_pictures(
    model: FlexiDiT, settings: Settings, *, image: str | None, last_image: str | None, video: str | None
) -> tuple[Pictures | None, list[str]]:
    """Given frames from files, resized until they cover the size of the videos and cut to it around their centre.

    The first frame, the last one, or a video that is continued: its last frames, as many as a beginning may have.
    Returns the frames, ``None`` without files, and a line for each file that was resized. ``ValueError`` if both a
    first frame and a video are named, or a file cannot be read.
    """
    if image and video:
        raise ValueError("got --image and --continue-from; expected one beginning; leave one out")
    if not (image or last_image or video):
        return None, []
    notes: list[str] = []
    size = video_size(model, settings)
    first, last = (_read_image(Path(path), size[1:], notes) if path else None for path in (image, last_image))
    if video:
        first = _last_frames(video, max(1, int(size.t * PREFIX_SHARE)), model.recipe.fps, size[1:], notes)
        first = first[:, -prefix_length(codec_of(model), first.shape[1]) :]
    return Pictures(first, last), notes


def _check(frames: Tensor, size: tuple[int, int, int], *, most: int) -> None:
    if frames.ndim != 4 or len(frames) != 3 or tuple(frames.shape[2:]) != size[1:] or not 1 <= frames.shape[1] <= most:
        raise ValueError(
            f"got given frames {tuple(frames.shape)}; expected (3, k, {size[1]}, {size[2]}) with k from 1 to {most};"
            " resize or cut them"
        )


def _read_image(path: Path, size: tuple[int, int], notes: list[str]) -> Tensor:
    """A picture, (3, 1, h, w) in [-1, 1]."""
    try:
        with Image.open(path) as picture:
            image = upright(picture)
    except FileNotFoundError:
        raise FileNotFoundError(f"got image {path}, which does not exist; expected a file; correct the path") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # SyntaxError: of broken PNG
        raise ValueError(f"got image {path}, which cannot be read ({error}); expected a picture; convert it") from error
    _note(notes, path, (image.height, image.width), size)
    fitted = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BICUBIC)
    return _unit(np.asarray(fitted)[None])


def _last_frames(path: str, count: int, fps: float, size: tuple[int, int], notes: list[str]) -> Tensor:
    """The last frames of a video, so many a second as the model shows: (3, k, h, w) in [-1, 1].

    At most ``count``, and fewer of a short video. Where nothing says when they are shown, as of a folder of pictures,
    those that follow each other.
    """
    with open_video(path, size=size) as reader:
        _note(notes, path, reader.info.size, size)
        if np.any(np.diff(reader.timestamps) <= 0):
            return _unit(reader.frames(np.arange(reader.num_frames)[-count:]))
        times = reader.timestamps[-1] - np.arange(count)[::-1] / fps + SLACK_SECONDS
        shown = np.searchsorted(reader.timestamps, times[times >= reader.timestamps[0]], side="right") - 1
        return _unit(reader.frames(shown))  # a short video gives fewer


def _note(notes: list[str], path: str | Path, old: tuple[int, int], new: tuple[int, int]) -> None:
    if tuple(old) != tuple(new):
        notes.append(f"{path}: {old[0]}x{old[1]} resized to cover {new[0]}x{new[1]} and cut to it around its centre")


def _unit(frames: np.ndarray) -> Tensor:
    return to_unit(torch.from_numpy(np.array(frames)).permute(3, 0, 1, 2))
