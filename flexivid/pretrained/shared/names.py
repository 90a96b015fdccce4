"""Weights of DiT and Latte in diffusers, by their names and in their shapes in a FlexiDiT of one mode."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor

from flexivid.model.config import FlexiDiTConfig
from flexivid.patching.position import sinusoids

BLOCK = {  # name in diffusers: in a FlexiDiT
    "norm1.linear": "modulation",
    "scale_shift_table": "modulation.table",
    "attn1.to_q": "attention.q",
    "attn1.to_k": "attention.k",
    "attn1.to_v": "attention.v",
    "attn1.to_out.0": "attention.out",
    "attn2.to_q": "cross.q",
    "attn2.to_k": "cross.k",
    "attn2.to_v": "cross.v",
    "attn2.to_out.0": "cross.out",
    "ff.net.0.proj": "mlp_in",
    "ff.net.2": "mlp_out",
}
WHOLE = {
    "pos_embed.proj": "embed",
    "proj_out_1": "out_modulation",
    "scale_shift_table": "out_modulation.table",
    "adaln_single.linear": "shared_modulation",
    "caption_projection.linear_1": "text.project_in",
    "caption_projection.linear_2": "text.project_out",
}
EMBEDDER = {
    "timestep_embedder.linear_1.weight": "time_in.weight",
    "timestep_embedder.linear_1.bias": "time_in.bias",
    "timestep_embedder.linear_2.weight": "time_out.weight",
    "timestep_embedder.linear_2.bias": "mode",
    "class_embedder.embedding_table.weight": "label.weight",
}


def block_of(name: str) -> tuple[int | None, str]:
    """Number of the block in a FlexiDiT and the rest of the name; ``None`` = of no block."""
    match = re.fullmatch(r"(temporal_)?transformer_blocks\.(\d+)\.(.+)", name)
    return (None, name) if match is None else (int(match[2]) * 2 + bool(match[1]), match[3])


def embedders_of(weights: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Weights of the embedders of time and class, one for each block in order, or one for all, as in a FlexiDiT."""
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in weights.items():
        number, inner = block_of(name)
        if inner.startswith(("norm1.emb.", "adaln_single.emb.")):
            entry = EMBEDDER[inner.split(".emb.")[1]]
            entries.setdefault(number or 0, {})[entry] = value[None] if entry == "mode" else value
    return [entries[number] for number in sorted(entries)]


def is_shared(embedders: list[dict[str, Tensor]]) -> bool:
    """Whether all embedders are the same; on the meta device they count as such, as in all published weights."""
    first = embedders[0]
    return all(
        value.is_meta or torch.equal(value, first[name]) for each in embedders[1:] for name, value in each.items()
    )


def renamed_weights(weights: Mapping[str, Tensor], config: FlexiDiTConfig) -> dict[str, Tensor]:
    """Weights of diffusers by their names in a FlexiDiT of one mode.

    Raises:
        ValueError: If a weight is of no layer there.
    """
    is_video, embedders = config.attention == "factorised", embedders_of(weights)
    renamed: dict[str, Tensor] = {}
    for index, embedder in enumerate(embedders if config.block_conditioning else embedders[:1]):
        prefix = f"conditioning.{index}." if config.block_conditioning else "conditioning."
        renamed |= {prefix + name: value for name, value in embedder.items()}
    for name, value in weights.items():
        number, inner = block_of(name)
        stem, _, kind = inner.rpartition(".")
        if ".emb." in inner or name == "pos_embed.pos_embed":
            continue
        if stem in ("proj_out", "proj_out_2"):
            sides = {"ph": config.native.h, "pw": config.native.w}  # (d,) c 1 ph pw: of one frame
            renamed[f"out.{kind}"] = rearrange(value, "(ph pw c) ... -> ... c 1 ph pw", **sides)
        elif name == "temporal_positions.weight":
            _check_frames(value)
        elif number is not None:
            index = number if is_video else number // 2
            renamed[f"blocks.{index}.{_entry(inner, BLOCK)}"] = value
        else:
            to = _entry(name, WHOLE)
            renamed[to] = value.unsqueeze(2) if to == "embed.weight" else value  # (d, c, ph, pw): one frame
    return renamed


def _entry(name: str, table: Mapping[str, str]) -> str:
    stem, _, kind = name.rpartition(".")
    if name in table:
        return table[name]
    if stem in table:
        return f"{table[stem]}.{kind}"
    raise ValueError(f"got weights with {name}; expected those of DiT or Latte; flexify this model instead")


def _check_frames(table: Tensor) -> None:
    """Refuse positions of frames that are no sinusoids, (1, t, d)."""
    if table.is_meta:
        return
    expected = sinusoids(torch.arange(table.shape[1], device=table.device), table.shape[2])
    if not torch.allclose(table[0].double(), expected.double(), atol=1e-3):
        raise ValueError(
            "got learned positions of frames; expected the sinusoids of Latte; flexify this model, which keeps them"
        )
