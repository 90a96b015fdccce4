"""Load DiT and Latte as their authors publish them: a ``.pt`` file of weights without a configuration.

DiT and class-conditional or unconditional Latte: the same names; q, k, v in one matrix, one time and class embedding
for all blocks, where diffusers has one in each. Latte alternates spatial and temporal blocks in one list.
Latte for text has diffusers' names already.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.models.transformers.latte_transformer_3d import LatteTransformer3DModel
from torch import Tensor, nn

from flexivid.pretrained.families.video_dit import VideoDiT, set_time_shift
from flexivid.runtime.paths import resolve_path
from flexivid.runtime.weights import misfit, read_data

ONCE = {  # published name: name in diffusers
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
OF_EVERY_BLOCK = {
    "t_embedder.mlp.0": "norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "norm1.emb.timestep_embedder.linear_2",
    "y_embedder.embedding_table": "norm1.emb.class_embedder.embedding_table",
}
OF_A_BLOCK = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
QKV = ("attn1.to_q", "attn1.to_k", "attn1.to_v")
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # by width: S, B, L, XL
TABLES = ("pos_embed", "temp_embed", "caption_projection.y_embedding")  # not renamed: computed, or read separately
TEXT_SIDE, TEXT_FRAMES = 64, 16  # latent of Latte for text, 512 pixels; its file has no tables to read them from


def load_plain(path: str | Path, *, num_heads: int | None = None) -> nn.Module:
    """Load a published ``.pt`` of DiT or Latte. Reads weights only and runs no code of the file.

    Of two sets of weights, as in ``ucf101.pt``, the averaged one is read. The model is a ``DiTTransformer2DModel``, a
    ``VideoDiT`` (Latte) or a ``LatteTransformer3DModel`` (Latte for text), in evaluation mode, in float32.
    ``num_heads`` is that of the published width where it is ``None``.
    """
    weights = _read(resolve_path(path))
    for prefix in ("module.", "_orig_mod."):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    if "x_embedder.proj.weight" in weights:
        return _class_model(weights, num_heads).eval()
    if "adaln_single.linear.weight" in weights:
        return _text_model(weights, num_heads).eval()
    raise ValueError(f"got {path} without x_embedder or adaln_single; expected weights of DiT or Latte; check the file")


def _read(path: Path) -> dict[str, Tensor]:
    with torch.serialization.safe_globals([argparse.Namespace]):  # training checkpoints of DiT keep their arguments
        content = read_data(path, expected="weights of DiT or Latte in a .pt file; check the path")
    for key in ("ema", "model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"got {path} with more than weights; expected names and tensors; save its state dict alone")
    return {name: value.float() for name, value in content.items()}


def _class_model(weights: dict[str, Tensor], num_heads: int | None) -> nn.Module:
    width, in_channels, patch = weights["x_embedder.proj.weight"].shape[:3]
    settings = _heads(width, num_heads) | {
        "in_channels": in_channels,
        "out_channels": len(weights["final_layer.linear.weight"]) // patch**2,
        "patch_size": patch,
        "sample_size": round(weights["pos_embed"].shape[1] ** 0.5) * patch,
        "num_embeds_ada_norm": len(weights.get("y_embedder.embedding_table.weight", [0])) - 1,
        "norm_eps": 1e-6,
    }
    is_video = "temp_embed" in weights
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    renamed = rename(weights, depth, is_video=is_video)
    model: Any
    if is_video:
        frames = weights["temp_embed"].shape[1]
        model = VideoDiT(num_layers=depth // 2, video_length=frames, **settings)
        renamed["temporal_positions.weight"] = weights["temp_embed"]
        if "y_embedder.embedding_table.weight" not in weights:  # unconditional: a class embedding that adds nothing
            tables = [name for name in model.state_dict() if "class_embedder" in name]
            renamed |= {name: torch.zeros(1, width) for name in tables}
    else:
        model = DiTTransformer2DModel(num_layers=depth, **settings)
        set_time_shift(model, 0)
    _fill(model, renamed)
    sinusoids, table = model.pos_embed.pos_embed, weights["pos_embed"]
    if sinusoids.shape != table.shape or not torch.allclose(sinusoids, table, atol=1e-3):
        raise ValueError("got a table of positions that is not the sinusoids of DiT; expected these; load another file")
    return model


def rename(weights: Mapping[str, Tensor], depth: int, *, is_video: bool) -> dict[str, Tensor]:
    """Rename weights of DiT as in diffusers, or those of Latte as in ``VideoDiT``. Names not in the tables stay."""
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        stem, _, kind = name.rpartition(".")
        if name in TABLES:
            continue
        if stem in OF_EVERY_BLOCK:
            renamed |= {f"{_block(i, is_video)}.{OF_EVERY_BLOCK[stem]}.{kind}": value for i in range(depth)}
        elif stem.startswith("blocks."):
            _, number, inner = stem.split(".", 2)
            block = _block(int(number), is_video)
            if inner == "attn.qkv":
                parts = zip(QKV, value.chunk(3), strict=True)
                renamed |= {f"{block}.{to}.{kind}": part.clone() for to, part in parts}
            else:
                renamed[f"{block}.{OF_A_BLOCK.get(inner, inner)}.{kind}"] = value
        else:
            renamed[f"{ONCE.get(stem, stem)}.{kind}"] = value
    return renamed


def _block(number: int, is_video: bool) -> str:
    if not is_video:
        return f"transformer_blocks.{number}"
    return f"{'temporal_' if number % 2 else ''}transformer_blocks.{number // 2}"


def _text_model(weights: dict[str, Tensor], num_heads: int | None) -> nn.Module:
    width, in_channels, patch = weights["pos_embed.proj.weight"].shape[:3]
    model = LatteTransformer3DModel(
        **_heads(width, num_heads),
        in_channels=in_channels,
        out_channels=len(weights["proj_out.weight"]) // patch**2,
        num_layers=len({name.split(".")[1] for name in weights if name.startswith("transformer_blocks.")}),
        cross_attention_dim=weights["transformer_blocks.0.attn2.to_k.weight"].shape[1],
        attention_bias=True,
        sample_size=TEXT_SIDE,
        patch_size=patch,
        activation_fn="gelu-approximate",
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=weights["caption_projection.linear_1.weight"].shape[1],
        video_length=TEXT_FRAMES,
    )
    _fill(model, {name: value for name, value in weights.items() if name not in TABLES})
    return model


def _heads(width: int, num_heads: int | None) -> dict[str, int]:
    heads = num_heads or HEADS.get(width, 0)
    if not heads or width % heads:
        raise ValueError(
            f"got weights of width {width} with {heads or 'an unknown number of'} heads; expected a number that divides"
            " it; pass num_heads"
        )
    return {"num_attention_heads": heads, "attention_head_dim": width // heads}


def _fill(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    if fault := misfit(model, weights):
        kind = type(model).__name__
        raise ValueError(f"got weights that do not fit ({fault}); expected those of {kind}; load another file")
    model.load_state_dict(weights)
