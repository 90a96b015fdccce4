"""The patch layers of one weak mode, in closed form from the native ones. Knows convolutions and linears, no model.

    embedding      w[c s, p] = w_native[c, p] / growth     the native embedding of the average-pooled latent
    de-embedding   y(m) = B y(p)                           bilinear inside the patch in space, duplication in time

with s the folded cells (folding.py). A mode embedding is a constant added to every token of the mode: the bias of
the embedding, which every mode has, also where the native layer has none.

A skip goes around the transformer: a token of a large patch has to carry all of its cells, but where little noise is
left, most of the answer is in the cells themselves. A small network of two layers, zero at first, gives it, and learns
from the time how much of it counts.

Source:
    2502.20126, sec. 3.2. Skip: DDiT (2602.16968) has one linear, the same at all times; a share of the input that
    depends on the time: EDM (2206.00364), sec. 5.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from einops import rearrange
from torch import Tensor, nn

from flexivid.patching.resize import bilinear_matrix
from flexivid.pretrained.families.folding import Fold
from flexivid.pretrained.weak_modes.affine import Affine, like_native, values_of

TIME_FEATURES = 64


def grow_kernel(weight: Tensor, channels: int, fold: Fold) -> Tensor:
    """Embedding weights of a weak mode: (d, c, ...) or (d, c p) -> the same with ``growth`` times the channels."""
    cells = weight.flatten(1).unflatten(1, (channels, -1))  # (d, c, p)
    grown = cells.repeat_interleave(fold.growth.volume, dim=1) / fold.growth.volume  # (d, c s, p)
    return grown.reshape(weight.shape[0], -1, *weight.shape[2:])


def grow_output(weight: Tensor, fold: Fold, order: str) -> Tensor:
    """De-embedding weights or biases of a weak mode: (features, ...) -> ``growth`` times the features.

    ``order`` is the einops order of the features, e.g. ``"pt ph pw c"``.

    Example:
        >>> from flexivid.patching.shapes import PatchMode
        >>> fold = Fold.between(PatchMode("1x1x4"), PatchMode("1x1x2"))
        >>> grow_output(torch.tensor([0.0, 1.0]), fold, "pt ph pw c").tolist()   # (pw, gw): 0, 1/4, 3/4, 1
        [0.0, 0.25, 0.75, 1.0]
    """
    growth, native = fold
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


def hidden_width(inputs: int, outputs: int) -> int:
    """Hidden features: two for each number of a patch, which bend a line once."""
    return 2 * max(inputs, outputs)


class Skip(nn.Module):
    """The network around the transformer: patches (b, ...) -> a term of the output patches, (b, n, outputs)."""

    def __init__(self, first: Any, outputs: int) -> None:
        super().__init__()
        weight = first.weight.detach()
        self.first = first
        self.time = Affine.drawn((len(weight), TIME_FEATURES), like=weight, bias=False)
        self.last = Affine(weight.new_zeros(outputs, len(weight)), weight.new_zeros(outputs))

    def forward(self, patches: Tensor, timestep: Tensor) -> Tensor:
        """(b, ...) and times from 0 to 1000, one for each sample, frame or token: (b, ...), (1,) or ()."""
        hidden = self.first(patches)
        is_linear = self.first.weight.ndim == 2
        hidden = hidden.flatten(1, -2) if is_linear else hidden.flatten(2).transpose(1, 2)  # (b, n, h)
        times = timestep.reshape(timestep.shape[0] if timestep.ndim else 1, -1)
        features = get_timestep_embedding(times.flatten(), TIME_FEATURES, downscale_freq_shift=0.0)
        gates = self.time(features.to(hidden.dtype)).unflatten(0, times.shape)  # (b or fewer, frames or tokens, h)
        gates = gates.repeat_interleave(len(hidden) // times.shape[0], 0)  # some families have frames in the batch
        gates = gates.repeat_interleave(hidden.shape[1] // times.shape[1], 1)
        return self.last(F.gelu(hidden + gates))


class Embedding(nn.Module):
    """Patches of a weak mode to tokens; with a skip, it also stores the skip's output for ``Unembedding``."""

    def __init__(self, layer: Any, skip: Skip | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.skip = skip
        self.timestep: Tensor | None = None  # of the call
        self.skipped: Tensor | None = None

    @classmethod
    def grow(
        cls, native: Any, channels: int, fold: Fold, *, dtype: torch.dtype = torch.float32, skip_features: int = 0
    ) -> Embedding:
        """From the native embedding of ``channels`` channels, in a model that computes in ``dtype``.

        ``skip_features`` > 0 adds a skip to output patches of so many numbers.
        """
        weight, bias = values_of(native, dtype)
        layer, skip = Affine(grow_kernel(weight, channels, fold), bias), None
        if skip_features:
            hidden = hidden_width(layer.weight[0].numel(), skip_features)
            skip = Skip(Affine.drawn((hidden, *layer.weight.shape[1:]), like=weight), skip_features)
        return cls(layer, skip)

    def begin(self, timestep: Tensor | None) -> None:
        """Set the time of a call, or ``None`` after it."""
        self.timestep = None if self.skip is None else timestep
        self.skipped = None

    def forward(self, patches: Tensor) -> Tensor:
        cast = patches.to(self.layer.weight.dtype)
        if self.skip is not None:
            self.skipped = self.skip(cast, self.timestep)
        return like_native(self.layer(cast), patches)


class Unembedding(nn.Module):
    """Tokens of a weak mode to patches, the skip of ``embedding`` added."""

    def __init__(self, layer: Affine, embedding: Embedding) -> None:
        super().__init__()
        self.layer = layer
        self.source = [embedding]  # in a list: its parameters are registered elsewhere

    @classmethod
    def grow(
        cls, native: Any, embedding: Embedding, fold: Fold, order: str, *, dtype: torch.dtype = torch.float32
    ) -> Unembedding:
        """From the native de-embedding, whose features are in ``order``, in a model that computes in ``dtype``."""
        weight, bias = values_of(native, dtype)
        return cls(Affine(grow_output(weight, fold, order), grow_output(bias, fold, order)), embedding)

    def forward(self, tokens: Tensor) -> Tensor:
        patches = self.layer(tokens.to(self.layer.weight.dtype))
        skipped, self.source[0].skipped = self.source[0].skipped, None
        if skipped is not None:
            patches = patches + skipped.reshape(patches.shape)
        return like_native(patches, tokens)
