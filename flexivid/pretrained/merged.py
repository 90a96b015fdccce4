"""LoRA merged into copies of the linears that it adapts: weak steps without low-rank products, for more memory.

Native weights do not change. The copies of each mode take as much memory as the linears they are made of, and do not
follow later changes of these: merge again after loading other weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from flexivid.pretrained.flexify import Model, WeakMode, flexi_of
from flexivid.pretrained.weak_modes.affine import LEAST_BYTES, Affine, compute_dtype, is_plain, new_dtype
from flexivid.pretrained.weak_modes.lora import LoraLinear
from flexivid.pretrained.weak_modes.shadows import Registered


def merge_lora(model: nn.Module) -> int:
    """Let weak modes use merged copies from now on; return the bytes that these take.

    For inference, after the last training step. Linears that are quantised, offloaded or carry another adapter are a
    ``ValueError``.

    Example:
        >>> from diffusers import WanTransformer3DModel
        >>> from flexivid.pretrained.flexify import flexify
        >>> wan = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=1)
        >>> merge_lora(flexify(wan, ["1x4x4"], rank=4))   # 4 linears 24 x 24, 2 of 24 x 32, with biases; float32
        15968
    """
    dtype, registered = compute_dtype(model), Registered(model)
    copies = [
        {path: _merged(registered[path], layer, path, dtype) for path, layer in mode.lora_layers.items()}
        for mode in _modes(model)
    ]
    for mode, layers in zip(_modes(model), copies, strict=True):
        mode.merged = nn.ModuleDict({path.replace(".", "-"): layer for path, layer in layers.items()})
    return sum(parameter.nbytes for mode in _modes(model) for parameter in mode.merged.parameters())


def unmerge_lora(model: Model) -> Model:
    """Delete the copies: weak modes use the LoRA itself again."""
    for mode in _modes(model):
        mode.merged.clear()
    return model


def _modes(model: nn.Module) -> list[WeakMode]:
    return list(flexi_of(model).modes.values())  # type: ignore[arg-type]


@torch.no_grad()
def _merged(base: Any, layer: LoraLinear, path: str, dtype: torch.dtype) -> Affine:
    """A linear with weights base + B A, in the higher of the precisions of the base and of the model."""
    weight = getattr(base, "weight", None)
    if not is_plain(base):
        kind = f" of {type(weight).__name__}, {weight.dtype}" if isinstance(weight, torch.Tensor) else ""
        raise ValueError(
            f"got a {type(base).__name__} at {path}{kind}; expected a linear in floating point without other adapters;"
            " merge before you add them, and before quantising, or use the LoRA itself"
        )
    if base.weight.is_meta and not layer.lora_A.weight.is_meta:
        raise ValueError(
            f"got {path} offloaded, its weights not in memory; expected them there; merge before offloading"
        )
    if base.weight.dtype.itemsize >= LEAST_BYTES:
        dtype = torch.promote_types(dtype, base.weight.dtype)
    wide = base.weight.to(new_dtype(dtype))
    bias = None if base.bias is None else base.bias.to(dtype, copy=True)
    return Affine((wide + layer.delta().to(wide)).to(dtype), bias).requires_grad_(False)
