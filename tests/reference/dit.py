"""DiT and Latte in the plainest words: one function over the published names of weights, nothing of diffusers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Sines, then cosines: (n,) -> (n, width)."""
    angles = positions[:, None].double() / 10000 ** (torch.arange(width // 2).double() / (width // 2))
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def table_of(side: int, width: int) -> Tensor:
    """Positions of a square of patches, columns in the first half of the features: (1, side side, width)."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.cat([sinusoids(axis.flatten(), width // 2) for axis in (columns, rows)], dim=1)[None]


def _linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


def _block(weights: Weights, name: str, x: Tensor, steering: Tensor, heads: int) -> Tensor:
    parts = _linear(weights, f"{name}.adaLN_modulation.1", F.silu(steering)).chunk(6, dim=1)
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parts
    b, n, d = x.shape
    qkv = _linear(weights, f"{name}.attn.qkv", _modulated(x, shift_a, scale_a))
    q, k, v = qkv.reshape(b, n, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
    seen = ((q @ k.transpose(-2, -1)) / math.sqrt(d // heads)).softmax(-1) @ v
    x = x + gate_a[:, None] * _linear(weights, f"{name}.attn.proj", seen.transpose(1, 2).reshape(b, n, d))
    hidden = F.gelu(_linear(weights, f"{name}.mlp.fc1", _modulated(x, shift_m, scale_m)), approximate="tanh")
    return x + gate_m[:, None] * _linear(weights, f"{name}.mlp.fc2", hidden)


def published_forward(weights: Weights, video: Tensor, time: Tensor, label: Tensor, heads: int) -> Tensor:
    """(b, c, t, h, w) -> (b, out, t, h, w); frames stay alone where the weights have no ``temp_embed`` (DiT)."""
    b, _, t, h, w = video.shape
    kernel = weights["x_embedder.proj.weight"]
    patch = kernel.shape[-1]
    x = F.conv2d(video.transpose(1, 2).flatten(0, 1), kernel, weights["x_embedder.proj.bias"], stride=patch)
    x = x.flatten(2).transpose(1, 2) + weights["pos_embed"]
    angles = time[:, None].float() * torch.exp(-math.log(10000) * torch.arange(128) / 128)
    hidden = F.silu(_linear(weights, "t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()], dim=1)))
    steering = _linear(weights, "t_embedder.mlp.2", hidden)
    if "y_embedder.embedding_table.weight" in weights:
        steering = steering + weights["y_embedder.embedding_table.weight"][label]
    per_frame, per_place = (steering.repeat_interleave(count, dim=0) for count in (t, x.shape[1]))
    depth = len([name for name in weights if name.endswith(".attn.qkv.weight")])
    for number in range(depth):
        if "temp_embed" in weights and number % 2:
            x = x.unflatten(0, (b, t)).transpose(1, 2).flatten(0, 1)
            x = x + weights["temp_embed"] if number == 1 else x
            x = _block(weights, f"blocks.{number}", x, per_place, heads)
            x = x.unflatten(0, (b, -1)).transpose(1, 2).flatten(0, 1)
        else:
            x = _block(weights, f"blocks.{number}", x, per_frame, heads)
    shift, scale = _linear(weights, "final_layer.adaLN_modulation.1", F.silu(per_frame)).chunk(2, dim=1)
    x = _linear(weights, "final_layer.linear", _modulated(x, shift, scale))
    x = x.reshape(b, t, h // patch, w // patch, patch, patch, -1).permute(0, 6, 1, 2, 4, 3, 5)
    return x.reshape(b, -1, t, h, w)
