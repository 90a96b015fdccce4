"""Every class of autoencoder in a tiny random form, and what the pipelines of diffusers do to its latents."""

from __future__ import annotations

from typing import Any, NamedTuple

import diffusers
import torch
from torch import nn

from flexivid.latents.causal_autoencoder import AutoencoderConfig, CausalAutoencoder


class Case(NamedTuple):
    """A tiny autoencoder and what is known of it.

    Args:
        settings: Arguments of its class.
        spatial: Pixels of a latent's row.
        temporal: Frames of a latent frame after the first; 0 = an image autoencoder.
        group: Frames after the first are coded in multiples of so many.
        is_causal: Whether a latent frame is exactly independent of later frames.
    """

    settings: dict[str, Any]
    spatial: int
    temporal: int = 0
    group: int = 1
    is_causal: bool = False


def numbers(count: int, start: float, step: float) -> list[float]:
    return [start + step * i for i in range(count)]


LTX = {
    "latent_channels": 8,
    "block_out_channels": (8, 8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8, 8),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1, 1, 1),
    "patch_size": 2,
}
LTX2 = LTX | {
    "decoder_block_out_channels": (8, 16, 32),
    "decoder_layers_per_block": (1, 1, 1, 1),
    "scaling_factor": 0.8,
    "spatial_compression_ratio": 16,
    "temporal_compression_ratio": 8,
}
BLOCKS = ("DownEncoderBlock2D", "DownEncoderBlock2D"), ("UpDecoderBlock2D", "UpDecoderBlock2D")
KL = {
    "block_out_channels": (8, 8),
    "down_block_types": BLOCKS[0],
    "up_block_types": BLOCKS[1],
    "norm_num_groups": 4,
    "latent_channels": 4,
}
DC = {
    "latent_channels": 4,
    "attention_head_dim": 4,
    "encoder_block_out_channels": (8, 8, 16),
    "decoder_block_out_channels": (8, 8, 16),
    "encoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
    "decoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
    "encoder_layers_per_block": (1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1),
    "encoder_qkv_multiscales": ((), (), (5,)),
    "decoder_qkv_multiscales": ((), (), (5,)),
    "scaling_factor": 0.41,
}
WAN = {
    "base_dim": 4,
    "z_dim": 4,
    "num_res_blocks": 1,
    "latents_mean": numbers(4, -0.5, 0.3),
    "latents_std": numbers(4, 1.2, 0.4),
}
WAN22 = WAN | {"in_channels": 12, "out_channels": 12, "patch_size": 2, "is_residual": True, "scale_factor_spatial": 16}
COG = {
    "block_out_channels": (8, 8, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "scaling_factor": 0.7,
}
HUNYUAN = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 4}
HUNYUAN15 = {
    "block_out_channels": (16, 16, 16, 16),
    "layers_per_block": 1,
    "latent_channels": 4,
    "spatial_compression_ratio": 8,
}
TINY = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8), "latent_channels": 5}
TINY |= {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}

CASES = {
    "AutoencoderKL": Case(KL | {"scaling_factor": 0.3, "shift_factor": 0.1}, 2),
    "AutoencoderTiny": Case(TINY, 2),
    "AutoencoderDC": Case(DC, 4),
    "AutoencoderKLWan": Case(WAN, 8, 4, 4, is_causal=True),
    "AutoencoderKLWan 2.2": Case(WAN22, 16, 4, 4, is_causal=True),
    "AutoencoderKLLTXVideo": Case(LTX | {"scaling_factor": 0.9}, 16, 8, 8, is_causal=True),
    "AutoencoderKLLTXVideo 0.9.1": Case(LTX | {"timestep_conditioning": True}, 16, 8, 8, is_causal=True),
    "AutoencoderKLLTX2Video": Case(LTX2, 16, 8, 8, is_causal=True),
    "AutoencoderKLCogVideoX": Case(COG, 8, 4, 8),
    "AutoencoderKLHunyuanVideo": Case(HUNYUAN, 8, 4, 4),
    "AutoencoderKLHunyuanVideo15": Case(HUNYUAN15, 8, 4, 4, is_causal=True),
    "CausalAutoencoder": Case({"channels": 4, "width": 8, "depth": 1, "spatial": 8, "temporal": 4}, 8, 4, 4, True),
}


def make_network(name: str) -> nn.Module:
    """The tiny autoencoder of a case, with the same random weights every time."""
    settings = CASES[name].settings
    torch.manual_seed(0)
    if name == "CausalAutoencoder":
        network: nn.Module = CausalAutoencoder(
            AutoencoderConfig(**settings, mean=tuple(numbers(4, -0.2, 0.1)), std=tuple(numbers(4, 0.5, 0.2)))
        )
    else:
        network = getattr(diffusers, name.split()[0])(**settings)
    for parameter in network.parameters():  # zeros at the start would hide what a layer does
        parameter.data += 0.02 * torch.randn(parameter.shape)
    if "LTX" in name:
        network.latents_mean.copy_(torch.tensor(numbers(8, -0.3, 0.1)))
        network.latents_std.copy_(torch.tensor(numbers(8, 0.4, 0.2)))
    return network.eval()


def save_network(name: str, folder: Any) -> nn.Module:
    """Write the autoencoder of a case as its users have it."""
    network = make_network(name)
    (network.save if name == "CausalAutoencoder" else network.save_pretrained)(folder)
    return network
