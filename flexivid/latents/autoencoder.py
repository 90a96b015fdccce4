"""A codec over any autoencoder: clip by clip, in pieces and tiles, with the normalisation of its class.

A plain object, never a submodule of what is trained. Each clip of a batch is coded by itself and outside of autocast:
its latent depends on nothing else, so that latents coded beforehand equal those coded while training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor, nn

from flexivid.latents.kinds import KINDS, Kind, Scale, encode
from flexivid.latents.settings import CodecSettings
from flexivid.latents.tiles import in_tiles
from flexivid.runtime.device import DTYPES

Function = Callable[[Tensor], Tensor]


class AutoencoderCodec:
    """A ``Codec`` by an autoencoder of ``KINDS``, which is frozen and put into evaluation mode.

    Clips of a length that a video autoencoder does not take are continued by their last frame, see ``fit_frames``;
    ``decode`` cuts what was added, if it is told the number of frames. Sides must be multiples of ``spatial``; sizes
    and shapes that do not fit are a ``ValueError``.

    Example:
        >>> from flexivid.latents.taef2 import TAEF2
        >>> codec = AutoencoderCodec(TAEF2(), CodecSettings("my_taef2"), fingerprint="0" * 12)
        >>> codec.latent_size(8, 64, 96), codec.channels, codec.piece_size(40, 64, 96)
        ((8, 8, 12), 32, (16, 64, 96))
    """

    def __init__(self, network: nn.Module, settings: CodecSettings, fingerprint: str) -> None:
        self.settings, self.fingerprint, self.name = settings, fingerprint, type(network).__name__
        self._kind: Kind = KINDS[self.name]
        self.channels = self._kind.channels(network)
        self.spatial = self._kind.spatial(network)
        self.temporal = 1 if self._kind.temporal is None else self._kind.temporal(network)
        self.causal = self._kind.temporal is not None
        self._group = self._kind.group(network) if self._kind.group else self.temporal
        is_empty = next(network.parameters()).is_meta
        self.scale = Scale(0.0, 1.0) if is_empty else self._kind.scale(network)  # before the weights are rounded
        self._network = network.eval().requires_grad_(False)
        nn.Module.to(network, DTYPES[settings.dtype])  # diffusers' own warns of layers that it keeps in float32
        tile = settings.tile
        if tile is not None and (tile % self.spatial or tile < 2 * self.spatial):
            raise ValueError(
                f"got codec tile={tile} for {self.name}; expected a multiple of {self.spatial}, at least"
                f" {2 * self.spatial}; change tile"
            )

    @property
    def device(self) -> torch.device:
        return next(self._network.parameters()).device

    def to(self, device: torch.device | str) -> AutoencoderCodec:
        self._network.to(device)
        return self

    def fit_frames(self, frames: int) -> int:
        if not self.causal:
            return frames
        return 1 + math.ceil((frames - 1) / self._group) * self._group

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        if frames < 1 or height < 1 or width < 1 or height % self.spatial or width % self.spatial:
            near = [max(1, round(side / self.spatial)) * self.spatial for side in (height, width)]
            raise ValueError(
                f"got {frames} frames of {height}x{width} for {self.name}; expected multiples of {self.spatial} pixels,"
                f" the nearest being {near[0]}x{near[1]}, and at least 1 frame; change the size"
            )
        first = (self.fit_frames(frames) - 1) // self.temporal + 1
        return first, height // self.spatial, width // self.spatial

    def video_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        count, step = (frames - 1) * self.temporal + 1, self._group // self.temporal
        if frames < 1 or count != self.fit_frames(count):
            raise ValueError(
                f"got a latent of {frames} frames for {self.name}; expected a multiple of {step}, and one more; make"
                " latents with encode, or of the size that latent_size gives"
            )
        return count, height * self.spatial, width * self.spatial

    def piece_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        tile = self.settings.tile or max(height, width)
        count = self.fit_frames(frames) if self.causal else min(frames, self.settings.frames)
        count = self._kind.chunk(count) if self._kind.chunk else count
        return count, min(height, tile), min(width, tile)

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        if video.ndim != 5 or video.shape[1] != 3:
            raise ValueError(
                f"got a video of shape {tuple(video.shape)}; expected (b, 3, t, h, w); repeat grey ones to 3 channels"
            )
        self.latent_size(*video.shape[2:])
        with torch.autocast(video.device.type, enabled=False):
            return torch.cat([self._encode_clip(clip) for clip in video.split(1)])

    @torch.no_grad()
    def decode(self, latent: Tensor, frames: int | None = None) -> Tensor:
        if latent.ndim != 5 or latent.shape[1] != self.channels:
            raise ValueError(
                f"got a latent of shape {tuple(latent.shape)} for {self.name}; expected (b, {self.channels}, t, h, w);"
                " decode latents with the codec that made them"
            )
        self.video_size(*latent.shape[2:])
        with torch.autocast(latent.device.type, enabled=False):
            return torch.cat([self._decode_clip(clip)[:, :, :frames] for clip in latent.split(1)])

    def _encode_clip(self, clip: Tensor) -> Tensor:
        """(1, 3, t, h, w) to its latent."""
        added = self.fit_frames(clip.shape[2]) - clip.shape[2]
        clip = torch.cat([clip, clip[:, :, -1:].expand(-1, -1, added, -1, -1)], dim=2) if added else clip
        moments = self._in_pieces(clip, self._moments, self.settings.tile, Fraction(1, self.spatial))
        raw = moments[:, : self.channels]
        if self.settings.sample and moments.shape[1] == 2 * self.channels:
            raw = raw + torch.randn_like(raw) * (moments[:, self.channels :].clamp(-30, 20) / 2).exp()
        shift, scale = self._along_channels(raw)
        return (raw - shift) * scale

    def _decode_clip(self, latent: Tensor) -> Tensor:
        """(1, c, t, h, w) to its video."""
        shift, scale = self._along_channels(latent)
        tile = self.settings.tile and self.settings.tile // self.spatial
        return self._in_pieces(latent.float() / scale + shift, self._pixels, tile, Fraction(self.spatial))

    def _in_pieces(self, x: Tensor, function: Function, tile: int | None, scale: Fraction) -> Tensor:
        """Tiles in space; for image autoencoders pieces of frames, too."""
        unit = self.spatial if scale < 1 else 1
        pieces = [x] if self.causal else x.split(self.settings.frames, dim=2)
        tile = tile or max(x.shape[-2:])
        return torch.cat([in_tiles(function, piece, tile, unit=unit, scale=scale) for piece in pieces], dim=2)

    def _moments(self, pixels: Tensor) -> Tensor:
        return self._call(lambda x: encode(self._network, x), pixels)

    def _pixels(self, latent: Tensor) -> Tensor:
        cuda = [latent.device] if latent.device.type == "cuda" else []
        with torch.random.fork_rng(cuda):  # some decoders of LTX add noise to their features
            torch.manual_seed(0)
            return self._call(lambda x: self._kind.decode(self._network, x), latent)

    def _call(self, function: Function, x: Tensor) -> Tensor:
        """Show a piece (1, c, t, h, w) to the network: as it is, or its frames as images."""
        x = x.to(DTYPES[self.settings.dtype])
        if self.causal:
            return function(x).float()
        images = function(x[0].transpose(0, 1))  # t c h w
        return images.transpose(0, 1)[None].float()

    def _along_channels(self, x: Tensor) -> Scale:
        """Shift and scale in a shape that fits (b, c, t, h, w)."""
        values = [value.to(x.device).view(-1, 1, 1, 1) if isinstance(value, Tensor) else value for value in self.scale]
        return Scale(*values)
