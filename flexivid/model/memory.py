"""Predicts what a model needs: parameters, tokens, MACs, memory. For ``--dry-run``.

Activation memory is measured: a forward pass on the meta device shows which tensors autograd would keep. Attention is
counted as kernels that never store the score matrix; on CPUs, short sequences do store it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from flexivid.budget.cost import human, macs
from flexivid.model.conditioning import Condition, Text
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.patching.shapes import PatchMode, Size3, num_tokens

TRAIN_BYTES = 20  # a parameter in training: weight, gradient, two AdamW moments and the EMA, float32 each


def num_parameters(config: FlexiDiTConfig) -> int:
    """Return the number of learned values without allocating them.

    Example:
        >>> num_parameters(FlexiDiTConfig.preset("XL", in_channels=4, modes=["1x2x2"], num_classes=1000)) // 10**6
        674
    """
    with torch.device("meta"):
        return FlexiDiT(config).num_parameters


def activation_bytes(config: FlexiDiTConfig, size: tuple[int, int, int], mode: PatchMode, text_tokens: int = 0) -> int:
    """Return the bytes that autograd keeps for one sample of latent size (t, h, w), in bf16, without weights."""
    # blocks are alike: networks of 2 and 4 blocks tell what one block keeps
    shallow, deep = (_saved_bytes(replace(config, depth=depth), Size3(*size), mode, text_tokens) for depth in (2, 4))
    return shallow + (deep - shallow) * (config.depth - 2) // 2


class _ScoresUnwritten(TorchFunctionMode):
    """Attention that does not store the scores, as in training; on the meta device torch would store them."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args, **(kwargs or {}))[0]
        return func(*args, **(kwargs or {}))


def _saved_bytes(config: FlexiDiTConfig, size: Size3, mode: PatchMode, text_tokens: int) -> int:
    sizes: dict[int, int] = {}
    alive = []  # a freed storage's address could be taken by another

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        alive.append(storage)
        sizes[storage._cdata] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.device("meta"), _ScoresUnwritten(), hooks:
        model = FlexiDiT(config).bfloat16()
        features = torch.empty(1, text_tokens, config.text_channels, dtype=torch.bfloat16)
        condition = Condition(text=Text(features) if config.text_channels else None)
        model(torch.empty(1, config.in_channels, *size, dtype=torch.bfloat16), torch.empty(1), condition, mode=mode)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    return sum(count for address, count in sizes.items() if address not in weights)


def training_report(
    config: FlexiDiTConfig, size: tuple[int, int, int], batches: dict[PatchMode, int], text_tokens: int = 0
) -> list[str]:
    """Describe a training in lines: parameters; tokens, MACs and memory of each mode; sizes on disk."""
    count = num_parameters(config)
    activations = {mode: batch * activation_bytes(config, size, mode, text_tokens) for mode, batch in batches.items()}
    rows = [f"{batches[mode]:>7} {_gib(activations[mode]):>12}" for mode in map(PatchMode, config.modes)]
    peak = count * TRAIN_BYTES + max(activations.values())
    return [
        *_table(config, size, f"{'batch':>7} {'activations':>12}", rows, text_tokens),
        f"training memory about {_gib(peak)} ({TRAIN_BYTES} bytes a parameter, and the largest activations)",
        f"checkpoint {_gib(16 * count)}, exported model {_gib(4 * count)}",
    ]


def sampling_report(
    config: FlexiDiTConfig, size: tuple[int, int, int], batch_size: int, text_tokens: int = 0
) -> list[str]:
    """Describe a sampling in lines: parameters, tokens and MACs of each mode, memory."""
    native = num_tokens(size, config.native) * config.width
    widest = batch_size * native * 2 * (3 + config.mlp_ratio + 4)  # qkv, hidden, and element-wise operands
    return [
        *_table(config, size, "", [""] * len(config.modes), text_tokens),
        f"sampling memory about {_gib(num_parameters(config) * 6 + widest)} (weights, bf16 copy; batch {batch_size})",
    ]


def _table(
    config: FlexiDiTConfig, size: tuple[int, int, int], head: str, rows: list[str], text_tokens: int = 0
) -> list[str]:
    native = macs(config, size, text_tokens=text_tokens)
    lines = [
        f"{num_parameters(config) / 1e6:.1f} M parameters, latent {'x'.join(map(str, size))}, {config.attention}"
        " attention",
        f"{'mode':>8} {'tokens':>7} {'MACs':>12} {'of native':>9} {head}".rstrip(),
    ]
    for mode, row in zip(config.modes, rows, strict=True):
        cost = macs(config, size, mode, text_tokens=text_tokens)
        tokens = num_tokens(size, PatchMode(mode))
        lines.append(f"{mode!s:>8} {tokens:>7} {human(cost):>12} {cost / native:>9.3f} {row}".rstrip())
    return lines


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"
