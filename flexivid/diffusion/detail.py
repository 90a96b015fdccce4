"""What weak modes add to their output: the detail of the noisy latent that large patches cannot hold."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from flexivid.diffusion.process import Process
from flexivid.patching.embed import detail
from flexivid.patching.shapes import PatchMode


def passed_detail(
    process: Process, x: Tensor, time: Tensor, mode: PatchMode, native: PatchMode, *, channels: int
) -> Tensor:
    """What the process says of the detail of x_t, (b, c, t, h, w), that a mode loses at times (b,) or (1,) in [0, 1].

    Of ``channels`` channels, of which those after c, a learned variance, are 0.
    """
    passed = process.detail_gain(time).view(-1, 1, 1, 1, 1) * detail(x, mode, native)
    return F.pad(passed, (0, 0, 0, 0, 0, 0, 0, channels - x.shape[1]))
