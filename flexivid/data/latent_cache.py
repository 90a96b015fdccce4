"""The older place of ``write_latents``, which data/README.md named."""

from flexivid.data.clips.latent_cache import write_latents

__all__ = ["write_latents"]
