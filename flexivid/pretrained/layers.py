"""The new layers of one weak mode, in closed form from the native ones. Knows convolutions and linears, no model.

    embedding      w[c s, p] = w_native[c, p] / growth     the native embedding of the average-pooled latent
    de-embedding   y(m) = B y(p)                           bilinear inside the patch in space, duplication in time

with s the folded cells (folding.py). A mode embedding is a constant added to every token of the mode: the bias of
the embedding, which every mode has, also where the native layer has none.

New layers keep their own precision (float32 unless changed): input is cast to it, output is cast back.

Source:
    2502.20126, sec. 3.2.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from flexivid.patching.resize import bilinear_matrix
from flexivid.pretrained.family import Fold
from flexivid.pretrained.skip import Skip, hidden_width


def grow_kernel(weight: Tensor, channels: int, how: Fold) -> Tensor:
    """Embedding weights of a weak mode: (d, c, ...) or (d, c p) -> the same with ``growth`` times the channels.

    Example:
        >>> from flexivid.patching.shapes import PatchMode, Size3
        >>> grow_kernel(torch.ones(8, 3, 1, 2, 2), 3, Fold(Size3(2, 2, 2), PatchMode("1x2x2"))).shape
        torch.Size([8, 24, 1, 2, 2])
    """
    cells = weight.flatten(1).unflatten(1, (channels, -1))  # (d, c, p)
    grown = cells.repeat_interleave(how.growth.volume, dim=1) / how.growth.volume  # (d, c s, p)
    return grown.reshape(weight.shape[0], -1, *weight.shape[2:])


def grow_output(weight: Tensor, how: Fold, order: str) -> Tensor:
    """De-embedding weights or biases of a weak mode: (features, ...) -> ``growth`` times the features.

    Args:
        weight: (c pt ph pw, ...), features in ``order``.
        how: Growth and native patch.
        order: einops order of the features, e.g. ``"pt ph pw c"``.

    Example:
        >>> from flexivid.patching.shapes import PatchMode, Size3
        >>> how = Fold(Size3(1, 1, 2), PatchMode("1x1x2"))
        >>> grow_output(torch.tensor([0.0, 1.0]), how, "pt ph pw c").tolist()   # (pw, gw): 0, 1/4, 3/4, 1
        [0.0, 0.25, 0.75, 1.0]
    """
    growth, native = how
    sides = {"pt": native.t, "ph": native.h, "pw": native.w}
    y = rearrange(weight.reshape(len(weight), -1), f"({order}) d -> c pt ph pw d", **sides)  # d = 1 for a bias
    for axis, side, factor in zip((2, 3), native[1:], growth[1:], strict=True):
        matrix = bilinear_matrix(side, side * factor).to(y)
        y = torch.tensordot(matrix, y, dims=([1], [axis])).movedim(0, axis)
    y = y.repeat_interleave(growth.t, dim=1)
    grown = order.replace("c", "c gt gh gw")
    sides |= {"gt": growth.t, "gh": growth.h, "gw": growth.w}
    y = rearrange(y, f"c (pt gt) (ph gh) (pw gw) d -> ({grown}) d", **sides)
    return y.reshape(-1, *weight.shape[1:])


def _grown(native: Any, inputs: int, outputs: int) -> Any:
    """A layer of the native one's kind with other widths and a bias, not initialised."""
    place = {"device": native.weight.device, "dtype": torch.float32}
    plain = native.weight.is_floating_point()
    if plain and isinstance(native, nn.Linear):
        return nn.utils.skip_init(nn.Linear, inputs, outputs, **place)
    if plain and isinstance(native, (nn.Conv2d, nn.Conv3d)) and native.kernel_size == native.stride:
        return nn.utils.skip_init(type(native), inputs, outputs, native.kernel_size, native.stride, **place)
    raise ValueError(
        f"got a patch layer {type(native).__name__}; expected a linear or a convolution whose stride is its kernel;"
        " flexify the model before it is quantised or compiled"
    )


class Embedding(nn.Module):
    """Patches of a weak mode to tokens; with a skip, it also keeps what goes around the transformer."""

    def __init__(self, layer: Any, skip: Skip | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.skip = skip
        self.timestep: Tensor | None = None  # of the call
        self.skipped: Tensor | None = None

    @classmethod
    def grow(cls, native: Any, channels: int, how: Fold, *, skip_features: int = 0) -> Embedding:
        """From the native embedding of ``channels`` channels; ``skip_features`` > 0 adds a skip to so many numbers."""
        inputs = (native.in_features if isinstance(native, nn.Linear) else channels) * how.growth.volume
        layer, skip = _grown(native, inputs, len(native.weight)), None
        with torch.no_grad():
            layer.weight.copy_(grow_kernel(native.weight.float(), channels, how))
            layer.bias.copy_(torch.zeros_like(layer.bias) if native.bias is None else native.bias)
        if skip_features:
            first = _grown(native, inputs, hidden_width(layer.weight[0].numel(), skip_features))
            first.reset_parameters()
            skip = Skip(first, skip_features)
        return cls(layer, skip)

    def forward(self, patches: Tensor) -> Tensor:
        own = patches.to(self.layer.weight.dtype)
        if self.skip is not None:
            self.skipped = self.skip(own, self.timestep)
        return self.layer(own).to(patches.dtype)


class Unembedding(nn.Module):
    """Tokens of a weak mode to patches, the skip of ``embedding`` added."""

    def __init__(self, layer: nn.Linear, embedding: Embedding) -> None:
        super().__init__()
        self.layer = layer
        self.source = [embedding]  # in a list: its parameters are registered elsewhere

    @classmethod
    def grow(cls, native: Any, embedding: Embedding, how: Fold, order: str) -> Unembedding:
        """From the native de-embedding, whose features are in ``order``."""
        layer = _grown(native, native.in_features, native.out_features * how.growth.volume)
        with torch.no_grad():
            layer.weight.copy_(grow_output(native.weight.float(), how, order))
            bias = native.weight.new_zeros(native.out_features) if native.bias is None else native.bias
            layer.bias.copy_(grow_output(bias.float(), how, order))
        return cls(layer, embedding)

    def forward(self, tokens: Tensor) -> Tensor:
        patches = self.layer(tokens.to(self.layer.weight.dtype))
        skipped, self.source[0].skipped = self.source[0].skipped, None
        if skipped is not None:
            patches = patches + skipped.reshape(patches.shape)
        return patches.to(tokens.dtype)
