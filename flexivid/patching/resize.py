"""Resizing patch weights between patch sizes. Knows tensors and sizes, no layers.

One underlying kernel at patch p' serves every mode p. With B the (new, old) matrix of a 1-D resize:

    embedding      w(p) = pinv(B[p' -> p]^T) w'    <B x', w(p)> = <x', w'> for a resized patch    (2212.08013, eq. 4)
    de-embedding   y(p) = pinv(B[p -> p']) y'      B y(p) = y', the same with flipped dimensions  (2502.20126, 3.1)

Both are least-squares fits. B is bilinear interpolation, but for embeddings of a side that shrinks to less than half:
there bilinear interpolation without antialiasing skips cells, and a kernel lifted from a small patch (B^T w, see
embed.py) would not read them. B averages areas there, as ``resize="area"`` says; at half both are the same. The
de-embedding only interpolates from p to p', which skips nothing.

In three dimensions B is a Kronecker product, and so is its pseudo-inverse: three 1-D products, one an axis. They are
applied as sums, not as matrix products: the work is per call, not per sample.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from flexivid.patching.shapes import shrinks_far

Resize = Literal["area", "bilinear"]


def bilinear_matrix(old: int, new: int) -> Tensor:
    """Matrix (new, old) of linear interpolation without antialiasing, half-pixel centres, edges repeated; float64.

    Example:
        >>> bilinear_matrix(2, 4).tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    source, target = (torch.arange(n, dtype=torch.float64, device="cpu") for n in (old, new))
    centre = ((target + 0.5) * old / new - 0.5).clamp(0, old - 1)
    return (1 - (centre[:, None] - source).abs()).clamp_min(0)


def area_matrix(old: int, new: int) -> Tensor:
    """Matrix (new, old) of averages over ``new`` equal stretches of the input, cells on a border shared out; float64.

    Example:
        >>> area_matrix(5, 2).tolist()
        [[0.4, 0.4, 0.2, 0.0, 0.0], [0.0, 0.0, 0.2, 0.4, 0.4]]
    """
    source, target = (torch.arange(n, dtype=torch.float64, device="cpu") for n in (old, new))
    first, last = target[:, None] * old, (target[:, None] + 1) * old  # in units of 1 / new: whole numbers
    overlap = torch.minimum(last, (source + 1) * new) - torch.maximum(first, source * new)
    return overlap.clamp_min(0) / old


def embedding_dual(old: int, new: int, resize: Resize = "area") -> Tensor:
    """The 1-D map of embedding weights from patch side ``old`` to ``new``, (new, old), float64.

    ``resize`` says how a patch is resized to less than half: by the average of ``area`` or, as models before the choice
    do, ``bilinear``. Elsewhere it makes no difference.

    Example:
        >>> embedding_dual(4, 2).round(decimals=6).abs().tolist()   # a cell takes over the weights of those it covers
        [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
        >>> [embedding_dual(4, 1, how).round(decimals=6).tolist() for how in ("area", "bilinear")]
        [[[1.0, 1.0, 1.0, 1.0]], [[0.0, 1.0, 1.0, 0.0]]]
    """
    matrix = area_matrix if resize == "area" and shrinks_far(old, new) else bilinear_matrix
    return torch.linalg.pinv(matrix(old, new).T)


def output_dual(old: int, new: int) -> Tensor:
    """The 1-D map of de-embedding outputs from patch side ``old`` to ``new``, (new, old), float64.

    Example:
        >>> output_dual(4, 2)[0].round(decimals=2).tolist()
        [0.65, 0.45, 0.05, -0.15]
    """
    return torch.linalg.pinv(bilinear_matrix(new, old))


def pi_resize(weight: Tensor, dual_t: Tensor, dual_h: Tensor, dual_w: Tensor) -> Tensor:
    """Resize patch weights along their last three axes.

    With embedding duals, embedding a bilinearly resized patch gives the same vector: exactly when no side shrinks,
    as a least-squares fit otherwise.

    Args:
        weight: Patch weights, (..., t, h, w).
        dual_t: Dual of the 1-D resize, (new t, t). Likewise ``dual_h`` and ``dual_w``.

    Returns:
        Weights, (..., new t, new h, new w).

    Raises:
        ValueError: If a dual does not fit its axis.

    Source:
        PI-resize, FlexiViT (arXiv:2212.08013).

    Example:
        >>> kernel = torch.ones(1, 2, 4, 4)
        >>> pi_resize(kernel, *(embedding_dual(side, side // 2) for side in (2, 4, 4))).sum().round().item()
        32.0
    """
    for axis, dual in zip((-3, -2, -1), (dual_t, dual_h, dual_w), strict=True):
        if dual.shape[1] != weight.shape[axis]:
            raise ValueError(
                f"got a dual {tuple(dual.shape)} for axis {axis} of weights {tuple(weight.shape)}; expected"
                f" (new, {weight.shape[axis]}); build it for the side the weights have"
            )
        if dual.shape[0] != dual.shape[1]:  # square duals are identities: both pinvs are of an identity
            moved = weight.movedim(axis, 0).contiguous()  # sums over the first axis read whole rows: ten times faster
            spread = dual.view(*dual.shape, *[1] * (moved.ndim - 1))
            weight = (spread * moved).sum(1).movedim(0, axis)
    return weight
