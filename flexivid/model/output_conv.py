"""A small convolution over the finished output, which sees across the borders of patches. Knows no modes.

Each token draws its patch alone, so that a border between two patches may show. The convolution starts as the identity.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = 16  # channels inside


class OutputConv(nn.Module):
    """y + pointwise(gelu(conv(y))) with a 3x3x3 convolution; the same for all patch modes.

    Beyond the edge, the last frame, row and column are repeated, as where a mode does not divide the size.

    Args:
        channels: Channels of the output.

    Example:
        >>> import torch
        >>> conv, y = OutputConv(3), torch.randn(1, 3, 2, 4, 4)
        >>> torch.equal(conv(y), y), sum(parameter.numel() for parameter in conv.parameters())
        (True, 1363)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Conv3d(channels, HIDDEN, 3, padding=1, padding_mode="replicate")
        self.gather = nn.Conv3d(HIDDEN, channels, 1)
        nn.init.zeros_(self.gather.weight)
        nn.init.zeros_(self.gather.bias)  # type: ignore[arg-type]

    def forward(self, y: Tensor) -> Tensor:
        """(b, c, t, h, w) -> the same shape."""
        hidden = F.gelu(self.spread(y))  # b 16 t h w
        return y + self.gather(hidden)  # b c t h w
