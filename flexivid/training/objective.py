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
        text_dropout: Fraction of captions replaced by the null text. One draw decides on both, so that with equal
            fractions a sample loses its label and its caption together, as guidance leaves both out.
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
    text_dropout: float = 0.1
    matching: Matching = field(default_factory=Matching)


@dataclass(frozen=True)
class GivenFrames:
    """How often a training sample is shown some of its own latent frames; the rest of the samples are shown none.

    The loss counts all frames, the given ones too, as in models that see given frames in channels of their own (Wan,
    Stable Video Diffusion, CogVideoX): a sampler needs a prediction of every cell. Given frames are drawn apart
    from dropped labels and captions, so a network learns to follow either without the other. Guidance over the
    frames needs samples without: leave some.

    Args:
        first: Probability that the first frame is given: image to video.
        last: That the last one is. With a video autoencoder it is the last latent frame, which stands for several.
        both: That both are: interpolation.
        prefix: That a prefix is: continuation. Its length is uniform.
        max_prefix: Latent frames of the longest prefix; ``None`` = half of the clip.

    Example:
        >>> GivenFrames(first=0.5, both=0.2).is_used, GivenFrames().longest_prefix(5)
        (True, 2)
    """

    first: float = 0.0
    last: float = 0.0
    both: float = 0.0
    prefix: float = 0.0
    max_prefix: int | None = None

    def __post_init__(self) -> None:
        shares = (self.first, self.last, self.both, self.prefix)
        if min(shares) < 0 or sum(shares) > 1 + 1e-9 or (self.max_prefix is not None and self.max_prefix < 1):
            raise ValueError(
                f"got {self}; expected probabilities whose sum is at most 1, and max_prefix of at least 1; change"
                " model.given_frames"
            )

    @property
    def is_used(self) -> bool:
        """Whether any sample is shown frames."""
        return self.first + self.last + self.both + self.prefix > 0

    def longest_prefix(self, frames: int) -> int:
        """Latent frames of the longest prefix of a clip of so many."""
        return max(1, min(frames - 1, self.max_prefix or frames // 2))

    def check(self, frames: int) -> GivenFrames:
        """Return itself; ``ValueError`` if a clip of so many latent frames is too short."""
        least = 3 if self.both else 2
        if self.is_used and frames < least:
            raise ValueError(
                f"got model.given_frames for clips of {frames} latent frames; expected at least {least}, to leave"
                " something to generate; raise data.num_frames, or remove model.given_frames"
            )
        return self


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
