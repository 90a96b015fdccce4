"""Patching the slow obvious way: one big resize matrix made by PyTorch's interpolation, and loops."""

import itertools
import math

import torch
import torch.nn.functional as F


def resize_matrix(old, new):
    """Trilinear resize of a whole patch as one matrix, (new volume, old volume): resized unit vectors."""
    units = torch.eye(math.prod(old), dtype=torch.float64).view(-1, 1, *old)
    resized = F.interpolate(units, size=tuple(new), mode="trilinear", align_corners=False)
    return resized.flatten(1).T


def resize_embedding(weight, new):
    """PI-resize of embedding weights (..., t, h, w) by one Kronecker-sized pseudo-inverse."""
    matrix = torch.linalg.pinv(resize_matrix(weight.shape[-3:], new).T)
    return (weight.double().flatten(-3) @ matrix.T).unflatten(-1, tuple(new))


def resize_output(weight, new):
    """PI-resize of de-embedding weights (..., t, h, w): the least patch whose resize fits the old one."""
    matrix = torch.linalg.pinv(resize_matrix(new, weight.shape[-3:]))
    return (weight.double().flatten(-3) @ matrix.T).unflatten(-1, tuple(new))


def patchify(latent, mode):
    """Patches in (t, h, w) order, values in (c, t, h, w) order; cells beyond the edge are the edge's."""
    b, c, *size = latent.shape
    grid = [math.ceil(side / patch) for side, patch in zip(size, mode, strict=True)]
    patches = latent.new_zeros(b, math.prod(grid), c * math.prod(mode))
    for n, corner in enumerate(itertools.product(*map(range, grid))):
        for k, (channel, *inside) in enumerate(itertools.product(range(c), *map(range, mode))):
            t, h, w = (
                min(i * patch + j, side - 1) for i, j, patch, side in zip(corner, inside, mode, size, strict=True)
            )
            patches[:, n, k] = latent[:, channel, t, h, w]
    return patches
