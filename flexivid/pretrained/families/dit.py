"""DiT: ``DiTTransformer2DModel``. Square images of one latent frame; class and time modulate every block.

An image is a video of one frame, so weak modes grow rows and columns, alike. Positions are a sinusoidal table added to
the tokens, here at patch centres. What Latte shares with DiT is in this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed_from_grid
from einops import rearrange
from torch import Tensor

from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.families.family import Config, Family, Signature, Work, heads_width
from flexivid.pretrained.families.folding import Fold
from flexivid.pretrained.families.positions import PositionModule, native_centres


class CentredPatchEmbed(PositionModule):
    """``PatchEmbed`` of diffusers with its sinusoidal table at patch centres."""

    def forward(self, latent: Tensor) -> Tensor:
        """Folded images (b, c, h, w) -> tokens (b, n, d)."""
        native = self.native
        tokens = native.proj(latent)  # (b, d, gh, gw)
        grid, growth = Size3(1, *tokens.shape[2:]), Size3(1, *self.fold.growth[1:])
        rows, columns = native_centres(grid, growth, latent.device).T[1:]
        sides = (grid.h * growth.h, grid.w * growth.w)  # native tokens; the table spans base_size whatever they are
        rows, columns = (
            centres / (side / native.base_size) / native.interpolation_scale
            for centres, side in zip((rows, columns), sides, strict=True)
        )
        table = get_2d_sincos_pos_embed_from_grid(tokens.shape[1], torch.stack((columns, rows)))  # (n, d)
        return (tokens.flatten(2).transpose(1, 2) + table.float()).to(latent.dtype)


def gather_channels(images: Tensor, fold: Fold) -> Tensor:
    """Undo DiT's last reshape, which turns folded channels into images: (k growth, c, h, w) -> (k, c growth, h, w).

    The class ends with a reshape to (-1, gh, gw, ph, pw, c) for its own number of channels. The order of values in
    memory is right.
    """
    growth, sides = fold.growth.volume, {"ph": fold.native.h, "pw": fold.native.w}
    values = rearrange(images, "k c (gh ph) (gw pw) -> k gh gw ph pw c", **sides)
    values = values.reshape(len(images) // growth, *values.shape[1:5], -1)
    return rearrange(values, "k gh gw ph pw c -> k c (gh ph) (gw pw)")


def _unpack(image: Tensor, call: Mapping[str, Any]) -> Tensor:
    height, width = image.shape[2:]
    if height != width:
        raise ValueError(
            f"got a latent of {height} x {width} cells; expected a square, the only shape that DiT puts together"
        )
    return image.unsqueeze(2)


def _work(config: Config, grid: Size3, text: int) -> list[Work]:
    n, d, depth = grid.volume, heads_width(config), config["num_layers"]
    return [
        Work(depth + 1, 1, 256 + d, d),  # every block embeds the time anew, and the last layer does
        Work(depth, 1, d, 6 * d),
        Work(depth * 4, n, d, d, adapted=True),  # q k v out
        Work(depth * 2, n, d, n),  # scores, weighted sums
        Work(depth * 2, n, d, 4 * d, adapted=True),
        Work(1, 1, d, 2 * d),
    ]


DIT = Family(
    class_name="DiTTransformer2DModel",
    signature=Signature(
        lambda config, text: {"class_labels": ("label", config["num_embeds_ada_norm"])},
        pack=lambda latent: latent[:, :, 0],
        unpack=_unpack,
        usual_size=lambda config: (1, config["sample_size"], config["sample_size"]),
        has_one_size=lambda config: True,
        process=lambda model: ("linear", "noise"),
    ),
    patch=lambda config: PatchMode(1, config["patch_size"], config["patch_size"]),
    embed="pos_embed.proj",
    unembed="proj_out_2",
    output_order="pt ph pw c",
    work=_work,
    axes=lambda config: "hw",
    square=True,
    positions=lambda model, fold: {"pos_embed": CentredPatchEmbed(model.get_submodule("pos_embed"), fold)},
    unpack_output=lambda images, fold, size: gather_channels(images, fold).unsqueeze(2),
)
