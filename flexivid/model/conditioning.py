"""Conditioning of the network: time, class and mode as one vector (b, d), which modulates every block."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TIME_FEATURES = 256  # as in DiT
TIME_SCALE = 1000.0  # times in [0, 1] reach the sinusoids as the customary 0..1000


class Condition(NamedTuple):
    """What samples should show: their classes.

    Args:
        label: Classes, int64 (b,); the value ``num_classes`` is the null class. ``None`` = null class for all.

    Example:
        >>> Condition(label=torch.tensor([3, 8])).label.tolist()
        [3, 8]
    """

    label: Tensor | None = None


def time_features(time: Tensor) -> Tensor:
    """Embed times as sinusoids, (b,) in [0, 1] -> float32 (b, 256).

    Source:
        DDPM (arXiv:2006.11239), as in DiT.

    Example:
        >>> time_features(torch.tensor([0.0]))[0, 0].item()
        1.0
    """
    half = TIME_FEATURES // 2
    frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, device=time.device, dtype=torch.float32))
    angles = TIME_SCALE * time.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class Conditioning(nn.Module):
    """Time, class and mode as one vector.

    Args:
        width: Width d.
        num_classes: Number of classes; one more row is kept for the null class.
        num_modes: Number of patch modes; each has a vector that starts at zero, so that the adaLN layers, and with
            them the normalisation, may depend on the mode (2502.20126, sec. 3.1).
    """

    def __init__(self, width: int, num_classes: int, num_modes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.time_in = nn.Linear(TIME_FEATURES, width)
        self.time_out = nn.Linear(width, width, bias=False)  # the mode's vector is its bias
        self.label = nn.Embedding(num_classes + 1, width)
        self.mode = nn.Parameter(torch.zeros(num_modes, width))
        for linear in (self.time_in, self.time_out):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(self.time_in.bias)
        nn.init.normal_(self.label.weight, std=0.5)  # with DiT's 0.02 a short training never gets to see the class

    def forward(self, time: Tensor, condition: Condition | None, mode_index: int) -> Tensor:
        """(b,) times in [0, 1] and a condition -> (b, d)."""
        label = None if condition is None else condition.label
        if label is None:
            label = torch.full_like(time, self.num_classes, dtype=torch.long)
        embedded = self.time_out(F.silu(self.time_in(time_features(time).to(self.time_in.weight.dtype))))
        return embedded + self.label(label) + self.mode[mode_index]


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Refuse labels outside ``[0, num_classes]`` (the last is the null class). Waits for the device: not for loops.

    Raises:
        ValueError: If a label is out of range.
    """
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) <= num_classes:
        raise ValueError(
            f"got labels from {int(labels.min())} to {int(labels.max())}; expected 0 to {num_classes - 1}, or"
            f" {num_classes} for the null class; choose classes the model was trained on"
        )
