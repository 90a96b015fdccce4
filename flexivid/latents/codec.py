"""The contract of a codec, and the pixel codec. A codec is a plain object, never a submodule of what is trained.

Video is (b, c, t, h, w) in [-1, 1]; latents are what the network sees. An autoencoder fits the same contract.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Codec(Protocol):
    """Turns video into latents and back."""

    channels: int

    def encode(self, video: Tensor) -> Tensor:
        """(b, 3, t, h, w) in [-1, 1] -> latent."""

    def decode(self, latent: Tensor) -> Tensor:
        """Latent -> (b, 3, t, h, w), about [-1, 1]."""

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Size (t, h, w) of the latent of a video of that size in pixels."""


class PixelCodec:
    """The latent is the video itself.

    Example:
        >>> PixelCodec().latent_size(8, 32, 32)
        (8, 32, 32)
    """

    channels = 3

    def encode(self, video: Tensor) -> Tensor:
        """The video."""
        return video

    def decode(self, latent: Tensor) -> Tensor:
        """The latent."""
        return latent

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """The size in pixels."""
        return frames, height, width


CODECS = {"pixel": PixelCodec}


def build_codec(name: str) -> Codec:
    """Make a codec by the name a checkpoint keeps.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in CODECS:
        raise ValueError(f"got codec {name!r}; expected one of {', '.join(CODECS)}; check the checkpoint's config.json")
    return CODECS[name]()
