"""The contract of a codec, and the pixel codec. A codec is a plain object, never a submodule of what is trained.

Video is (b, c, t, h, w) in [-1, 1]; latents are what the network sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from flexivid.latents.autoencoder import AutoencoderCodec
from flexivid.latents.kinds import KINDS
from flexivid.latents.loading import fingerprint_of, load_autoencoder
from flexivid.latents.settings import CodecSettings, codec_settings


class Codec(Protocol):
    """Turns video into latents and back."""

    channels: int  # of the latents
    spatial: int  # rows of pixels of a row of the latent
    temporal: int  # frames of a latent frame, but of the first where ``causal``
    causal: bool  # whether the first latent frame stands for the first frame alone; a picture is a video of one frame
    fingerprint: str  # tells codecs apart whose latents mean different things

    def to(self, device: torch.device | str) -> Codec:
        """Move it to a device; returns itself."""

    def encode(self, video: Tensor) -> Tensor:
        """(b, 3, t, h, w) in [-1, 1] -> latent, float32, normalised."""

    def decode(self, latent: Tensor, frames: int | None = None) -> Tensor:
        """Latent -> (b, 3, t, h, w), float32, about [-1, 1]; at most so many frames."""

    def fit_frames(self, frames: int) -> int:
        """The number of frames that is coded instead of so many: clips are continued by their last frame."""

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Size (t, h, w) of the latent of a video of that size in pixels."""

    def video_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Size (t, h, w) in pixels of the video that a latent of that size decodes to."""

    def piece_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Size (t, h, w) in pixels of the largest piece of a video that is in work at once: bounds the memory."""


class PixelCodec:
    """The latent is the video itself."""

    channels, spatial, temporal, causal, fingerprint = 3, 1, 1, False, "pixel"

    def to(self, device: torch.device | str) -> PixelCodec:
        return self

    def encode(self, video: Tensor) -> Tensor:
        return video

    def decode(self, latent: Tensor, frames: int | None = None) -> Tensor:
        return latent[:, :, :frames]

    def fit_frames(self, frames: int) -> int:
        return frames

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return frames, height, width

    video_size = piece_size = latent_size


def build_codec(codec: str | Mapping[str, Any] | CodecSettings, *, weights: bool = True) -> Codec:
    """Build the codec that a recipe or a checkpoint names, on the CPU; ``ValueError`` if it cannot be loaded.

    Args:
        codec: ``pixel``, a folder or a hub id, or settings with one of these as ``source``.
        weights: False makes a codec that knows channels and sizes but codes nothing: it reads the configuration alone.

    Example:
        >>> build_codec("pixel").channels
        3
    """
    settings = codec_settings(codec)
    if settings.source == "pixel":
        return PixelCodec()
    network = load_autoencoder(settings.source, weights=weights)
    if not weights:
        return AutoencoderCodec(network, settings, fingerprint="")
    fingerprint = fingerprint_of(network, KINDS[type(network).__name__].scale(network))
    return AutoencoderCodec(network, settings, fingerprint)
