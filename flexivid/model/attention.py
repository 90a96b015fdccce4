"""Attention over tokens: rotary positions with QK-norm, and the operator chosen for the device.

Tensors are (b, n, k, e). Backends give the same result; which is used depends on device, dtype and length alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BMM_LIMIT_BYTES = 1 << 28  # score matrices above this go to SDPA, which never writes them out

PackedAttention = Callable[[Tensor, Tensor, Tensor, list[int]], Tensor]


class _Rotate(torch.autograd.Function):
    """x cos + swap(x) sin. Its gradient is the turn back: three operations where autograd would take seven."""

    @staticmethod
    def forward(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned = x * cos
        first, second = x.chunk(2, dim=-1)
        for half, partner, factor in zip(turned.chunk(2, dim=-1), (second, first), sin.chunk(2, dim=-1), strict=True):
            half.addcmul_(partner, factor)  # in place: moves half the memory of building swap(x)
        return turned

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _Rotate.apply(grad, cos, -sin), None, None


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn feature i of x (b, n, ..., e) with i + e/2 by the token's angle: RoPE (2104.09864), half-split layout.

    ``cos`` and ``sin`` broadcast to x; no gradient flows to them, and the first half of ``sin`` is negated.
    """
    if not torch.is_grad_enabled():  # calling an autograd function takes longer than turning a few tokens
        return _Rotate.forward(x, cos, sin)
    return _Rotate.apply(x, cos, sin)


def attend(q: Tensor, k: Tensor, v: Tensor, backend: str = "sdpa", *, mask: Tensor | None = None) -> Tensor:
    """Softmax attention, (b, n, k, e) and twice (b, m, k, e) -> (b, n, k, e), in the dtype of ``v``.

    ``backend`` is ``sdpa`` or ``xformers``, which falls back with one warning where it has no operator. ``mask``, bool
    (b, m), is True for keys that may be attended to, at least one a sample; masked attention is always by SDPA.
    """
    q, k = q.to(v.dtype), k.to(v.dtype)  # on GPUs, norms under autocast answer in float32
    if backend == "xformers" and mask is None and _xformers_operator(q.device.type):
        return _xformers_operator(q.device.type)(q, k, v)
    if _prefers_bmm(q, k):
        return _bmm_attention(q, k, v, mask)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    visible = None if mask is None else mask[:, None, None]  # b 1 1 m
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible).transpose(1, 2)


def _prefers_bmm(q: Tensor, k: Tensor) -> bool:
    """On CPUs, bf16 matrix products are 5-10x faster than float32 and SDPA's kernel does not use them (docs/LOG.md)."""
    b, n, heads, _ = q.shape
    return q.device.type == "cpu" and q.dtype == torch.bfloat16 and b * heads * n * k.shape[1] * 2 <= BMM_LIMIT_BYTES


def _bmm_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    b, n, heads, e = q.shape
    q, k, v = (x.transpose(1, 2).reshape(b * heads, -1, e) for x in (q, k, v))
    scores = torch.bmm(q * e**-0.5, k.transpose(1, 2))  # (b k) n m
    if mask is not None:
        scores = scores.masked_fill(~mask.repeat_interleave(heads, 0)[:, None], -torch.inf)
    return torch.bmm(torch.softmax(scores, dim=-1), v).view(b, heads, n, e).transpose(1, 2)


def packed_operator(v: Tensor, backend: str) -> PackedAttention | None:
    """Attention over samples of different lengths in one row, or ``None``: then one call for each length.

    On GPUs xformers where it is asked for and runs, else torch's varlen attention, which takes half precision. Device
    and dtype are those of the values: autocast leaves queries and keys in float32, after their norms.
    """
    if v.device.type != "cuda":
        return None
    if backend == "xformers" and _xformers_operator("cuda"):
        return xformers_packed
    return varlen_packed if v.dtype in (torch.bfloat16, torch.float16) else None


def xformers_packed(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """(1, n, k, e) three times, n = the sum of the lengths -> (1, n, k, e), by xformers' ``BlockDiagonalMask``."""
    from xformers.ops import memory_efficient_attention
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    mask = BlockDiagonalMask.from_seqlens(lengths)
    return memory_efficient_attention(q.to(v.dtype), k.to(v.dtype), v, attn_bias=mask)


def varlen_packed(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """(1, n, k, e) three times, n = the sum of the lengths -> (1, n, k, e), by torch's varlen attention."""
    from torch.nn.attention.varlen import varlen_attn

    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(q.device, non_blocking=True)
    longest = max(lengths)
    out: Any = varlen_attn(q[0].to(v.dtype), k[0].to(v.dtype), v[0], ends, ends, longest, longest)
    return out[None]


@cache
def _xformers_operator(device_type: str):
    """Xformers' attention where it can run on the device, else ``None`` (warned once per device)."""
    try:
        from xformers.ops import memory_efficient_attention

        probe = torch.zeros(1, 8, 1, 32, device=device_type, dtype=torch.float16 if device_type == "cuda" else None)
        memory_efficient_attention(probe, probe, probe)
    except (ImportError, NotImplementedError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        warnings.warn(
            f"got attention_backend='xformers' on {device_type}, where it has no operator ({reason}); using sdpa;"
            " set attention_backend to 'sdpa' to silence this",
            stacklevel=3,
        )
        return None
    return memory_efficient_attention
