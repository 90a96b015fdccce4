"""Quantised linears as libraries make them, imitated: integers and a scale for each row."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """Like bitsandbytes and others that put a class of their own in the place of a linear."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scale = (weight.abs().amax(1, keepdim=True) / 127).clamp_min(1e-12)
        self.weight = nn.Parameter((weight / scale).round().to(torch.int8), requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, (self.weight * self.scale).to(x.dtype), self.bias)


class ScaledLinear(nn.Linear):
    """Like checkpoints in scaled float8: a linear whose weights are not what it computes with."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None)
        scale = linear.weight.detach().float().abs().max() / 448
        self.weight = nn.Parameter(
            (linear.weight.detach().float() / scale).to(torch.float8_e4m3fn), requires_grad=False
        )
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, (self.weight.float() * self.scale).to(x.dtype), self.bias)


class Int8Tensor(Tensor):
    """Like torchao: a tensor that says it is bfloat16 and holds integers, in a linear that stays an ``nn.Linear``."""

    @staticmethod
    def __new__(cls, whole: Tensor, scale: Tensor, dtype: torch.dtype) -> Int8Tensor:
        return Tensor._make_wrapper_subclass(cls, whole.shape, dtype=dtype, device=whole.device)

    def __init__(self, whole: Tensor, scale: Tensor, dtype: torch.dtype) -> None:
        self.whole, self.scale = whole, scale

    def __repr__(self) -> str:
        return f"Int8Tensor({tuple(self.shape)})"

    def dequantize(self) -> Tensor:
        return (self.whole * self.scale).to(self.dtype)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("detach", "alias"):
            return cls(args[0].whole, args[0].scale, args[0].dtype)
        if name not in ("t", "transpose", "mm", "addmm", "linear", "view"):
            raise NotImplementedError(f"{name} of an Int8Tensor")
        plain = [value.dequantize() if isinstance(value, cls) else value for value in args]
        return function(*plain, **(kwargs or {}))


def quantise_weights(model: nn.Module) -> nn.Module:
    """Put tensors that hold integers in the place of the weights of linears, as torchao does."""
    for path, module in model.named_modules():
        if type(module) is nn.Linear and "time_embed" not in path:
            weight = module.weight.detach()
            scale = (weight.float().abs().amax(1, keepdim=True) / 127).clamp_min(1e-12)
            whole = (weight.float() / scale).round().to(torch.int8)
            module.weight = nn.Parameter(Int8Tensor(whole, scale, weight.dtype), requires_grad=False)
    return model


def quantise(model: nn.Module, kind: type[Int8Linear] | type[ScaledLinear]) -> nn.Module:
    """Put ``kind`` in the place of linears, but not where classes ask for the dtype of their time embedding."""
    for path, parent in list(model.named_modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and "time_embed" not in path:
                setattr(parent, name, kind(child))
    return model
