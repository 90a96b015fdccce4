"""Wan 2.1 and 2.2: ``WanTransformer3DModel``. Text by cross-attention, rotary positions from tables.

Wan 2.2's 5B model takes a time per token; image-to-video models take more channels in than they give out. Both work.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from flexivid.patching.shapes import PatchMode, Size3, grid_of
from flexivid.pretrained.families.family import Config, Family, Signature, Work, heads_width
from flexivid.pretrained.families.folding import Fold, pool_times
from flexivid.pretrained.families.positions import PositionModule, rotary

THETA = 10000.0  # the default of diffusers' WanRotaryPosEmbed, which the model never changes
IMAGE_TOKENS = 257  # CLIP ViT-H/14 at 224 pixels, Wan 2.1 image-to-video
IMAGE_TEXT_TOKENS = 512  # the only text length of those models


class WanPositions(PositionModule):
    """Rotary embeddings of patch centres, in the place of ``WanRotaryPosEmbed``."""

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        features = (int(self.native.t_dim), int(self.native.h_dim), int(self.native.w_dim))
        cos, sin = rotary(self.centres(hidden_states), features, THETA)  # (n, e)
        return cos[None, :, None], sin[None, :, None]  # (1, n, 1, e)


def _fold_inputs(call: dict[str, Any], fold: Fold, size: Size3) -> None:
    if call["timestep"].ndim == 2:
        call["timestep"] = pool_times(call["timestep"], fold.growth, grid_of(size, fold.native))


def _inputs(config: Config, text: int) -> dict[str, tuple]:
    if not config["added_kv_proj_dim"]:
        return {"encoder_hidden_states": (text, config["text_dim"])}
    image = (IMAGE_TOKENS, config["image_dim"])
    return {"encoder_hidden_states": (IMAGE_TEXT_TOKENS, config["text_dim"]), "encoder_hidden_states_image": image}


def _work(config: Config, grid: Size3, text: int) -> list[Work]:
    """Image conditions (Wan 2.1 image-to-video) count 257 tokens; the time is one for the sample, not one a token."""
    n, d, depth = grid.volume, heads_width(config), config["num_layers"]
    image = IMAGE_TOKENS if config["added_kv_proj_dim"] is not None else 0
    work = [
        Work(1, 1, config["freq_dim"], d),
        Work(1, 1, d, 7 * d),  # second layer of the time embedding; modulation of all blocks
        Work(1, text, config["text_dim"], d),
        Work(1, text, d, d),
        Work(depth * 4, n, d, d, adapted=True),  # self-attention: q k v out
        Work(depth * 2, n, d, n),  # scores, weighted sums
        Work(depth * 2, n, d, d),  # cross-attention: q out
        Work(depth * 2, text + image, d, d),  # k v
        Work(depth * 2, n, d, text + image),
        Work(depth * 2, n, d, config["ffn_dim"], adapted=True),
    ]
    if image:
        work += [Work(1, image, config["image_dim"], config["image_dim"] + d)]
    return work


WAN = Family(
    class_name="WanTransformer3DModel",
    signature=Signature(_inputs, is_flow=True),
    patch=lambda config: PatchMode(*config["patch_size"]),
    embed="patch_embedding",
    unembed="proj_out",
    output_order="pt ph pw c",
    lora=r"blocks\.\d+\.(attn1\.(to_q|to_k|to_v|to_out\.0)|ffn\.net\.(0\.proj|2))",
    work=_work,
    positions=lambda model, fold: {"rope": WanPositions(model.get_submodule("rope"), fold)},
    fold_inputs=_fold_inputs,
)
