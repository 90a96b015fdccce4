"""Activation times by the published formula, which the planner uses the other way round."""

from __future__ import annotations

import math

from flexivid.budget.spectral import Spectrum, lost_power
from flexivid.patching.shapes import PatchMode


def activation_time(power: float, delta: float) -> float:
    """Time above which a frequency may be missing: the best velocity there differs from noise by less than ``delta``.

    Source:
        SPEED (arXiv:2605.18736, eq. 9).
    """
    room = power * (1 + power - delta)
    return 1 / (1 + math.sqrt(delta / room)) if room > 0 else 0.0


def mode_activation(spectrum: Spectrum, native: PatchMode, mode: PatchMode, delta: float) -> float:
    """Time above which a mode may replace the native one: the latest over the axes along which it is larger."""
    return activation_time(lost_power(spectrum, native, mode), delta)
