"""Latte: ``LatteTransformer3DModel`` (text to video), ``VideoDiT`` (classes). Frames are embedded as DiT embeds images.

Spatial and temporal blocks in turn. A model takes one number of frames, for which it has a table of positions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid
from einops import rearrange
from torch import Tensor, nn

from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.families.dit import CentredPatchEmbed, gather_channels
from flexivid.pretrained.families.family import Config, Family, Fold, Work, unfold_latent
from flexivid.pretrained.families.rotary import native_centres


class FrameTable(nn.Module):
    """The buffer ``temp_pos_embed`` at patch centres. All that the model does with it is ``to(dtype)``."""

    def __init__(self, model: nn.Module, how: Fold) -> None:
        super().__init__()
        self.buffers_of_model = model._buffers
        self.growth = how.growth.t

    def to(self, dtype: torch.dtype) -> Tensor:  # type: ignore[override]
        """The table, (1, t, d)."""
        native: Any = self.buffers_of_model["temp_pos_embed"]
        grid = Size3(-(-native.shape[1] // self.growth), 1, 1)
        centres = native_centres(grid, Size3(self.growth, 1, 1), native.device)[:, 0]
        return get_1d_sincos_pos_embed_from_grid(native.shape[2], centres)[None].to(dtype)


class CentredFramePositions(nn.Module):
    """The table of ``VideoDiT`` at the centres of weak patches, its last frame repeated where the video is padded."""

    def __init__(self, native: nn.Module, how: Fold) -> None:
        super().__init__()
        self.native: list[Any] = [native]  # in a list: it is registered in the model
        self.growth = how.growth.t

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, t, d) -> the same."""
        table = self.native[0].weight.transpose(1, 2)
        count = -(-table.shape[2] // self.growth)
        table = F.pad(table, (0, count * self.growth - table.shape[2]), mode="replicate")
        return tokens + F.interpolate(table, count, mode="linear").transpose(1, 2).to(tokens.dtype)


def _positions(model: nn.Module, how: Fold) -> dict[str, nn.Module]:
    embed = CentredPatchEmbed(model.get_submodule("pos_embed"), how)
    return {"pos_embed": embed, "temp_pos_embed": FrameTable(model, how)}


def _unfold_output(sample: Tensor, how: Fold, size: Size3) -> Tensor:
    frames = gather_channels(rearrange(sample, "b c t h w -> (b t) c h w"), how)
    return unfold_latent(rearrange(frames, "(b t) c h w -> b c t h w", b=len(sample)), how, size)


def _width(config: Config) -> int:
    return config["num_attention_heads"] * config["attention_head_dim"]


def _work(config: Config, grid: Size3, text: int) -> list[Work]:
    n, d, depth = grid.volume, _width(config), config["num_layers"]
    texts = text * grid.t  # every frame asks its own copy of the text
    return [
        Work(1, 1, 256 + 7 * d, d),  # time embedding; modulation of all blocks
        Work(1, text, config["caption_channels"] + d, d),
        Work(depth * 8, n, d, d, adapted=True),  # self-attention in space and in time: q k v out
        Work(depth * 2, n, d, grid.h * grid.w),  # scores, weighted sums in space
        Work(depth * 2, n, d, grid.t),  # and in time
        Work(depth * 2, n, d, d),  # cross-attention: q out
        Work(depth * 2, texts, config["cross_attention_dim"], d),  # k v
        Work(depth * 2, n, d, text),
        Work(depth * 4, n, d, 4 * d, adapted=True),
    ]


LATTE = Family(
    class_name="LatteTransformer3DModel",
    patch=lambda config: PatchMode(1, config["patch_size"], config["patch_size"]),
    width=_width,
    embed="pos_embed.proj",
    unembed="proj_out",
    output_order="pt ph pw c",
    lora=r"(temporal_)?transformer_blocks\.\d+\.(attn1\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2))",
    work=_work,
    positions=_positions,
    unfold_output=_unfold_output,
)


def _class_positions(model: nn.Module, how: Fold) -> dict[str, nn.Module]:
    embed, frames = (model.get_submodule(name) for name in ("pos_embed", "temporal_positions"))
    return {"pos_embed": CentredPatchEmbed(embed, how), "temporal_positions": CentredFramePositions(frames, how)}


def _class_work(config: Config, grid: Size3, text: int) -> list[Work]:
    n, d, depth, place = grid.volume, _width(config), config["num_layers"], grid.h * grid.w
    return [
        Work(1, 1, 256 + 3 * d, d),  # time embedding; modulation of the last layer
        Work(depth, grid.t + place, 256 + 7 * d, d),  # of the blocks: anew in each, for every frame and every place
        Work(depth * 8, n, d, d, adapted=True),
        Work(depth * 2, n, d, place + grid.t),
        Work(depth * 4, n, d, 4 * d, adapted=True),
    ]


VIDEO_DIT = replace(
    LATTE,
    class_name="VideoDiT",
    unembed="proj_out_2",
    work=_class_work,
    positions=_class_positions,
    unfold_output=unfold_latent,
)
