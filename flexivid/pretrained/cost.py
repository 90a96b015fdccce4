"""The cost of a forward pass of a pre-trained transformer in any mode. Knows families; runs no model.

Multiply-accumulates of matrix products and attention of one sample: exactly PyTorch's FlopCounterMode / 2 on the meta
device.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from flexivid.patching.shapes import PatchMode, grid_of
from flexivid.pretrained.families.family import Work, config_of
from flexivid.pretrained.families.registry import family_of
from flexivid.pretrained.flexify import NATIVE
from flexivid.pretrained.weak_modes.layers import TIME_FEATURES, hidden_width


def transformer_macs(
    model: nn.Module | Mapping,
    size: tuple[int, int, int],
    mode: str | PatchMode = NATIVE,
    *,
    text_tokens: int,
    rank: int | None = None,
) -> int:
    """MACs of one forward pass of one sample of latent size (t, h, w), padding included, in any mode.

    The model, which need not have the mode, may be its configuration as in ``config.json`` (with ``_class_name``).
    ``rank=None`` is that of the model's LoRA, 0 where it has none or it is merged.

    Example:
        >>> wan = {"_class_name": "WanTransformer3DModel", "patch_size": (1, 2, 2), "num_attention_heads": 12,
        ...     "attention_head_dim": 128, "in_channels": 16, "out_channels": 16, "text_dim": 4096, "freq_dim": 256,
        ...     "ffn_dim": 8960, "num_layers": 30, "added_kv_proj_dim": None}   # Wan 2.1, 1.3 billion parameters
        >>> native, weak = (transformer_macs(wan, (21, 60, 104), m, text_tokens=512) for m in ("native", "1x4x4"))
        >>> round(native / 1e12, 1), round(weak / native, 3)
        (141.5, 0.119)
    """
    config = model if isinstance(model, Mapping) else config_of(model)
    family = family_of(config["_class_name"] if isinstance(model, Mapping) else type(model).__name__)
    native = family.patch(config)
    patch = native if str(mode) == NATIVE else PatchMode(mode)
    family.fold_of(config, patch)  # refuses modes that the model cannot take
    grid, d = grid_of(size, patch), family.width(config)
    n = grid.volume
    inputs, outputs = (channels * patch.volume for channels in family.channels(config))
    work = [Work(1, n, inputs, d), Work(1, n, d, outputs), *family.work(config, grid, text_tokens)]
    if patch == native:
        return sum(item.macs(rank=0) for item in work)
    flexi = getattr(model, "flexi", None)
    if flexi is not None and flexi.skip:
        hidden = hidden_width(inputs, outputs)
        work += [Work(1, n, inputs, hidden), Work(1, 1, TIME_FEATURES, hidden), Work(1, n, hidden, outputs)]
    if rank is None:
        rank = 0 if flexi is None or flexi.is_merged else flexi.rank
    return sum(item.macs(rank) for item in work)
