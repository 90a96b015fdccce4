"""The way around the transformer: from the patches of a weak mode and the time to what is added to its output.

A token of a large patch has to carry all of its cells. Where little noise is left, most of the answer is in the cells
themselves, each for itself: a small network of two layers gives it without the transformer, and learns from the time
how much of it counts. It is zero at first.

Source:
    DDiT (2602.16968) has one linear, whatever the time; a share of the input that depends on the time: EDM
    (2206.00364), sec. 5.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn

from flexivid.pretrained.weak_modes.affine import Affine

TIME_FEATURES = 64


def hidden_width(inputs: int, outputs: int) -> int:
    """Hidden features: two for each number of a patch, which bend a line once."""
    return 2 * max(inputs, outputs)


class Skip(nn.Module):
    """Patches (b, ...) to what is added to those that come out, (b, n, outputs).

    Args:
        first: Linear or convolution from patches to hidden features, initialised.
        outputs: Numbers of a patch that comes out.
    """

    def __init__(self, first: Any, outputs: int) -> None:
        super().__init__()
        weight = first.weight.detach()
        self.first = first
        self.time = Affine.drawn((len(weight), TIME_FEATURES), like=weight, bias=False)
        self.last = Affine(weight.new_zeros(outputs, len(weight)), weight.new_zeros(outputs))

    def forward(self, patches: Tensor, timestep: Tensor) -> Tensor:
        """(b, ...) and times from 0 to 1000, one for each sample, frame or token: (b, ...), (1,) or ()."""
        hidden = self.first(patches)
        hidden = (
            hidden.flatten(1, -2) if self.first.weight.ndim == 2 else hidden.flatten(2).transpose(1, 2)
        )  # (b, n, h)
        times = timestep.reshape(timestep.shape[0] if timestep.ndim else 1, -1)
        features = get_timestep_embedding(times.flatten(), TIME_FEATURES, downscale_freq_shift=0.0)
        steered = self.time(features.to(hidden.dtype)).unflatten(0, times.shape)  # (b or fewer, frames or tokens, h)
        steered = steered.repeat_interleave(len(hidden) // times.shape[0], 0)  # some families have frames in the batch
        steered = steered.repeat_interleave(hidden.shape[1] // times.shape[1], 1)
        return self.last(F.gelu(hidden + steered))
