"""A small video network of our own, shipped with its weights: features for a Frechet distance that needs no download.

It was trained on drawn digits to predict digit, movement, colour and the strength of faults (noise, blur, gaps, changes
of shape, frames out of order), by ``benchmarks/train_motion_features.py``, which describes how to make the same file
again. Weights are stored in float16 and used in float32: run it outside of autocast.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

SIZE = 64  # rows and columns the network sees
MIN_FRAMES = 4
NUM_MIDDLE, NUM_LATE = 32, 64
NUM_FEATURES = NUM_MIDDLE + NUM_LATE
PREPROCESSING = f"{SIZE}x{SIZE} bilinear half-pixel, antialiased where it shrinks, whole frame, [-1, 1]"
WEIGHTS = Path(__file__).with_name("motion.safetensors")


def fit_frames(videos: Tensor) -> Tensor:
    """Resize every frame to what the network sees: (b, c, t, h, w) -> (b, c, t, 64, 64).

    >>> fit_frames(torch.ones(1, 3, 4, 100, 50)).mean().item()
    1.0
    """
    if videos.shape[-2:] == (SIZE, SIZE):
        return videos
    frames = videos.transpose(1, 2).flatten(0, 1)  # bt c h w: antialiasing has no 5-D form
    frames = F.interpolate(frames, (SIZE, SIZE), mode="bilinear", antialias=True)
    return frames.unflatten(0, (len(videos), -1)).transpose(1, 2)


def pool(x: Tensor) -> Tensor:
    """Summarise maps, (b, c, t, h, w) -> (b, 3c): mean, deviation of the frames' means over time, deviation over all.

    >>> pool(torch.ones(1, 2, 4, 3, 3))[0].tolist()
    [1.0, 1.0, 0.009999999776482582, 0.009999999776482582, 0.009999999776482582, 0.009999999776482582]
    """
    frames = x.mean((3, 4))  # b c t
    change, spread = frames.var(2, correction=0), x.var((2, 3, 4), correction=0)
    return torch.cat((frames.mean(2), (change + 1e-4).sqrt(), (spread + 1e-4).sqrt()), dim=1)  # root: finite slope at 0


class Stage(nn.Module):
    """A convolution in space, whose stride is that of rows and columns, then a residual one in time."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.space = nn.Conv3d(channels_in, channels, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
        self.time = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), bias=False)
        self.space_norm, self.time_norm = nn.BatchNorm3d(channels), nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.space_norm(self.space(x)))
        return F.relu(x + self.time_norm(self.time(x)))


class MotionNet(nn.Module):
    """Video -> 96 features, each of about unit variance over the training clips: 32 from the middle, 64 from the end.

    Example:
        >>> MotionNet().eval()(torch.zeros(2, 3, 8, 32, 32)).shape
        torch.Size([2, 96])
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 16, (1, 5, 5), (1, 2, 2), (0, 2, 2))
        self.early = nn.Sequential(Stage(16, 32, 2))
        self.late = nn.Sequential(Stage(32, 64, 2), Stage(64, 64, 1), Stage(64, 96, 2))
        self.middle_features = nn.Linear(3 * 32, NUM_MIDDLE)
        self.late_features = nn.Linear(3 * 96, NUM_LATE)
        self.norm = nn.BatchNorm1d(NUM_FEATURES, affine=False)

    def forward(self, videos: Tensor) -> Tensor:
        """(b, 3, t, h, w) in [-1, 1], at least 4 frames, any height and width -> features (b, 96)."""
        x = F.relu(self.stem(fit_frames(videos)))  # b 16 t 32 32
        middle = self.early(x)  #                    b 32 t 16 16
        late = self.late(middle)  #                  b 96 t 4 4
        features = torch.cat((self.middle_features(pool(middle)), self.late_features(pool(late))), dim=1)
        return self.norm(features)


def load_motion_net() -> MotionNet:
    """Return the network with the shipped weights, in float32, frozen and in evaluation mode.

    >>> sum(parameter.numel() for parameter in load_motion_net().parameters())
    194336
    """
    network = MotionNet()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval().requires_grad_(False)
