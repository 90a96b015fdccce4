"""Linears and convolutions as values: new ones, and those of a model, in whatever format it stores them.

A new layer is not an ``nn.Linear`` or an ``nn.Conv3d``, since libraries look for these to cast, quantise or adapt a
model. The dtype that weights are stored in is not the one to compute in: layerwise casting stores float8, quantisation
integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {4: F.conv2d, 5: F.conv3d}  # by the axes of the weights
READABLE = (nn.Linear, nn.Conv2d, nn.Conv3d)  # their weights are what they compute with; a subclass may scale them
PLAIN = (Tensor, nn.Parameter, DTensor)  # tensors that hold their numbers as they are
UNIT = 256  # length of the vectors that a layer is called with: in half precision a large bias hides small weights
LEAST_BYTES = 2  # of a number to compute with; anything smaller is a form of storage


class Affine(nn.Module):
    """A linear map, or a convolution whose stride is its kernel. Computes in the precision of its weights.

    It moves to the device of its input, since code that moves or offloads the model does not know of it. Weights are
    (outputs, inputs), or (outputs, channels, sides of the kernel...).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    @classmethod
    def drawn(cls, shape: tuple[int, ...], *, like: Tensor, bias: bool = True) -> Affine:
        """Draw weights of ``shape`` as PyTorch does for its layers, on the device and in the dtype of ``like``."""
        weight, limit = like.new_empty(shape), torch.Size(shape[1:]).numel() ** -0.5
        nn.init.uniform_(weight, -limit, limit)
        return cls(weight, nn.init.uniform_(like.new_empty(shape[0]), -limit, limit) if bias else None)

    @property
    def in_features(self) -> int:
        """Inputs of a linear; channels of a convolution."""
        return self.weight.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs), or (b, channels, cells...): the output has the dtype of the input, or of autocast."""
        if self.weight.dtype.itemsize < LEAST_BYTES:
            raise ValueError(
                f"got weights of a weak mode in {self.weight.dtype}; expected 16 bits or more, since they were trained;"
                " cast the model layer by layer (enable_layerwise_casting), which leaves them as they are"
            )
        if x.device not in (self.weight.device, torch.device("meta")):
            with torch.inference_mode(False):
                self.to(x.device)
        weight = self.weight.to(x.device)  # a copy on the meta device, where only shapes are asked for: values stay
        bias = None if self.bias is None else self.bias.to(x.device)
        cast = x.to(weight.dtype)
        if weight.ndim == 2:
            return like_native(F.linear(cast, weight, bias), x)
        return like_native(CONVOLUTIONS[weight.ndim](cast, weight, bias, stride=tuple(weight.shape[2:])), x)


def like_native(output: Tensor, x: Tensor) -> Tensor:
    """Cast an output to the dtype of a native layer's output: that of ``x``, or under autocast the one it chose."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return output
    return output.to(x.dtype)


def compute_dtype(model: nn.Module) -> torch.dtype:
    """Return the dtype that a model computes in, whatever its weights are stored in.

    That is ``model.dtype`` of diffusers, which knows of layerwise casting and of modules that stay in float32 beside
    others in half precision; for other models the dtype of the first weights that can be computed with.
    """
    dtypes = [getattr(model, "dtype", None), *(weight.dtype for weight in model.parameters())]
    for dtype in dtypes:
        if isinstance(dtype, torch.dtype) and dtype.is_floating_point and dtype.itemsize >= LEAST_BYTES:
            return dtype
    return torch.float32


def new_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of new weights beside a model that computes in ``dtype``: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


@torch.no_grad()
def values_of(layer: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Copy weights and bias of a linear or convolution in floating point, in whatever format it stores them.

    If they cannot be read, as in the quantised layers of any library, the layer is called in ``dtype``: each column of
    the weights is its output for a unit vector. Both are in float32, or float64 where the layer is; a missing bias is
    zero. ``ValueError`` if the layer is neither, or cannot be called.
    """
    inputs = _unit_inputs(layer, dtype)
    if not is_plain(layer):
        return _called(layer, inputs)
    stored = layer.weight.detach()
    weight = stored.to(new_dtype(stored.dtype) if stored.dtype.itemsize >= LEAST_BYTES else torch.float32, copy=True)
    return weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().to(weight, copy=True)


def _called(layer: Any, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and bias from the layer's outputs for unit vectors."""
    try:
        zero = layer(torch.zeros_like(inputs[:1]))
        outputs = layer(inputs * UNIT).to(new_dtype(inputs.dtype)) / UNIT
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:150]
        raise ValueError(
            f"got a patch layer {type(layer).__name__} that does not answer in {inputs.dtype} ({reason}); expected a"
            " linear or a convolution; load the model with its patch layers in floating point: leave them out of the"
            " quantisation"
        ) from error
    bias = zero.to(outputs.dtype).flatten()
    weight = outputs.reshape(len(inputs), -1) - bias / UNIT  # (inputs, outputs)
    return weight.T.reshape(-1, *inputs.shape[1:]).contiguous(), bias


def is_plain(layer: Any) -> bool:
    """Whether a layer's weights can be read: they are floating point, and it computes with them as they are."""
    weight = getattr(layer, "weight", None)
    return type(layer) in READABLE and type(weight) in PLAIN and layer.weight.is_floating_point()


def _unit_inputs(layer: Any, dtype: torch.dtype) -> Tensor:
    """Unit vectors (inputs, inputs); of a convolution, one patch each: (inputs, channels, sides...)."""
    options: dict[str, Any] = {"device": device_of(layer), "dtype": dtype}
    if hasattr(layer, "in_features") and callable(layer):
        return torch.eye(layer.in_features, **options)
    if hasattr(layer, "kernel_size") and layer.kernel_size == getattr(layer, "stride", None):
        sides = (layer.in_channels, *layer.kernel_size)
        return torch.eye(torch.Size(sides).numel(), **options).reshape(-1, *sides)
    raise ValueError(
        f"got a patch layer {type(layer).__name__}; expected a linear or a convolution whose stride is its kernel;"
        " flexify the model before others put layers of their own there"
    )


def stored_values(value: object) -> Tensor | None:
    """Return an entry of a state dict as plain numbers; ``None`` for other entries, like settings of a quantisation."""
    if not isinstance(value, Tensor):
        return None
    is_packed = value.is_quantized or type(value) not in PLAIN
    return value.dequantize() if is_packed else value


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module's first weights, or else of its first buffer; the CPU for one without."""
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))
