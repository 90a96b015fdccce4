"""What differs between classes of autoencoders: factors, frames, scale and shift, arguments. One entry a class.

Latents are (raw - shift) * scale, as the pipelines of diffusers make and undo them.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Scale(NamedTuple):
    """Normalisation of raw latents: one number, or one for each channel, (c,)."""

    shift: float | Tensor
    scale: float | Tensor


class Kind(NamedTuple):
    """How a class of autoencoders is used."""

    channels: Callable[[Any], int]  # of its latents
    spatial: Callable[[Any], int]  # rows of pixels of a row of the latent
    temporal: Callable[[Any], int] | None  # frames of a latent frame after the first; None = every frame by itself
    scale: Callable[[Any], Scale]
    group: Callable[[Any], int] | None = None  # frames after the first are a multiple of so many; None = ``temporal``
    chunk: Callable[[int], int] | None = None  # most frames that it sees at once in a clip of so many; None = all
    decode: Callable[[Any, Tensor], Tensor] = lambda network, latent: _tensor(network.decode(latent))


def encode(network: nn.Module, pixels: Tensor) -> Tensor:
    """Raw latents, or what describes their distribution: means, then logarithms of variances, along the channels."""
    coded = network.encode(pixels)  # type: ignore[operator]
    distribution = getattr(coded, "latent_dist", None)
    return _tensor(coded) if distribution is None else distribution.parameters


def _tensor(output: Any) -> Tensor:
    """The tensor in what diffusers returns."""
    return output if isinstance(output, Tensor) else output[0]


def _config_scale(network: Any) -> Scale:
    """Mean and deviation of each channel where the configuration has them (SDXL, Wan), else one factor for all."""
    config, factor = network.config, getattr(network.config, "scaling_factor", 1)
    mean, std = (getattr(config, name, None) for name in ("latents_mean", "latents_std"))
    if mean is None or std is None:
        return Scale(getattr(config, "shift_factor", None) or 0.0, factor)
    return Scale(torch.tensor(mean), factor / torch.tensor(std))


def _ltx_scale(network: Any) -> Scale:
    factor = network.config.scaling_factor
    return Scale(network.latents_mean.float().cpu(), factor / network.latents_std.float().cpu())


def _ltx_decode(network: Any, latent: Tensor) -> Tensor:
    """Decode at time 0: LTX decoders that also denoise take it as free of noise, the default of the pipelines."""
    time = latent.new_zeros(len(latent)) if network.config.timestep_conditioning else None
    return _tensor(network.decode(latent, time))


def _causal_scale(network: Any) -> Scale:
    mean, std = network.config.mean, network.config.std
    return Scale(torch.tensor(mean) if mean else 0.0, 1 / torch.tensor(std) if std else 1.0)


def _levels(name: str) -> Callable[[Any], int]:
    """The spatial factor of a network that halves the picture between its levels."""
    return lambda network: 2 ** (len(network.config[name]) - 1)


_latent_channels = attrgetter("config.latent_channels")
_spatial_ratio = attrgetter("spatial_compression_ratio")
_temporal_ratio = attrgetter("temporal_compression_ratio")
LTX = Kind(_latent_channels, _spatial_ratio, _temporal_ratio, _ltx_scale, decode=_ltx_decode)
HUNYUAN = Kind(_latent_channels, _spatial_ratio, _temporal_ratio, _config_scale)

KINDS = {
    "AutoencoderKL": Kind(_latent_channels, _levels("block_out_channels"), None, _config_scale),
    "AutoencoderTiny": Kind(_latent_channels, _levels("encoder_block_out_channels"), None, _config_scale),
    "AutoencoderDC": Kind(_latent_channels, _spatial_ratio, None, _config_scale),
    "AutoencoderKLWan": Kind(
        channels=lambda network: network.config.z_dim,
        spatial=lambda network: 2 ** (len(network.config.dim_mult) - 1) * (network.config.patch_size or 1),
        temporal=lambda network: 2 ** sum(network.config.temperal_downsample),
        scale=_config_scale,
        chunk=lambda frames: min(frames, 4),  # it remembers what its convolutions need of the frames before
    ),
    "AutoencoderKLLTXVideo": LTX,
    "AutoencoderKLLTX2Video": LTX,
    "AutoencoderKLCogVideoX": Kind(
        # ``invert_scale_latents`` concerns the given picture of CogVideoX 1.5's image-to-video pipeline alone
        channels=_latent_channels,
        spatial=_levels("block_out_channels"),
        temporal=lambda network: network.config.temporal_compression_ratio,
        scale=_config_scale,
        group=lambda network: 2 * network.config.temporal_compression_ratio,  # it decodes latent frames in pairs
        chunk=lambda frames: min(frames, 8 + frames % 8),
    ),
    "AutoencoderKLHunyuanVideo": HUNYUAN._replace(chunk=lambda frames: min(frames, 17)),  # blended tiles of frames
    "AutoencoderKLHunyuanVideo15": HUNYUAN,
    "TAEF2": Kind(lambda network: 32, lambda network: 8, None, lambda network: Scale(0.0, 1.0)),
    "CausalAutoencoder": Kind(
        channels=attrgetter("config.channels"),
        spatial=attrgetter("config.spatial"),
        temporal=attrgetter("config.temporal"),
        scale=_causal_scale,
        chunk=lambda frames: min(frames, 17),
    ),
}
