"""LTX-Video: ``LTXVideoTransformer3DModel``. One latent cell a token, packed before the call; positions are arguments.

The model takes tokens (b, t h w, c) and their grid. A weak mode makes fewer, larger tokens of them, and states their
positions as ``video_coords``, which the model's own rotary embedding reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from flexivid.patching.shapes import PatchMode, Size3, grid_of
from flexivid.pretrained.families.family import Config, Family, Signature, Work, heads_width
from flexivid.pretrained.families.folding import Fold, pool_times
from flexivid.pretrained.families.positions import native_centres

BASE = Size3(20, 2048, 2048)  # frames, rows, columns that count as 1 in LTXVideoRotaryPosEmbed
SCALE = (8 / 25, 32, 32)  # seconds and pixels of a latent cell, at 25 frames a second


def _unpack(tokens: Tensor, call: Mapping[str, Any]) -> Tensor:
    size = Size3(*(call.get(side) or 0 for side in ("num_frames", "height", "width")))
    if tokens.shape[1] != size.volume:
        raise ValueError(
            f"got {tokens.shape[1]} tokens with num_frames, height, width = {tuple(size)}; expected a token for each"
            " cell of that grid in weak modes; use the native mode where a pipeline adds tokens of conditions"
        )
    return rearrange(tokens, "b (t h w) c -> b c t h w", t=size.t, h=size.h)


def _coords(call: dict[str, Any], fold: Fold, size: Size3) -> Tensor:
    """Positions (b, 3, n) of the weak tokens, in the units that the call has for native ones."""
    tokens, coords = call["hidden_states"], call.get("video_coords")
    if coords is not None:  # frames and pixels of each native token: the mean of those replaced
        pooled = F.avg_pool3d(coords.float().unflatten(2, tuple(size)), tuple(fold.growth), ceil_mode=True)
        return pooled.flatten(2)
    centres = native_centres(grid_of(size, PatchMode(*fold.growth)), fold.growth, tokens.device).T  # (3, n)
    units = call.get("rope_interpolation_scale")
    units = BASE if units is None else units  # without a scale the native positions are not divided by BASE
    scaled = [axis * unit for axis, unit in zip(centres, units, strict=True)]
    return torch.stack(scaled).expand(tokens.shape[0], -1, -1)


def _fold_inputs(call: dict[str, Any], fold: Fold, size: Size3) -> None:
    call["video_coords"] = _coords(call, fold, size)
    if call["timestep"].ndim == 2 and call["timestep"].shape[1] > 1:
        call["timestep"] = pool_times(call["timestep"], fold.growth, size)


def _unpack_output(tokens: Tensor, fold: Fold, size: Size3) -> Tensor:
    grid = grid_of(size, PatchMode(*fold.growth))
    return rearrange(tokens, "b (t h w) c -> b c t h w", t=grid.t, h=grid.h)


def _constants(config: Config, size: Size3) -> dict[str, Any]:
    return {**dict(zip(("num_frames", "height", "width"), size, strict=True)), "rope_interpolation_scale": SCALE}


def _work(config: Config, grid: Size3, text: int) -> list[Work]:
    n, d, depth = grid.volume, heads_width(config), config["num_layers"]
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
    signature=Signature(
        lambda config, text: {
            "encoder_hidden_states": (text, config["caption_channels"]),
            "encoder_attention_mask": ("ones", text),
        },
        _constants,
        pack=lambda latent: rearrange(latent, "b c t h w -> b (t h w) c"),
        unpack=_unpack,
        is_flow=True,
        usual_size=lambda config: (21, 16, 24),
    ),
    patch=lambda config: PatchMode(1, 1, 1),  # of the tokens that come in: patches, if any, are packed before the call
    embed="proj_in",
    unembed="proj_out",
    output_order="pt ph pw c",
    work=_work,
    fold_inputs=_fold_inputs,
    unpack_output=_unpack_output,
)
