"""When a patch mode may be used, in closed form from the power spectrum of the data. No search, no torch.

Noise hides the fine structure of the data first. A mode that cannot represent a frequency costs nothing while noise
hides that frequency, so each mode has an *activation time* above which it may replace the native one.

The maths, at one frequency where the data has power P and noise has power 1, on the flow path x_t = (1 - t) x0 + t eps:

    snr   = ((1 - t) / t)^2 P
    delta = E |v* - eps|^2 = (1 + P) snr / (1 + snr),     v* = E[eps - x0 | x_t], for Gaussian data

delta is how far the best possible velocity v* is from the noise, which is all that x_t shows while the data is hidden.
Its parts are uncorrelated: P snr / (1 + snr) of data recovered so far, and snr / (1 + snr), the error of the noise as
estimated from x_t. It rises from 0 at t = 1 to 1 + P at t = 0. Solved for t:

    t = 1 / (1 + sqrt(delta / (P (1 + P - delta))))        SPEED (arXiv:2605.18736, eq. 9)

Frequencies are in cycles per latent cell, in [0, 1/2].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flexivid.budget.allowance import Allowance
from flexivid.patching.shapes import PatchMode, Size3

AXES = ("t", "h", "w")
TOLERANCE = 0.01  # error of the best velocity that a weak mode may bring: 1 % of the noise's power
MOST_STEPS = 50

TimesOf = Callable[[int], Sequence[float]]  # flow times of so many calls


class Spectrum(NamedTuple):
    """Power of the data at every frequency along each axis, as mean over the other axes, channels and clips.

    Bin k of an axis with n cells is the frequency k / (2 n): that of the orthonormal DCT-II, by which it is measured.
    Data of deviation 1: white noise has power 1 in every bin, and the mean over the bins of an axis is 1 for any data.

    Example:
        >>> spectrum = Spectrum(((1.9, 0.1), (2.5, 1.0, 0.4, 0.1), (2.5, 1.0, 0.4, 0.1)), deviation=0.5, clips=256)
        >>> spectrum.size, round(spectrum.power_at(1, 0.25), 6)
        (Size3(t=2, h=4, w=4), 0.1)
    """

    power: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]  # along t, h, w, a number a cell
    deviation: float  # standard deviation of the data before it was normalised, > 0
    clips: int  # number of clips that were measured

    @property
    def size(self) -> Size3:
        """Latent size (t, h, w) of the clips that were measured."""
        return Size3(*(len(row) for row in self.power))

    def power_at(self, axis: int, frequency: float) -> float:
        """Power in the data's own units (times ``deviation`` squared): what the noise of the process competes with.

        Frequencies in [0, 1/2] are interpolated between bins. Beyond the last bin, where clips of this size have no
        structure at all, it is 0.
        """
        row = self.power[axis]
        return self.deviation**2 * float(np.interp(2 * frequency * len(row), range(len(row)), row, right=0.0))

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON and checkpoints.

        Example:
            >>> Spectrum(((1.0,), (1.5, 0.5), (1.0, 1.0)), 0.5, 8).to_plain()
            {'power': {'t': [1.0], 'h': [1.5, 0.5], 'w': [1.0, 1.0]}, 'deviation': 0.5, 'clips': 8}
        """
        power = {axis: list(row) for axis, row in zip(AXES, self.power, strict=True)}
        return {"power": power, "deviation": self.deviation, "clips": self.clips}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Spectrum:
        """Read what :meth:`to_plain` wrote; ``ValueError`` if it is not of that form or holds impossible numbers.

        Example:
            >>> spectrum = Spectrum(((1.0,), (1.5, 0.5), (1.0, 1.0)), 0.5, 8)
            >>> Spectrum.from_plain(spectrum.to_plain()) == spectrum
            True
        """
        try:
            t, h, w = (tuple(float(power) for power in plain["power"][axis]) for axis in AXES)
            spectrum = cls((t, h, w), float(plain["deviation"]), int(plain["clips"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"got a spectrum that cannot be read ({error!r}); expected power (t, h, w), deviation and clips, as"
                " training writes them; train anew"
            ) from error
        powers_are_possible = all(0 <= power < math.inf for row in spectrum.power for power in row)
        if not (powers_are_possible and all(spectrum.size) and 0 < spectrum.deviation < math.inf):
            raise ValueError(
                "got a spectrum with an empty axis, a negative or infinite power, or a deviation that is not above 0;"
                " expected what training writes; train anew"
            )
        return spectrum


def delta_at(power: float, time: float) -> float:
    """Squared error of leaving out a frequency where the data has ``power``, at a time of the flow path.

    It is 0 at time 1 and rises to 1 + power at time 0.

    Example:
        >>> round(delta_at(0.18, 0.82), 3), delta_at(0.5, 1.0), delta_at(0.5, 0.0)
        (0.01, 0.0, 1.5)
    """
    signal = (1 - time) ** 2 * power
    return (1 + power) * signal / (signal + time**2) if signal > 0 else 0.0


def lost_power(spectrum: Spectrum, native: PatchMode, mode: PatchMode) -> float:
    """Power at the finest frequency that a mode keeps, along the axis where it is greatest; 0 for the native mode.

    A mode g times the native one along an axis has g times fewer tokens there, so it keeps what g times fewer cells
    would hold: frequencies up to 1 / (2 g). Of the frequencies above, that one has most power in data whose power falls
    with frequency.

    Example:
        >>> spectrum = Spectrum(((1.9, 0.1), (2.5, 1.0, 0.4, 0.1), (2.5, 1.0, 0.4, 0.1)), deviation=1.0, clips=256)
        >>> native = PatchMode("1x2x2")
        >>> [lost_power(spectrum, native, PatchMode(mode)) for mode in ("1x2x2", "2x2x2", "2x4x4")]
        [0.0, 0.1, 0.4]
    """
    growths = [side / before for before, side in zip(native, mode, strict=True)]
    return max(spectrum.power_at(axis, 0.5 / growth) if growth > 1 else 0.0 for axis, growth in enumerate(growths))


def spectral_errors(spectrum: Spectrum, modes: Sequence[PatchMode], times: Sequence[float]) -> list[list[float]]:
    """Squared error of each mode at each call, errors[call][mode]; ``frontier`` takes it in this form.

    The first mode is the native one, whose errors are 0. Times are those of the flow path.

    Example:
        >>> spectrum = Spectrum(((1.9, 0.1), (2.5, 1.0, 0.4, 0.1), (2.5, 1.0, 0.4, 0.1)), deviation=1.0, clips=256)
        >>> modes = [PatchMode("1x2x2"), PatchMode("2x4x4")]
        >>> [[round(error, 3) for error in row] for row in spectral_errors(spectrum, modes, [1.0, 0.9, 0.5])]
        [[0.0, 0.0], [0.0, 0.007], [0.0, 0.4]]
    """
    powers = [lost_power(spectrum, modes[0], mode) for mode in modes]
    return [[delta_at(power, time) for power in powers] for time in times]


def activation_choice(
    spectrum: Spectrum, modes: Sequence[PatchMode], times: Sequence[float], delta: float
) -> list[int]:
    """The cheapest mode at each call that loses at most ``delta`` there, that is, is above its activation time.

    Modes come as in an ``Allowance``: the native one first, then with falling cost. A larger tolerance never makes a
    call more expensive. ``ValueError`` if ``delta`` is not above 0.

    Example:
        >>> spectrum = Spectrum(((1.9, 0.1), (2.5, 1.0, 0.4, 0.1), (2.5, 1.0, 0.4, 0.1)), deviation=1.0, clips=256)
        >>> modes = [PatchMode("1x2x2"), PatchMode("2x2x2"), PatchMode("2x4x4")]
        >>> activation_choice(spectrum, modes, [1.0, 0.9, 0.8, 0.5], delta=0.01)
        [2, 2, 1, 0]
    """
    if not 0 < delta < math.inf:
        raise ValueError(f"got delta {delta}; expected a number above 0, such as 0.01; change it")
    errors = spectral_errors(spectrum, modes, times)
    return [max(option for option, error in enumerate(row) if error <= delta) for row in errors]


def spectral(allowance: Allowance, spectrum: Spectrum, times_of: TimesOf) -> list[int]:
    """The cheapest mode at each call whose lost detail is still hidden by noise, in as many steps as can be paid.

    More steps and finer modes grow with the budget together. The rest refines the last calls, one after the other. A
    budget too small for this is spent on the cheapest mode. ``times_of`` gives the flow times of so many calls.

    Source:
        Activation times: SPEED (arXiv:2605.18736).

    Example:
        >>> from flexivid.budget.schedule import Step
        >>> from flexivid.patching.shapes import PatchMode
        >>> options = tuple(Step(PatchMode(mode)) for mode in ("1x2x2", "1x4x4", "2x4x4"))
        >>> spectrum = Spectrum(((1.9, 0.1), (2.5, 1.0, 0.4, 0.1), (2.5, 1.0, 0.4, 0.1)), deviation=1.0, clips=256)
        >>> allowance = Allowance(options, (100, 40, 10), num_steps=10, affordable=280)
        >>> spectral(allowance, spectrum, lambda calls: [1 - call / calls for call in range(calls)])
        [1, 0, 0]
    """
    modes = [step.modes[0] for step in allowance.options]
    choice = [len(modes) - 1]
    for calls in range(1, MOST_STEPS + 1):
        refined = activation_choice(spectrum, modes, times_of(calls), TOLERANCE)
        if sum(allowance.costs[option] for option in refined) > allowance.affordable:
            break
        choice = refined
    costs = allowance.costs
    unspent = allowance.affordable - sum(costs[option] for option in choice)
    for call in reversed(range(len(choice))):
        while choice[call] and costs[choice[call] - 1] - costs[choice[call]] <= unspent:
            unspent -= costs[choice[call] - 1] - costs[choice[call]]
            choice[call] -= 1
    return choice
