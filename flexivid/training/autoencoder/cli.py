"""The command line that trains an autoencoder, used when ``model`` of a configuration has an ``autoencoder``."""

from __future__ import annotations

from math import prod

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from flexivid.data.module import VideoDataModule
from flexivid.latents.causal_autoencoder import AutoencoderConfig, CausalAutoencoder
from flexivid.training.autoencoder.module import AutoencoderTraining, latent_size
from flexivid.training.cli import FlexiCLI


class AutoencoderCLI(FlexiCLI):
    """Like ``FlexiCLI``, for ``AutoencoderTraining``."""

    module_class = AutoencoderTraining

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Fill ``model.clip_size`` from the data."""
        parser.link_arguments("data.clip_size", "model.clip_size", apply_on="instantiate")

    def needs(self, config: Namespace) -> list[str]:
        """The lines of a dry run: parameters, and what becomes of a clip."""
        shape = AutoencoderConfig(**config.model.autoencoder.as_dict())
        clip = VideoDataModule(**config.data.as_dict()).clip_size
        count = sum(parameter.numel() for parameter in CausalAutoencoder(shape).parameters())
        pair = ((3, *clip), (shape.channels, *latent_size(shape, clip)))
        sizes = ["x".join(map(str, size)) for size in pair]
        ratio = prod(pair[0]) / prod(pair[1])
        return [
            f"autoencoder of {count / 1e6:.2f} M parameters",
            f"a clip of {sizes[0]} becomes a latent of {sizes[1]}, {ratio:.1f} times fewer numbers",
        ]
