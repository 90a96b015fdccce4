"""What a model needs before anything is run: parameters, tokens, MACs, memory. For ``--dry-run``.

Activation memory is not guessed: a forward pass on the meta device says which tensors autograd would keep. Attention
counts as the kernels that never write the scores out; on CPUs, short sequences take a path that does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from flexivid.budget.cost import human, macs
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.patching.shapes import PatchMode, Size3, num_tokens

TRAIN_BYTES = 20  # a parameter in training: weight, gradient, two AdamW moments and the EMA, float32 each


class ModeNeeds(NamedTuple):
    """What one mode takes.

    Args:
        mode: Patch mode.
        tokens: Length of the sequence.
        macs: MACs of a forward pass of one sample.
        batch: Samples in a training step.
        train_bytes: Activations that a training step keeps for its backward pass.
    """

    mode: PatchMode
    tokens: int
    macs: int
    batch: int
    train_bytes: int


def num_parameters(config: FlexiDiTConfig) -> int:
    """Number of learned values, without making them.

    Example:
        >>> num_parameters(FlexiDiTConfig.preset("XL", in_channels=4, modes=["1x2x2"], num_classes=1000)) // 10**6
        674
    """
    with torch.device("meta"):
        return FlexiDiT(config).num_parameters


def mode_needs(config: FlexiDiTConfig, size: tuple[int, int, int], batches: dict[PatchMode, int]) -> list[ModeNeeds]:
    """Needs of every mode at its batch size, activations in bf16."""
    return [
        ModeNeeds(
            mode,
            num_tokens(size, mode),
            macs(config, size, mode),
            batches[mode],
            batches[mode] * activation_bytes(config, size, mode),
        )
        for mode in (PatchMode(mode) for mode in config.modes)
    ]


def activation_bytes(config: FlexiDiTConfig, size: tuple[int, int, int], mode: PatchMode) -> int:
    """Bytes that autograd keeps for the backward pass of one sample, in bf16, weights not counted.

    Args:
        config: Shape of the network.
        size: Latent size (t, h, w).
        mode: Patch mode.
    """
    shallow, deep = (_saved_bytes(replace(config, depth=depth), Size3(*size), mode) for depth in (2, 4))
    return shallow + (deep - shallow) * (config.depth - 2) // 2


class _ScoresUnwritten(TorchFunctionMode):
    """Attention as in training: the meta device alone would fall back to writing the scores out."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args, **(kwargs or {}))[0]
        return func(*args, **(kwargs or {}))


def _saved_bytes(config: FlexiDiTConfig, size: Size3, mode: PatchMode) -> int:
    kept: dict[int, int] = {}
    alive = []  # storages must not be freed while they are told apart by their address

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        alive.append(storage)
        kept[storage._cdata] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.device("meta"), _ScoresUnwritten(), hooks:
        model = FlexiDiT(config).bfloat16()
        model(torch.empty(1, config.in_channels, *size, dtype=torch.bfloat16), torch.empty(1), mode=mode)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    return sum(size for address, size in kept.items() if address not in weights)


def training_report(config: FlexiDiTConfig, size: tuple[int, int, int], batches: dict[PatchMode, int]) -> list[str]:
    """Lines for people before training: parameters, one line a mode, memory, and sizes on disk."""
    needs = mode_needs(config, size, batches)
    count = num_parameters(config)
    rows = [f"{need.batch:>7} {_gib(need.train_bytes):>12}" for need in needs]
    peak = count * TRAIN_BYTES + max(need.train_bytes for need in needs)
    return [
        *_table(config, size, f"{'batch':>7} {'activations':>12}", rows),
        f"training memory about {_gib(peak)} ({TRAIN_BYTES} bytes a parameter, and the largest activations)",
        f"checkpoint {_gib(16 * count)}, exported model {_gib(4 * count)}",
    ]


def sampling_report(config: FlexiDiTConfig, size: tuple[int, int, int], batch_size: int) -> list[str]:
    """Lines for people before sampling: parameters, one line a mode, memory."""
    native = num_tokens(size, config.native) * config.width
    widest = batch_size * native * 2 * (3 + config.mlp_ratio + 4)  # qkv, hidden, and what an element-wise step holds
    return [
        *_table(config, size, "", [""] * len(config.modes)),
        f"sampling memory about {_gib(num_parameters(config) * 6 + widest)} (weights, bf16 copy, {batch_size} videos)",
    ]


def _table(config: FlexiDiTConfig, size: tuple[int, int, int], head: str, rows: list[str]) -> list[str]:
    native = macs(config, size)
    lines = [
        f"{num_parameters(config) / 1e6:.1f} M parameters, latent {'x'.join(map(str, size))}, {config.attention}"
        " attention",
        f"{'mode':>8} {'tokens':>7} {'MACs':>12} {'of native':>9} {head}".rstrip(),
    ]
    for mode, row in zip(config.modes, rows, strict=True):
        cost = macs(config, size, mode)
        tokens = num_tokens(size, PatchMode(mode))
        lines.append(f"{mode!s:>8} {tokens:>7} {human(cost):>12} {cost / native:>9.3f} {row}".rstrip())
    return lines


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"
