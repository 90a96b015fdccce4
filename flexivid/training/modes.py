"""Which patch mode a global step trains: a pure function of (seed, step), so that ranks and resumed runs agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from flexivid.patching.shapes import PatchMode, num_tokens


@dataclass(frozen=True)
class Phase:
    """A part of training with its own mode probabilities.

    Args:
        until: Where it ends, as a fraction of all steps, in (0, 1]; the last phase ends at 1.
        probabilities: Relative weight of each mode; modes left out are not trained.
    """

    until: float = 1.0
    probabilities: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ModeChoice:
    """How steps are shared among modes.

    Args:
        phases: In order; none = all modes alike throughout.
        equal_tokens: Batches of about equal token count: a mode with 8x fewer tokens takes an 8x larger batch.
        seed: Decides the draw.
    """

    phases: list[Phase] = field(default_factory=list)
    equal_tokens: bool = True
    seed: int = 0

    def check(self, modes: Sequence[PatchMode]) -> ModeChoice:
        """Return itself.

        Raises:
            ValueError: If a phase names an unknown mode, has no positive weight, or the phases do not end at 1.
        """
        ends = [phase.until for phase in self.phases]
        if ends and (ends != sorted(ends) or ends[0] <= 0 or ends[-1] != 1):
            raise ValueError(
                f"got phases until {ends}; expected rising fractions that end at 1; change mode_choice.phases"
            )
        for phase in self.phases:
            unknown = [mode for mode in phase.probabilities if PatchMode(mode) not in modes]
            if unknown:
                have = ", ".join(map(str, modes))
                raise ValueError(
                    f"got probabilities for mode {unknown[0]}; expected the network's modes ({have}); change"
                    " mode_choice.phases or network.modes"
                )
            if min(phase.probabilities.values(), default=0) < 0 or not sum(phase.probabilities.values()) > 0:
                raise ValueError(
                    f"got probabilities {dict(phase.probabilities)}; expected weights >= 0, not all 0; change"
                    " mode_choice.phases"
                )
        return self


def mode_at(global_step: int, progress: float, choice: ModeChoice, modes: Sequence[PatchMode]) -> PatchMode:
    """The mode of a global step.

    Args:
        global_step: Optimizer step.
        progress: Fraction of all steps that are done, in [0, 1].
        choice: Probabilities and seed.
        modes: The network's modes.

    Example:
        >>> modes = (PatchMode("1x2x2"), PatchMode("2x4x4"))
        >>> [str(mode_at(step, 0.0, ModeChoice(), modes)) for step in range(4)]
        ['2x4x4', '2x4x4', '1x2x2', '2x4x4']
    """
    weights = np.ones(len(modes))
    for phase in choice.phases:
        if progress < phase.until or phase is choice.phases[-1]:
            named = {PatchMode(mode): weight for mode, weight in phase.probabilities.items()}
            weights = np.array([named.get(mode, 0.0) for mode in modes])
            break
    draw = np.random.default_rng((choice.seed, global_step)).random() * weights.sum()
    return modes[int(np.searchsorted(weights.cumsum(), draw, side="right"))]


def batch_size_of(mode: PatchMode, size: tuple[int, int, int], native: PatchMode, base: int) -> int:
    """Samples that hold about as many tokens as ``base`` samples of the native mode, at least 1.

    Example:
        >>> batch_size_of(PatchMode("4x8x8"), (8, 32, 32), PatchMode("2x4x4"), 32)
        256
    """
    return max(1, base * num_tokens(size, native) // num_tokens(size, mode))
