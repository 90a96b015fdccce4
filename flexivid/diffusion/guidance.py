"""Guidance as a function around the model: one call where a step has no guide mode, two where it has one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from flexivid.budget.schedule import Step

WEAK_SCALE_RATIO = 2.5  # (1 - s1) / (1 - s2) of ordinary and weak guidance (2502.20126, sec. 4.1)

Network = Callable[..., Tensor]  # (x, time, condition, mode) -> output


def weak_scale(scale: float) -> float:
    """The scale of weak guidance that goes with an ordinary guidance scale.

    Example:
        >>> weak_scale(6.0)
        3.0
    """
    return 1 + (scale - 1) / WEAK_SCALE_RATIO


def guided_output(
    network: Network, x: Tensor, time: Tensor, step: Step, *, condition: Any, null: Any, scale: float
) -> Tensor:
    """The network's output at one step, with guidance if the step has a guide mode.

    A guide mode equal to the step's mode is ordinary classifier-free guidance (2207.12598): ``u + s (c - u)`` with u
    the null condition. Another one is weak guidance (2502.20126, sec. 4.1): u is the guide mode *with* the condition,
    and the scale is :func:`weak_scale`. Mixing outputs equals mixing noises or velocities: at fixed x all are affine.

    Args:
        network: Called as ``network(x, time, condition, mode)``.
        x: Noisy latent, (b, c, t, h, w).
        time: (b,).
        step: Modes of the two branches.
        condition: What to show.
        null: The condition that shows nothing in particular.
        scale: Ordinary guidance scale; 1 leaves the conditional output as it is.
    """
    output = network(x, time, condition, step.mode)
    if step.guide_mode is None:
        return output
    if step.guide_mode == step.mode:
        guide, strength = network(x, time, null, step.mode), scale
    else:
        guide, strength = network(x, time, condition, step.guide_mode), weak_scale(scale)
    return guide + strength * (output - guide)
