"""Kernels that resize frames to the square that I3D takes. All are in use somewhere, so the protocol names the kernel.

Pure functions of tensors, video in and video out, (b, c, t, h, w). None blurs before shrinking: published numbers were
made without.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def bilinear(video: Tensor, side: int) -> Tensor:
    """Squeeze the whole frame to a square; pixels are areas, and their centres are half a pixel in.

    >>> bilinear(torch.tensor([0.0, 1.0]).expand(1, 1, 1, 2, 2), 4)[0, 0, 0, 0].tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    return _half_pixel(video, (side, side))


def tf1(video: Tensor, side: int) -> Tensor:
    """Squeeze the whole frame to a square like ``tf.image.resize_bilinear`` of TensorFlow 1, as the original FVD does.

    Pixel i of the new grid is read at i * old / new, without the half pixel: the picture moves up and left.

    >>> tf1(torch.tensor([0.0, 1.0]).expand(1, 1, 1, 2, 2), 4)[0, 0, 0, 0].tolist()
    [0.0, 0.5, 1.0, 1.0]
    """
    for axis in (-1, -2):
        size = video.shape[axis]
        position = torch.arange(side, device=video.device) * (size / side)
        lower = position.long()
        upper = (lower + 1).clamp_max(size - 1)
        weight = (position - lower).to(video.dtype)
        weight = weight if axis == -1 else weight[:, None]
        video = torch.lerp(video.index_select(axis, lower), video.index_select(axis, upper), weight)
    return video


def crop(video: Tensor, side: int) -> Tensor:
    """Resize the shorter side to ``side`` and crop the centre, as VideoGPT and common_metrics do.

    >>> crop(torch.arange(8.0).expand(1, 1, 1, 4, 8), 4)[0, 0, 0, 0].tolist()
    [2.0, 3.0, 4.0, 5.0]
    """
    scale = side / min(video.shape[-2:])
    height, width = (side if size == min(video.shape[-2:]) else math.ceil(size * scale) for size in video.shape[-2:])
    y, x = (height - side) // 2, (width - side) // 2
    return _half_pixel(video, (height, width))[..., y : y + side, x : x + side]


RESIZES = {  # name: (kernel, its words in a protocol)
    "bilinear": (bilinear, "bilinear half-pixel, whole frame"),  # the default
    "tf1": (tf1, "TensorFlow 1 bilinear, whole frame"),
    "crop": (crop, "bilinear half-pixel, centre of the frame"),
}


def _half_pixel(video: Tensor, size: tuple[int, int]) -> Tensor:
    if video.shape[-2:] == size:
        return video
    frames = video.flatten(1, 2)  # b ct h w: the kernel is the same for all
    resized = F.interpolate(frames, size, mode="bilinear", align_corners=False, antialias=False)
    return resized.unflatten(1, video.shape[1:3])
