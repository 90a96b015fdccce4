"""LTX-Video: ``LTXVideoTransformer3DModel``. One latent cell a token, packed before the call; positions are arguments.

The model takes tokens (b, t h w, c) and their grid. A weak mode makes fewer, larger tokens of them, and states their
positions as ``video_coords``, which the model's own rotary embedding reads.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from flexivid.patching.shapes import PatchMode, Size3, grid_of
from flexivid.pretrained.families.family import Config, Family, Fold, Work
from flexivid.pretrained.families.folding import fold, pool_times, unfold
from flexivid.pretrained.families.rotary import native_centres

BASE = Size3(20, 2048, 2048)  # frames, rows, columns that count as 1 in LTXVideoRotaryPosEmbed


def _coords(call: dict[str, Any], how: Fold, size: Size3) -> Tensor:
    """Positions (b, 3, n) of the weak tokens, in the units that the call gives for native ones."""
    tokens, given = call["hidden_states"], call.get("video_coords")
    if given is not None:  # frames and pixels of each native token: the mean of those replaced
        pooled = F.avg_pool3d(given.float().unflatten(2, tuple(size)), tuple(how.growth), ceil_mode=True)
        return pooled.flatten(2)
    centres = native_centres(grid_of(size, PatchMode(*how.growth)), how.growth, tokens.device).T  # (3, n)
    units = call.get("rope_interpolation_scale")
    units = BASE if units is None else units  # without a scale the native positions are not divided by BASE
    coords = centres.new_empty(centres.shape)
    for axis, unit in enumerate(units):
        coords[axis] = centres[axis] * unit
    return coords.expand(tokens.shape[0], -1, -1)


def _fold_call(call: dict[str, Any], how: Fold) -> Size3:
    tokens = call["hidden_states"]
    size = Size3(*(call.get(side) or 0 for side in ("num_frames", "height", "width")))
    if tokens.shape[1] != size.volume:
        raise ValueError(
            f"got {tokens.shape[1]} tokens with num_frames, height, width = {tuple(size)}; expected a token for each"
            " cell of that grid in weak modes; use the native mode where a pipeline adds tokens of conditions"
        )
    call["video_coords"] = _coords(call, how, size)
    latent = rearrange(tokens, "b (t h w) c -> b c t h w", t=size.t, h=size.h)
    call["hidden_states"] = rearrange(fold(latent, how.growth, how.native), "b c t h w -> b (t h w) c")
    if call["timestep"].ndim == 2 and call["timestep"].shape[1] > 1:
        call["timestep"] = pool_times(call["timestep"], how.growth, size)
    return size


def _unfold_output(sample: Tensor, how: Fold, size: Size3) -> Tensor:
    grid = grid_of(size, PatchMode(*how.growth))
    folded = rearrange(sample, "b (t h w) c -> b c t h w", t=grid.t, h=grid.h)
    return rearrange(unfold(folded, how.growth, size), "b c t h w -> b (t h w) c")


def _width(config: Config) -> int:
    return config["num_attention_heads"] * config["attention_head_dim"]


def _work(config: Config, grid: Size3, text: int) -> list[Work]:
    n, d, depth = grid.volume, _width(config), config["num_layers"]
    return [
        Work(1, 1, 256, d),
        Work(1, 1, d, 7 * d),  # second layer of the time embedding; modulation of all blocks
        Work(1, text, config["caption_channels"] + d, d),
        Work(depth * 4, n, d, d, adapted=True),  # self-attention: q k v out
        Work(depth * 2, n, d, n),  # scores, weighted sums
        Work(depth * 2, n, d, d),  # cross-attention: q out
        Work(depth * 2, text, config["cross_attention_dim"], d),  # k v
        Work(depth * 2, n, d, text),
        Work(depth * 2, n, d, 4 * d, adapted=True),
    ]


LTX = Family(
    class_name="LTXVideoTransformer3DModel",
    patch=lambda config: PatchMode(1, 1, 1),  # of the tokens that come in: patches, if any, are packed before the call
    width=_width,
    embed="proj_in",
    unembed="proj_out",
    output_order="pt ph pw c",
    lora=r"transformer_blocks\.\d+\.(attn1\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2))",
    work=_work,
    fold_call=_fold_call,
    unfold_output=_unfold_output,
)
