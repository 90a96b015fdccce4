"""The network the slow obvious way, from a FlexiDiT's own weights: float64, masks instead of folding."""

import torch
import torch.nn.functional as F

from tests.reference.attention import allowed_pairs, attention, rotary


def norm(x, weight=1.0):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def self_attention(layer, x, angles, grid):
    """A ``SelfAttention`` by mask instead of by folding."""
    q, k, v = (F.linear(x, y.weight, y.bias).unflatten(-1, (layer.num_heads, -1)) for y in (layer.q, layer.k, layer.v))
    q, k = (rotary(norm(y, scale.weight), angles) for y, scale in ((q, layer.q_norm), (k, layer.k_norm)))
    seen = attention(q, k, v, allowed_pairs(layer.axes, grid)).flatten(-2)
    return F.linear(seen, layer.out.weight, layer.out.bias)


def block(layer, x, steering, angles, grid):
    """A ``Block``: each half is normed, scaled and shifted, then gated and added."""
    shift, scale, gate, shift_m, scale_m, gate_m = layer.modulation(steering)[:, None].chunk(6, dim=-1)
    x = x + gate * self_attention(layer.attention, norm(x) * (1 + scale) + shift, angles, grid)
    hidden = layer.mlp_in(norm(x) * (1 + scale_m) + shift_m)
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    return x + gate_m * layer.mlp_out(hidden)
