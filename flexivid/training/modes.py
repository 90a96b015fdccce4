"""Chooses the patch mode of a global step: a pure function of (seed, step), so that ranks and resumed runs agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from flexivid.patching.shapes import PatchMode, num_tokens
from flexivid.runtime.errors import check_settings
from flexivid.runtime.start import seed_or_global

NATIVE, WEAK = "native", "weak"  # names for the first mode and for all others
Size = tuple[int, int, int]


@dataclass(frozen=True)
class Phase:
    """A part of the training with its mode probabilities.

    Args:
        until: Where it ends, as a fraction of all steps, in (0, 1]; the last phase ends at 1.
        probabilities: Relative weight of each mode; modes left out are not trained. ``native`` stands for the first
            mode and ``weak`` for all others, which share its weight evenly, so that a configuration fits networks
            with any modes. Weights of a mode that is named twice are added.

    Example:
        >>> modes = (PatchMode("2x4x4"), PatchMode("4x4x4"), PatchMode("4x8x8"))
        >>> Phase(probabilities={"native": 0.5, "weak": 0.25, "4x8x8": 0.25}).weights(modes)
        [0.5, 0.125, 0.375]
    """

    until: float = 1.0
    probabilities: Mapping[str, float] = field(default_factory=dict)

    def weights(self, modes: Sequence[PatchMode]) -> list[float]:
        """Relative weight of each mode, the native one first."""
        weights = [0.0] * len(modes)
        for name, weight in self.probabilities.items():
            indices = _indices(name, modes)
            for index in indices:
                weights[index] += weight / len(indices)
        return weights


@dataclass(frozen=True)
class ModeChoice:
    """How steps are shared among modes.

    Args:
        phases: In order; none = all modes alike throughout.
        equal_tokens: Make batches of about equal token count: a mode with 8x fewer tokens gets an 8x larger batch.
        seed: Decides the draw of modes, and the times, noises and dropped labels of each step; ``None`` = that of
            ``--seed_everything``.
        time_ranges: Times (low, high) that a mode is trained at, 1 = noise; modes left out are trained at all times. So
            a mode is trained where schedules use it (PPFlow, 2506.23543).
        time_shifts: Time shift of a mode instead of the objective's; above 1 means more noise (2502.06782).
    """

    phases: list[Phase] = field(default_factory=list)
    equal_tokens: bool = True
    seed: int | None = None
    time_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    time_shifts: Mapping[str, float] = field(default_factory=dict)

    def time_range(self, mode: PatchMode) -> tuple[float, float]:
        named = {PatchMode(name): (low, high) for name, (low, high) in self.time_ranges.items()}
        return named.get(mode, (0.0, 1.0))

    def time_shift(self, mode: PatchMode, default: float) -> float:
        return {PatchMode(name): shift for name, shift in self.time_shifts.items()}.get(mode, default)

    def batch_size(self, mode: PatchMode, size: Size, native: PatchMode, base: int, *, native_size: Size) -> int:
        """Return the number of samples of a step in a mode, where a native step of ``native_size`` has ``base``.

        With ``equal_tokens`` as many as have about as many tokens, at least 1. Sizes are (t, h, w).

        Example:
            >>> native, weak, size = PatchMode("2x4x4"), PatchMode("4x8x8"), (8, 32, 32)
            >>> ModeChoice().batch_size(weak, size, native, 32, native_size=size)
            256
        """
        if not self.equal_tokens:
            return base
        return max(1, base * num_tokens(native_size, native) // num_tokens(size, mode))

    def check(self, modes: Sequence[PatchMode], *, groups: bool = True) -> ModeChoice:
        """Return itself, with its seed filled in; ``ValueError`` if a setting is wrong or of an unknown mode.

        Phases may name ``native`` and ``weak`` where the first of the modes is native (``groups``).
        """
        self._check_times(modes)
        ends = [phase.until for phase in self.phases]
        if ends and (ends != sorted(ends) or ends[0] <= 0 or ends[-1] != 1):
            raise ValueError(
                f"got phases until {ends}; expected rising fractions that end at 1; change mode_choice.phases"
            )
        for phase in self.phases:
            named = [name for name in phase.probabilities if not (groups and name in (NATIVE, WEAK))]
            key = "phases (native and weak fit any modes)" if groups else "phases"
            _check_known(named, modes, "probabilities", key)
            if min(phase.probabilities.values(), default=0) < 0 or not sum(phase.weights(modes)) > 0:
                raise ValueError(
                    f"got probabilities {dict(phase.probabilities)}; expected weights >= 0, not all 0; change"
                    " mode_choice.phases"
                )
        return replace(self, seed=seed_or_global(self.seed))

    def _check_times(self, modes: Sequence[PatchMode]) -> None:
        _check_known(self.time_ranges, modes, "a time range", "time_ranges")
        _check_known(self.time_shifts, modes, "a time shift", "time_shifts")
        for mode, (low, high) in self.time_ranges.items():
            is_right = 0 <= low < high <= 1
            check_settings("mode_choice.time_ranges", (mode, (low, high), is_right, "0 <= low < high <= 1"))
        for mode, shift in self.time_shifts.items():
            check_settings("mode_choice.time_shifts", (mode, shift, shift > 0, "more than 0"))


def _indices(name: str, modes: Sequence[PatchMode]) -> list[int]:
    """Indices of the modes that a name in probabilities stands for."""
    if name in (NATIVE, WEAK):
        return [0] if name == NATIVE else list(range(1, len(modes)))
    return [modes.index(PatchMode(name))]


def _check_known(names: Iterable[str], modes: Sequence[PatchMode], what: str, key: str) -> None:
    unknown = [mode for mode in names if PatchMode(mode) not in modes]
    if unknown:
        have = ", ".join(map(str, modes))
        raise ValueError(
            f"got {what} for mode {unknown[0]}; expected the network's modes ({have}); change mode_choice.{key} or"
            " network.modes"
        )


def mode_at(global_step: int, progress: float, choice: ModeChoice, modes: Sequence[PatchMode]) -> PatchMode:
    """Return the mode of a global step, when a fraction ``progress`` of all steps is done.

    The choice is as ``ModeChoice.check`` returns it, with its seed.

    Example:
        >>> modes = (PatchMode("1x2x2"), PatchMode("2x4x4"))
        >>> [str(mode_at(step, 0.0, ModeChoice(), modes)) for step in range(4)]
        ['2x4x4', '2x4x4', '1x2x2', '2x4x4']
    """
    weights = np.ones(len(modes))
    for phase in choice.phases:
        if progress < phase.until or phase is choice.phases[-1]:
            weights = np.array(phase.weights(modes))
            break
    draw = np.random.default_rng((seed_or_global(choice.seed), global_step)).random() * weights.sum()
    return modes[int(np.searchsorted(weights.cumsum(), draw, side="right"))]


def generator_of(stream: tuple[int, ...], device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator seeded by whole numbers of any sign, such as (seed, global step, rank)."""
    words = np.random.SeedSequence([number % 2**32 for number in stream]).generate_state(2)
    return torch.Generator(device).manual_seed(int(words[0]) << 16 ^ int(words[1]))
