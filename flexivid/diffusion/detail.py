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
    """What the process says of the detail of x_t that a mode loses, (b, channels, t, h, w); 0 for a learned variance.

    ``x`` is (b, c, t, h, w), ``time`` (b,) or (1,) in [0, 1]; ``channels`` of the output, at least c.
    """
    passed = process.detail_gain(time).view(-1, 1, 1, 1, 1) * detail(x, mode, native)
    return F.pad(passed, (0, 0, 0, 0, 0, 0, 0, channels - x.shape[1]))
