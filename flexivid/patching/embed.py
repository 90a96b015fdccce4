"""Latent <-> tokens for every mode, from one underlying kernel. Torch layers; knows no transformer.

A latent that a mode does not divide is padded by repeating its last frame, row and column, and cropped on the way back,
so that every clip size works with every mode (causal autoencoders give odd frame counts).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from flexivid.patching.resize import Resize, embedding_dual, output_dual, pi_resize
from flexivid.patching.shapes import PatchMode, Size3, grid_of, underlying_patch

CONV_CHANNELS = 16  # inside the convolution over the output


def pad_to(latent: Tensor, mode: PatchMode) -> Tensor:
    """Repeat the last frame, row and column of a latent (b, c, t, h, w) until ``mode`` divides its size."""
    for axis, patch in zip((2, 3, 4), mode, strict=True):
        missing = -latent.shape[axis] % patch
        if missing:
            last = latent.narrow(axis, latent.shape[axis] - 1, 1)
            latent = torch.cat((latent, *[last] * missing), dim=axis)
    return latent


def detail(latent: Tensor, mode: PatchMode, native: PatchMode) -> Tensor:
    """What large patches cannot tell apart: the latent less its means over the cells that stand for one native cell.

    (b, c, t, h, w) -> the same; 0 in the native mode.

    Example:
        >>> x = torch.tensor([1.0, 3.0]).view(1, 1, 2, 1, 1)
        >>> detail(x, PatchMode("2x2x2"), PatchMode("1x2x2")).flatten().tolist()
        [-1.0, 1.0]
    """
    padded = pad_to(latent, mode)
    cells = [side * small // large for side, small, large in zip(padded.shape[2:], native, mode, strict=True)]
    means = F.interpolate(F.interpolate(padded, cells, mode="area"), padded.shape[2:], mode="nearest-exact")
    return latent - means[:, :, : latent.shape[2], : latent.shape[3], : latent.shape[4]]


def patchify(latent: Tensor, mode: PatchMode) -> Tensor:
    """Cut into patches: (b, c, t, h, w) -> (b, n, c pt ph pw), padded where the mode does not divide the size."""
    sides = {"pt": mode.t, "ph": mode.h, "pw": mode.w}
    return rearrange(pad_to(latent, mode), "b c (gt pt) (gh ph) (gw pw) -> b (gt gh gw) (c pt ph pw)", **sides)


def unpatchify(patches: Tensor, mode: PatchMode, size: Size3) -> Tensor:
    """Put patches in (t, h, w) order back and crop to ``size``: (b, n, c pt ph pw) -> (b, c, t, h, w)."""
    grid = grid_of(size, mode)
    sides = {"gt": grid.t, "gh": grid.h, "gw": grid.w, "pt": mode.t, "ph": mode.h, "pw": mode.w}
    latent = rearrange(patches, "b (gt gh gw) (c pt ph pw) -> b c (gt pt) (gh ph) (gw pw)", **sides)
    return latent[:, :, : size.t, : size.h, : size.w]


def zero(layer: Any) -> Any:
    """Set weight and bias of a layer to zero; returns it."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class _FlexiKernel(nn.Module):
    """What embedding and de-embedding share: the 1-D duals of each mode, as buffers that are not saved."""

    def __init__(self, modes: tuple[PatchMode, ...], dual: Callable[[int, int], Tensor]) -> None:
        super().__init__()
        self.modes = modes
        self.underlying = underlying_patch(modes)
        for mode in modes:
            for axis, old, new in zip("thw", self.underlying, mode, strict=True):
                matrix = dual(old, new).float().to(torch.get_default_device())
                self.register_buffer(f"dual_{axis}_{mode}", matrix, persistent=False)

    def duals(self, mode: PatchMode) -> tuple[Tensor, Tensor, Tensor]:
        """The maps from the underlying patch to ``mode``, one an axis, (p, p')."""
        return tuple(self.get_buffer(f"dual_{axis}_{mode}") for axis in "thw")  # type: ignore[return-value]

    def lift(self, kernel: Tensor) -> Tensor:
        """The least underlying kernel whose resize to the native mode is ``kernel``: Q^+ w (2502.20126, sec. 3.1)."""
        return pi_resize(kernel, *(torch.linalg.pinv(dual.double()).to(kernel) for dual in self.duals(self.modes[0])))


class FlexiPatchEmbed(_FlexiKernel):
    """Embedding of patches of any mode, the native one first, by one underlying kernel.

    ``resize`` says how sides shrink to less than half, see ``embedding_dual``. With ``area``, a new weak mode embeds
    the latent averaged over the cells of each native one, however much larger its patch is.
    """

    def __init__(self, in_channels: int, width: int, modes: tuple[PatchMode, ...], *, resize: Resize = "area") -> None:
        super().__init__(modes, partial(embedding_dual, resize=resize))
        self.in_channels = in_channels
        native = torch.empty(width, in_channels, *modes[0])
        nn.init.xavier_uniform_(native.view(width, -1))
        self.weight = nn.Parameter(torch.empty(width, in_channels, *self.underlying))
        self.bias = nn.Parameter(torch.zeros(width))
        if not self.weight.is_meta:
            with torch.no_grad():
                self.weight.copy_(self.lift(native))

    def kernel(self, mode: PatchMode) -> Tensor:
        """Embedding weights of a mode, (d, c, pt, ph, pw)."""
        return pi_resize(self.weight, *self.duals(mode))

    def layer(self, mode: PatchMode) -> tuple[Tensor, Tensor]:
        """Weight (d, c pt ph pw) and bias (d,) of the linear layer that embeds the patches of a mode."""
        return self.kernel(mode).flatten(1), self.bias

    def forward(self, latent: Tensor, mode: PatchMode) -> Tensor:
        """(b, c, t, h, w) -> tokens (b, n, d)."""
        return F.linear(patchify(latent, mode), *self.layer(mode))


class FlexiPatchOutput(_FlexiKernel):
    """De-embedding of tokens into patches of any mode, the native one first, by one underlying kernel and bias."""

    def __init__(self, width: int, out_channels: int, modes: tuple[PatchMode, ...]) -> None:
        super().__init__(modes, output_dual)
        self.out_channels = out_channels
        self.weight = nn.Parameter(torch.zeros(width, out_channels, *self.underlying))  # zero: DiT's final layer
        self.bias = nn.Parameter(torch.zeros(out_channels, *self.underlying))

    def kernel(self, mode: PatchMode) -> tuple[Tensor, Tensor]:
        """De-embedding weights (d, c, pt, ph, pw) and bias (c, pt, ph, pw) of a mode."""
        duals = self.duals(mode)
        return pi_resize(self.weight, *duals), pi_resize(self.bias, *duals)

    def layer(self, mode: PatchMode) -> tuple[Tensor, Tensor]:
        """Weight (c pt ph pw, d) and bias (c pt ph pw,) of the linear layer that makes the patches of a mode."""
        weight, bias = self.kernel(mode)
        return weight.flatten(1).T, bias.flatten()

    def forward(self, tokens: Tensor, mode: PatchMode, size: Size3) -> Tensor:
        """Tokens (b, n, d) -> (b, c, t, h, w)."""
        return unpatchify(F.linear(tokens, *self.layer(mode)), mode, size)


class OutputConv(nn.Module):
    """y + pointwise(gelu(conv(y))) with a 3x3x3 convolution; the same for all patch modes, and the identity at first.

    Each token draws its patch alone, so borders between patches may show; the convolution sees across them. Beyond the
    edge, the last frame, row and column are repeated, as where a mode does not divide the size.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Conv3d(channels, CONV_CHANNELS, 3, padding=1, padding_mode="replicate")
        self.gather = zero(nn.Conv3d(CONV_CHANNELS, channels, 1))

    def forward(self, y: Tensor) -> Tensor:
        """(b, c, t, h, w) -> the same shape."""
        hidden = F.gelu(self.spread(y))  # b 16 t h w
        return y + self.gather(hidden)  # b c t h w
