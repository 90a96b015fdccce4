"""DiT: ``DiTTransformer2DModel``. Square images of one latent frame; the class and the time steer every block.

An image is a video of one frame, so weak modes grow rows and columns, alike. Positions are a sinusoidal table added to
the tokens, here at patch centres. What Latte shares with DiT is in this file.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed_from_grid
from einops import rearrange
from torch import Tensor, nn

from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.families.family import Config, Family, Fold, Work
from flexivid.pretrained.families.folding import fold, unfold
from flexivid.pretrained.families.rotary import native_centres


class CentredPatchEmbed(nn.Module):
    """``PatchEmbed`` of diffusers with its sinusoidal table at patch centres."""

    def __init__(self, native: nn.Module, how: Fold) -> None:
        super().__init__()
        self.native: list[Any] = [native]  # in a list: it is registered in the model
        self.how = how

    def forward(self, latent: Tensor) -> Tensor:
        """Folded images (b, c, h, w) -> tokens (b, n, d)."""
        native = self.native[0]
        tokens = native.proj(latent)  # (b, d, gh, gw)
        grid, growth = Size3(1, *tokens.shape[2:]), Size3(1, *self.how.growth[1:])
        rows, columns = native_centres(grid, growth, latent.device).T[1:]
        sides = (grid.h * growth.h, grid.w * growth.w)  # native tokens; the table spans base_size whatever they are
        rows, columns = (
            place / (side / native.base_size) / native.interpolation_scale
            for place, side in zip((rows, columns), sides, strict=True)
        )
        table = get_2d_sincos_pos_embed_from_grid(tokens.shape[1], torch.stack((columns, rows)))  # (n, d)
        return (tokens.flatten(2).transpose(1, 2) + table.float()).to(latent.dtype)


def gather_channels(images: Tensor, how: Fold) -> Tensor:
    """Read what DiT puts together in the shape that it should have had: (k growth, c, h, w) -> (k, c growth, h, w).

    The class ends with a reshape to (-1, gh, gw, ph, pw, c): folded channels become more images, with their values
    spread over them. The values in memory are right.
    """
    growth, sides = how.growth.volume, {"ph": how.native.h, "pw": how.native.w}
    values = rearrange(images, "k c (gh ph) (gw pw) -> k gh gw ph pw c", **sides)
    values = values.reshape(len(images) // growth, *values.shape[1:5], -1)
    return rearrange(values, "k gh gw ph pw c -> k c (gh ph) (gw pw)")


def _fold_call(call: dict[str, Any], how: Fold) -> Size3:
    image = call["hidden_states"]  # (b, c, h, w)
    size = Size3(1, *image.shape[2:])
    if size.h != size.w:
        raise ValueError(
            f"got a latent of {size.h} x {size.w} cells; expected a square, the only shape that DiT puts together"
        )
    call["hidden_states"] = fold(image.unsqueeze(2), how.growth, how.native).squeeze(2)
    return size


def _unfold_output(sample: Tensor, how: Fold, size: Size3) -> Tensor:
    return unfold(gather_channels(sample, how).unsqueeze(2), how.growth, size).squeeze(2)


def _width(config: Config) -> int:
    return config["num_attention_heads"] * config["attention_head_dim"]


def _work(config: Config, grid: Size3, text: int) -> list[Work]:
    n, d, depth = grid.volume, _width(config), config["num_layers"]
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
    patch=lambda config: PatchMode(1, config["patch_size"], config["patch_size"]),
    width=_width,
    embed="pos_embed.proj",
    unembed="proj_out_2",
    output_order="pt ph pw c",
    lora=r"transformer_blocks\.\d+\.(attn1\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2))",
    work=_work,
    axes=lambda config: "hw",
    square=True,
    positions=lambda model, how: {"pos_embed": CentredPatchEmbed(model.get_submodule("pos_embed"), how)},
    fold_call=_fold_call,
    unfold_output=_unfold_output,
)
