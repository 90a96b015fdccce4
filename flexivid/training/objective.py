"""Settings of what a run learns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from flexivid.training.distribution_matching import Matching


@dataclass(frozen=True)
class Objective:
    """What the network learns to predict, and at which times.

    Args:
        path: ``flow``, ``cosine`` or ``linear``, see ``Process``.
        target: What the network predicts. ``x0`` lets patches with more numbers than the width work (2511.13720).
        loss_space: Quantity that the error is measured on, whatever the network predicts.
        times: Distribution of training times, ``uniform`` or ``logit_normal``.
        time_mean: Mean of the logit; above 0 means more noise.
        time_std: Deviation of the logit.
        time_shift: Shift of the times, above 1 means more noise.
        label_dropout: Fraction of labels replaced by the null class, for guidance.
        matching: A loss by which the native mode learns to repair errors of weak steps; off by default.
    """

    path: Literal["flow", "cosine", "linear"] = "flow"
    target: Literal["x0", "velocity", "noise"] = "x0"
    loss_space: Literal["x0", "velocity", "noise"] = "velocity"
    times: Literal["uniform", "logit_normal"] = "logit_normal"
    time_mean: float = 0.0
    time_std: float = 1.0
    time_shift: float = 1.0
    label_dropout: float = 0.1
    matching: Matching = field(default_factory=Matching)


@dataclass(frozen=True)
class DistillationTimes:
    """Distribution of training times, for data with latents or videos.

    Args:
        distribution: ``uniform`` or ``logit_normal``.
        mean: Mean of the logit; above 0 means more noise.
        std: Deviation of the logit.
        shift: Shift of the times, above 1 means more noise.
    """

    distribution: Literal["uniform", "logit_normal"] = "uniform"
    mean: float = 0.0
    std: float = 1.0
    shift: float = 3.0


@dataclass(frozen=True)
class Walk:
    """Training without data, along the teacher's own paths.

    Args:
        size: Latent size [frames, rows, columns].
        num_steps: Solver steps of a path, on average.
        shift: Time shift of the solver.
    """

    size: tuple[int, int, int] = (21, 60, 104)
    num_steps: int = 16
    shift: float = 3.0
