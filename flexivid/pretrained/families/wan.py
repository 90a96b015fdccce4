"""Wan 2.1 and 2.2: ``WanTransformer3DModel``. Text by cross-attention, rotary positions from tables.

Wan 2.2's 5B model gives a time per token; image-to-video models take more channels in than they give out. Both work.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from flexivid.patching.shapes import PatchMode, Size3, grid_of
from flexivid.pretrained.families.family import Config, Family, Fold, Work, fold_latent
from flexivid.pretrained.families.folding import pool_times
from flexivid.pretrained.families.rotary import native_centres, rotary

THETA = 10000.0  # the default of diffusers' WanRotaryPosEmbed, which the model never changes
IMAGE_TOKENS = 257  # CLIP ViT-H/14 at 224 pixels, Wan 2.1 image-to-video


class WanPositions(nn.Module):
    """Rotary embeddings of patch centres, in the place of ``WanRotaryPosEmbed``."""

    def __init__(self, native: nn.Module, how: Fold) -> None:
        super().__init__()
        self.features = (int(native.t_dim), int(native.h_dim), int(native.w_dim))  # type: ignore[arg-type]
        self.how = how

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        grid = grid_of(Size3(*hidden_states.shape[2:]), self.how.native)
        centres = native_centres(grid, self.how.growth, hidden_states.device)
        cos, sin = rotary(centres, self.features, THETA)  # (n, e)
        return cos[None, :, None], sin[None, :, None]  # (1, n, 1, e)


def _positions(model: nn.Module, how: Fold) -> dict[str, nn.Module]:
    return {"rope": WanPositions(model.get_submodule("rope"), how)}


def _fold_call(call: dict[str, Any], how: Fold) -> Size3:
    size = fold_latent(call, how)
    if call["timestep"].ndim == 2:
        call["timestep"] = pool_times(call["timestep"], how.growth, grid_of(size, how.native))
    return size


def _width(config: Config) -> int:
    return config["num_attention_heads"] * config["attention_head_dim"]


def _work(config: Config, grid: Size3, text: int) -> list[Work]:
    """Image conditions (Wan 2.1 image-to-video) count 257 tokens; the time is one for the sample, not one a token."""
    n, d, depth = grid.volume, _width(config), config["num_layers"]
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
    patch=lambda config: PatchMode(*config["patch_size"]),
    width=_width,
    embed="patch_embedding",
    unembed="proj_out",
    output_order="pt ph pw c",
    lora=r"blocks\.\d+\.(attn1\.(to_q|to_k|to_v|to_out\.0)|ffn\.net\.(0\.proj|2))",
    work=_work,
    positions=_positions,
    fold_call=_fold_call,
)
