"""The new layers of one weak mode, in closed form from the native ones. Knows convolutions and linears, no model.

    embedding      w[c s, p] = w_native[c, p] / growth     the native embedding of the average-pooled latent
    de-embedding   y(m) = B y(p)                           bilinear inside the patch in space, duplication in time

with s the folded cells (folding.py). A mode embedding is a constant added to every token of the mode: the bias of
the embedding, which every mode has, also where the native layer has none.

New layers keep their own precision (float32 unless changed), see affine.py: input is cast to it, output is cast back.

Source:
    2502.20126, sec. 3.2.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from flexivid.patching.resize import bilinear_matrix
from flexivid.pretrained.families.family import Fold
from flexivid.pretrained.weak_modes.affine import Affine, like_native, values_of
from flexivid.pretrained.weak_modes.skip import Skip, hidden_width


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


class Embedding(nn.Module):
    """Patches of a weak mode to tokens; with a skip, it also keeps what goes around the transformer."""

    def __init__(self, layer: Any, skip: Skip | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.skip = skip
        self.timestep: Tensor | None = None  # of the call
        self.skipped: Tensor | None = None

    @classmethod
    def grow(
        cls, native: Any, channels: int, how: Fold, *, dtype: torch.dtype = torch.float32, skip_features: int = 0
    ) -> Embedding:
        """From the native embedding of ``channels`` channels, in a model that computes in ``dtype``.

        ``skip_features`` > 0 adds a skip to so many numbers.
        """
        weight, bias = values_of(native, dtype)
        layer, skip = Affine(grow_kernel(weight, channels, how), bias), None
        if skip_features:
            hidden = hidden_width(layer.weight[0].numel(), skip_features)
            skip = Skip(Affine.drawn((hidden, *layer.weight.shape[1:]), like=weight), skip_features)
        return cls(layer, skip)

    def begin(self, timestep: Tensor | None) -> None:
        """Take the time of a call; ``None`` after it, however it ended."""
        self.timestep = None if self.skip is None else timestep
        self.skipped = None

    def forward(self, patches: Tensor) -> Tensor:
        own = patches.to(self.layer.weight.dtype)
        if self.skip is not None:
            self.skipped = self.skip(own, self.timestep)
        return like_native(self.layer(own), patches)


class Unembedding(nn.Module):
    """Tokens of a weak mode to patches, the skip of ``embedding`` added."""

    def __init__(self, layer: Affine, embedding: Embedding) -> None:
        super().__init__()
        self.layer = layer
        self.source = [embedding]  # in a list: its parameters are registered elsewhere

    @classmethod
    def grow(
        cls, native: Any, embedding: Embedding, how: Fold, order: str, *, dtype: torch.dtype = torch.float32
    ) -> Unembedding:
        """From the native de-embedding, whose features are in ``order``, in a model that computes in ``dtype``."""
        weight, bias = values_of(native, dtype)
        return cls(Affine(grow_output(weight, how, order), grow_output(bias, how, order)), embedding)

    def forward(self, tokens: Tensor) -> Tensor:
        patches = self.layer(tokens.to(self.layer.weight.dtype))
        skipped, self.source[0].skipped = self.source[0].skipped, None
        if skipped is not None:
            patches = patches + skipped.reshape(patches.shape)
        return like_native(patches, tokens)
