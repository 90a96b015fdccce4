"""Bootstrapped distribution matching (2502.20126): the native mode learns to repair errors of weak steps.

A noised clip goes a few solver steps towards data, first in a weak mode, then in the native one, as in schedules. The
result is compared with clips noised to the same time. The gradient runs through the native steps only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from flexivid.diffusion.loss import maximum_mean_discrepancy
from flexivid.diffusion.process import Process
from flexivid.patching.shapes import PatchMode
from flexivid.runtime.start import seed_or_global

Call = Callable[[Tensor, Tensor, PatchMode], Tensor]  # (x, time (b,), mode) -> network output


@dataclass(frozen=True)
class Matching:
    """Settings of distribution matching, which is added to the denoising loss of native steps.

    Args:
        weight: Factor of the squared discrepancy in the loss, >= 0; 0 = off.
        share: Fraction of the native training steps with this loss, in (0, 1].
        weak_steps: Solver steps in a weak mode, without gradient, >= 1.
        native_steps: Solver steps in the native mode after them, >= 1.
        seed: Decides which steps have it, in which weak mode and from which time; ``None`` = that of
            ``--seed_everything``.
    """

    weight: float = 0.0
    share: float = 0.5
    weak_steps: int = 1
    native_steps: int = 1
    seed: int | None = None

    @property
    def num_steps(self) -> int:
        return self.weak_steps + self.native_steps

    def check(self, modes: Sequence[PatchMode], num_inference_steps: int) -> Matching:
        """Return itself, with its seed filled in; ``ValueError`` if it does not fit the network or its sampling."""
        if self.weight < 0 or not 0 < self.share <= 1 or min(self.weak_steps, self.native_steps) < 1:
            raise ValueError(
                f"got {self}; expected weight >= 0, share in (0, 1] and steps >= 1; change objective.matching"
            )
        if self.weight and len(modes) < 2:
            raise ValueError("got matching for a network of one mode; expected a weak mode; set weight=0")
        if self.weight and self.num_steps > num_inference_steps:
            raise ValueError(
                f"got {self.weak_steps} weak and {self.native_steps} native steps to match; expected at most the"
                f" {num_inference_steps} of a sample; change objective.matching or sampling"
            )
        return replace(self, seed=seed_or_global(self.seed))

    def start(self, global_step: int, modes: Sequence[PatchMode], calls: int) -> tuple[PatchMode, int] | None:
        """Return weak mode and first solver step for a training step, the same on every rank; ``None`` = no matching.

        A whole sample takes ``calls`` solver steps.

        Example:
            >>> modes = (PatchMode("1x2x2"), PatchMode("2x4x4"))
            >>> Matching().start(0, modes, 20) is None, Matching(1.0, share=1.0).start(0, modes, 2)
            (True, (PatchMode('2x4x4'), 0))
        """
        if not self.weight:
            return None
        draw = np.random.default_rng((seed_or_global(self.seed), global_step, 1))
        if draw.random() >= self.share:
            return None
        first = draw.integers(calls - self.num_steps + 1)
        return modes[1 + draw.integers(len(modes) - 1)], int(first)


def discrepancy(
    call: Call, process: Process, matching: Matching, x0: Tensor, noises: tuple[Tensor, Tensor], times: Sequence[float],
    modes: tuple[PatchMode, PatchMode],
) -> Tensor:  # fmt: skip
    """Return the squared discrepancy of clips after weak and native steps from clips noised to the same time.

    ``x0`` are at least 2 clean latents, (b, c, t, h, w); ``noises`` those at the start and of the clips compared with;
    ``times`` those of the solver steps and, last, where they end; ``modes`` the weak and the native one.
    """
    weak, native = modes
    x = process.add_noise(x0, noises[0], x0.new_full((len(x0),), times[0]))
    for index, (now, following) in enumerate(pairwise(times)):
        is_native = index >= matching.weak_steps
        with torch.set_grad_enabled(is_native):
            time, after = x0.new_full((len(x0),), now), x0.new_full((len(x0),), following)
            output = call(x, time, native if is_native else weak)
            x = process.add_noise(*process.split(output, x, time), after)  # Euler on the flow path, DDIM on the others
    return maximum_mean_discrepancy(x, process.add_noise(x0, noises[1], x0.new_full((len(x0),), times[-1])))
