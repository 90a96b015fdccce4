"""The closed form is the error of the best possible velocity; a mode may be used exactly where it loses little."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest

from flexivid.budget.search import frontier
from flexivid.budget.spectral import (
    Spectrum,
    activation_choice,
    delta_at,
    lost_power,
    spectral_errors,
)
from flexivid.patching.shapes import PatchMode
from tests.reference.spectral import activation_time, mode_activation

MODES = [PatchMode(mode) for mode in ("2x4x4", "4x4x4", "2x8x8", "4x8x8")]
POWERS = [1e-6, 3e-3, 0.05, 0.4, 1.0, 7.0]
DELTAS = [1e-3, 0.01, 0.1, 0.5]
TIMES = np.linspace(1, 0.02, 30).tolist()


def falling(num_bins: int, exponent: float) -> tuple[float, ...]:
    """A power law, scaled to mean 1."""
    power = (1 + np.arange(num_bins)) ** -exponent
    return tuple((power / power.mean()).tolist())


SPECTRUM = Spectrum((falling(8, 3.0), falling(32, 1.5), falling(48, 1.5)), deviation=0.8, clips=10)


@pytest.mark.parametrize("power", [0.05, 0.4, 3.0])
@pytest.mark.parametrize("time", [0.1, 0.5, 0.9])
def test_delta_is_the_distance_of_the_best_velocity_from_the_noise(power: float, time: float) -> None:
    """For Gaussian data that is the linear regression on x_t, which depends on second moments only: four points do."""
    x0, noise = math.sqrt(power) * np.array([1, 1, -1, -1]), np.array([1, -1, 1, -1])
    x, velocity = (1 - time) * x0 + time * noise, noise - x0
    best = (x @ velocity) / (x @ x) * x
    assert delta_at(power, time) == pytest.approx(((best - noise) ** 2).mean())


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("delta", DELTAS)
def test_time_and_delta_are_inverse_to_each_other(power: float, delta: float) -> None:
    assert delta_at(power, activation_time(power, delta)) == pytest.approx(delta)


@pytest.mark.parametrize("delta", DELTAS)
def test_more_power_shows_earlier(delta: float) -> None:
    times = [activation_time(power, delta) for power in POWERS]
    assert all(0 <= a < b < 1 for a, b in pairwise(times))
    assert activation_time(0.0, delta) == 0
    assert activation_time(1e12, delta) == pytest.approx(1)


@pytest.mark.parametrize("power", POWERS)
def test_less_tolerance_means_later(power: float) -> None:
    times = [activation_time(power, delta) for delta in DELTAS]
    assert all(a > b for a, b in pairwise(times))
    assert activation_time(power, 1 + power) == 0
    deltas = [delta_at(power, time) for time in np.linspace(1, 0, 20)]
    assert all(a < b for a, b in pairwise(deltas))
    assert (deltas[0], deltas[-1]) == (0, pytest.approx(1 + power))


@pytest.mark.parametrize("delta", [0.0, -1.0, math.nan, math.inf])
def test_a_tolerance_must_be_above_zero(delta: float) -> None:
    with pytest.raises(ValueError, match=r"got delta .*; expected a number above 0, such as 0\.01; change it"):
        activation_choice(SPECTRUM, MODES, TIMES, delta)


def test_power_between_bins_and_beyond_them() -> None:
    row = SPECTRUM.power[0]
    assert [SPECTRUM.power_at(0, k / 16) for k in range(8)] == pytest.approx([0.8**2 * power for power in row])
    assert SPECTRUM.power_at(0, 5 / 32) == pytest.approx(0.8**2 * (row[2] + row[3]) / 2)
    assert SPECTRUM.power_at(0, 0.5) == 0
    image = SPECTRUM._replace(power=((1.0,), *SPECTRUM.power[1:]))
    assert lost_power(image, MODES[0], PatchMode("4x4x4")) == 0  # one frame has nothing along time to lose


def test_a_mode_waits_for_its_slowest_axis() -> None:
    activation = {str(mode): mode_activation(SPECTRUM, MODES[0], mode, 0.01) for mode in MODES}
    assert activation["2x4x4"] == 0
    assert activation["4x4x4"] < activation["2x8x8"] == activation["4x8x8"] < 1
    expected = max(SPECTRUM.power_at(axis, 0.25) for axis in (1, 2))
    assert activation["2x8x8"] == activation_time(expected, 0.01)
    assert mode_activation(SPECTRUM, MODES[0], PatchMode("1x16x4"), 0.01) == activation_time(
        SPECTRUM.power_at(1, 0.125), 0.01
    )


@pytest.mark.parametrize("delta", DELTAS)
def test_larger_patches_wait_longer(delta: float) -> None:
    sides = [PatchMode(2, side, 4) for side in (4, 6, 8, 12, 16, 32)]
    activations = [mode_activation(SPECTRUM, MODES[0], mode, delta) for mode in sides]
    assert all(a < b for a, b in pairwise(activations))


def test_louder_data_show_earlier() -> None:
    louder = SPECTRUM._replace(deviation=2.0)
    assert lost_power(louder, MODES[0], MODES[2]) == pytest.approx(
        (2 / 0.8) ** 2 * lost_power(SPECTRUM, MODES[0], MODES[2])
    )


def test_errors_fit_the_exact_search() -> None:
    errors = spectral_errors(SPECTRUM, MODES, TIMES)
    assert all(row[0] == 0 <= min(row) for row in errors)
    assert all(a[i] <= b[i] for a, b in pairwise(errors) for i in range(len(MODES)))
    front = frontier(errors, [100, 40, 15, 6])
    assert (front[-1].cost, front[-1].error) == (sum(p == 0 for p in front[-1].choice) * 94 + 6 * len(TIMES), 0)
    for point in front:  # a call that uses a larger patch is never later than one that uses none
        weak = [option > 0 for option in point.choice]
        assert weak == sorted(weak, reverse=True)


@pytest.mark.parametrize("delta", DELTAS)
def test_the_choice_is_the_cheapest_mode_above_its_activation_time(delta: float) -> None:
    activations = [mode_activation(SPECTRUM, MODES[0], mode, delta) for mode in MODES]
    expected = [max(i for i, begin in enumerate(activations) if begin <= time) for time in TIMES]
    assert activation_choice(SPECTRUM, MODES, TIMES, delta) == expected


def test_more_tolerance_never_costs_more() -> None:
    choices = [activation_choice(SPECTRUM, MODES, TIMES, delta) for delta in np.geomspace(1e-5, 3, 40)]
    assert all(a <= b for strict, loose in pairwise(choices) for a, b in zip(strict, loose, strict=True))
    assert choices[-1] == [3] * len(TIMES)
    assert activation_choice(SPECTRUM, MODES, TIMES, 1e-9)[1:] == [0] * (len(TIMES) - 1)


def test_plain_data_come_back() -> None:
    assert Spectrum.from_plain(json.loads(json.dumps(SPECTRUM.to_plain()))) == SPECTRUM


@pytest.mark.parametrize(
    ("key", "value"),
    [("power", {"t": [1.0], "h": [1.0]}), ("power", {"t": [1.0], "h": [], "w": [1.0]}), ("clips", None)]
    + [("deviation", value) for value in (0.0, -1.0, math.nan, math.inf)]
    + [("power", {"t": [1.0], "h": [1.0, value], "w": [1.0]}) for value in (-0.1, math.nan, "x")],
)
def test_damaged_plain_data_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"got a spectrum .*; expected .*; train anew"):
        Spectrum.from_plain({**SPECTRUM.to_plain(), key: value})
