"""Attention and rotary positions the slow obvious way: float64, a full score matrix, complex numbers."""

import torch


def attention(q, k, v, allowed=None):
    """Softmax attention, (b, n, k, e) three times; ``allowed`` (n, n) says which tokens see each other."""
    q, k, v = (x.double().transpose(1, 2) for x in (q, k, v))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return (weights @ v).transpose(1, 2)


def rotary(x, angles):
    """Features i and i + e/2 of (b, n, k, e) as one complex number, turned by the token's angles (n, e/2)."""
    first, second = x.double().chunk(2, dim=-1)
    turned = torch.complex(first, second) * torch.exp(1j * angles.double())[:, None]
    return torch.cat((turned.real, turned.imag), dim=-1)


def allowed_pairs(axes, grid):
    """Which tokens of a grid see each other: all, those of the same frame, or those of the same place."""
    frame = torch.arange(grid[0] * grid[1] * grid[2]) // (grid[1] * grid[2])
    place = torch.arange(len(frame)) % (grid[1] * grid[2])
    same = {"joint": torch.zeros_like(frame), "space": frame, "time": place}[axes]
    return same[:, None] == same
