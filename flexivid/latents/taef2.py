"""TAEF2, the tiny autoencoder of FLUX.2's latent space: 32 channels, 8x smaller in height and width, frame by frame.

diffusers' ``AutoencoderTiny`` lacks its pooled branch. This module has the names of the authors' weights, which come in
two layouts: ``encoder.safetensors`` with ``decoder.safetensors``, or one file whose names begin with
``encoder.layers.`` and ``decoder.layers.`` (the hub's). Takes and gives pixels in [-1, 1]; inside they are in [0, 1].

Source:
    https://github.com/madebyollin/taesd (MIT), TAEF2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, CHANNELS = 64, 32
LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(.+)")


class Block(nn.Module):
    """Three convolutions around a skip; ``pooled`` puts a branch with a norm over the whole picture before them."""

    def __init__(self, *, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), conv())
        wide = 4 * WIDTH
        branch = (nn.Conv2d(WIDTH, wide, 1, bias=False), nn.GroupNorm(4, wide), nn.ReLU())
        self.pool = nn.Sequential(*branch, nn.Conv2d(wide, WIDTH, 1, bias=False)) if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.pool is None else x + self.pool(x)
        return F.relu(self.conv(x) + x)


class Clamp(nn.Module):
    """Bounds latents softly by 3."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


def conv(channels_in: int = WIDTH, channels_out: int = WIDTH, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """Make a 3x3 convolution."""
    return nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=bias)


class TAEF2(nn.Module):
    """Images (b, 3, h, w) in [-1, 1] to latents (b, 32, h / 8, w / 8) and back.

    Example:
        >>> network = TAEF2()
        >>> sum(parameter.numel() for parameter in network.encoder.parameters())
        1338528
        >>> network.encode(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 32, 4, 6])
    """

    def __init__(self) -> None:
        super().__init__()
        down = [[conv(stride=2, bias=False), *(Block(pooled=last) for _ in range(3))] for last in (False, False, True)]
        self.encoder = nn.Sequential(conv(3), Block(), *chain(*down), conv(WIDTH, CHANNELS))
        first = [Clamp(), conv(CHANNELS), nn.ReLU(), *(Block(pooled=True) for _ in range(3))]
        up = [[nn.Upsample(scale_factor=2), conv(bias=False), *(Block() for _ in range(n))] for n in (3, 3, 1)]
        self.decoder = nn.Sequential(*first, *chain(*up), conv(WIDTH, 3))

    def encode(self, images: Tensor) -> Tensor:
        """Images (b, 3, h, w) to latents (b, 32, h / 8, w / 8)."""
        return self.encoder((images + 1) / 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (b, 32, h, w) to images (b, 3, 8 h, 8 w)."""
        return 2 * self.decoder(latents) - 1


def own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of the hub's single file. Its decoder does not count the clamp, so it is one position behind.

    Example:
        >>> list(own_names({"decoder.layers.0.bias": torch.zeros(1), "encoder.layers.0.bias": torch.zeros(1)}))
        ['decoder.1.bias', 'encoder.0.bias']
    """
    names = {}
    for name, tensor in weights.items():
        match = LAYER.fullmatch(name)
        if match:
            part, position, rest = match.groups()
            name = f"{part}.{int(position) + (part == 'decoder')}.{rest}"
        names[name] = tensor
    return names
