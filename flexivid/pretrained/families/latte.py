"""Latte: ``LatteTransformer3DModel`` (text to video), ``VideoDiT`` (classes). Frames are embedded as DiT embeds images.

Spatial and temporal blocks in turn. A model takes one number of frames, for which it has a table of positions.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid
from einops import rearrange
from torch import Tensor, nn

from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.families.dit import CentredPatchEmbed, gather_channels
from flexivid.pretrained.families.family import ATTENTION_AND_FEED_FORWARD, Config, Family, Signature, Work, heads_width
from flexivid.pretrained.families.folding import Fold
from flexivid.pretrained.families.positions import PositionModule, native_centres


class FrameTable(PositionModule):
    """The buffer ``temp_pos_embed`` of a model at patch centres. All that the model does with it is ``to(dtype)``."""

    def to(self, dtype: torch.dtype) -> Tensor:  # type: ignore[override]
        """The table, (1, t, d)."""
        table = dict(self.native.named_buffers(recurse=False))["temp_pos_embed"]
        growth = self.fold.growth.t
        grid = Size3(-(-table.shape[1] // growth), 1, 1)
        centres = native_centres(grid, Size3(growth, 1, 1), table.device)[:, 0]
        return get_1d_sincos_pos_embed_from_grid(table.shape[2], centres)[None].to(dtype)


class CentredFramePositions(PositionModule):
    """The table of ``VideoDiT`` at the centres of weak patches, its last frame repeated where the video is padded."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, t, d) -> the same."""
        table, growth = self.native.weight.transpose(1, 2), self.fold.growth.t
        count = -(-table.shape[2] // growth)
        table = F.pad(table, (0, count * growth - table.shape[2]), mode="replicate")
        return tokens + F.interpolate(table, count, mode="linear").transpose(1, 2).to(tokens.dtype)


def _positions(model: nn.Module, fold: Fold) -> dict[str, nn.Module]:
    embed = CentredPatchEmbed(model.get_submodule("pos_embed"), fold)
    return {"pos_embed": embed, "temp_pos_embed": FrameTable(model, fold)}


def _unpack_output(sample: Tensor, fold: Fold, size: Size3) -> Tensor:
    frames = gather_channels(rearrange(sample, "b c t h w -> (b t) c h w"), fold)
    return rearrange(frames, "(b t) c h w -> b c t h w", b=len(sample))


def _work(config: Config, grid: Size3, text: int) -> list[Work]:
    n, d, depth = grid.volume, heads_width(config), config["num_layers"]
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
    signature=Signature(
        lambda config, text: {"encoder_hidden_states": (text, config["caption_channels"])},
        usual_size=lambda config: (config["video_length"], config["sample_size"], config["sample_size"]),
        has_one_size=lambda config: True,
        process=lambda model: ("linear", "noise"),
    ),
    patch=lambda config: PatchMode(1, config["patch_size"], config["patch_size"]),
    embed="pos_embed.proj",
    unembed="proj_out",
    output_order="pt ph pw c",
    lora=rf"(temporal_)?transformer_blocks\.\d+\.({ATTENTION_AND_FEED_FORWARD})",
    work=_work,
    positions=_positions,
    unpack_output=_unpack_output,
)


def _class_positions(model: nn.Module, fold: Fold) -> dict[str, nn.Module]:
    embed, frames = (model.get_submodule(name) for name in ("pos_embed", "temporal_positions"))
    return {"pos_embed": CentredPatchEmbed(embed, fold), "temporal_positions": CentredFramePositions(frames, fold)}


def _class_work(config: Config, grid: Size3, text: int) -> list[Work]:
    n, d, depth, cells = grid.volume, heads_width(config), config["num_layers"], grid.h * grid.w
    return [
        Work(1, 1, 256 + 3 * d, d),  # time embedding; modulation of the last layer
        Work(depth, grid.t + cells, 256 + 7 * d, d),  # of the blocks: anew in each, for every frame and every cell
        Work(depth * 8, n, d, d, adapted=True),
        Work(depth * 2, n, d, cells + grid.t),
        Work(depth * 4, n, d, 4 * d, adapted=True),
    ]


VIDEO_DIT = replace(
    LATTE,
    class_name="VideoDiT",
    signature=LATTE.signature._replace(
        inputs=lambda config, text: {"class_labels": ("label", config["num_embeds_ada_norm"] or 1)}
    ),
    unembed="proj_out_2",
    work=_class_work,
    positions=_class_positions,
    unpack_output=lambda output, fold, size: output,
)
