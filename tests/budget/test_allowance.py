"""An allowance in any unit: what is named as the least can be met, anything below is refused in that unit."""

from __future__ import annotations

import random
import re

import pytest

from flexivid import FlexiDiTConfig, PatchMode, Schedule, Step, budget_of, macs
from flexivid.budget.adaptive import AdaptivePlan
from flexivid.budget.allowance import PRESETS, Allowance, Amount, allowance_for, number_or_preset, step_options
from flexivid.budget.planners import weak_first
from flexivid.budget.schedule import schedule_macs
from tests.budget.test_schedule import fraction_allowance, random_case

MODES = ("1x2x2", "2x2x2", "1x4x4", "2x4x4")
CONFIG = FlexiDiTConfig(width=192, depth=6, num_heads=3, modes=MODES)
SIZE = (8, 16, 16)


def gmacs_allowance(gmacs, config, size, **options) -> Allowance:
    costs = {mode: macs(config, size, mode) for mode in config.modes}
    return allowance_for(Amount(gmacs, "gmacs"), costs=costs, **options)


def seconds_allowance(seconds, latency, **options) -> Allowance:
    return allowance_for(Amount(seconds, "seconds"), costs=latency, **options)


def bought(allowance: Allowance) -> Schedule:
    return allowance.schedule(weak_first(allowance))


def named_least(call) -> float:
    """The number in the refusal of what cannot be met."""
    with pytest.raises(ValueError, match="expected at least") as caught:
        call(1e-9)
    return float(re.search(r"at least ([\d.e+-]+)", str(caught.value))[1])  # type: ignore[index]


def test_options_follow_guidance() -> None:
    assert [str(step) for step in step_options(CONFIG, modes=["2x4x4"])] == ["1x2x2", "2x4x4"]
    assert step_options(CONFIG, guided=True)[3] == Step(PatchMode("2x4x4"), PatchMode("2x4x4"))
    weak = step_options(CONFIG, guided=True, guide_mode="2x4x4")
    assert {str(step.guide_mode) for step in weak} == {"2x4x4"}
    with pytest.raises(ValueError, match="got mode 9x9x9"):
        step_options(CONFIG, modes=["9x9x9"])


@pytest.mark.parametrize("seed", range(30))
def test_the_least_that_is_named_can_be_met(seed: int) -> None:
    config, size, num_steps = random_case(random.Random(seed))
    options = step_options(config, guided=bool(seed % 2))
    latency = {PatchMode(mode): macs(config, size, mode) / 3e9 for mode in config.modes}
    for allow in (
        lambda amount: fraction_allowance(amount, config, size, options=options, num_steps=num_steps),
        lambda amount: gmacs_allowance(amount, config, size, options=options, num_steps=num_steps),
        lambda amount: seconds_allowance(amount, latency, options=options, num_steps=num_steps),
    ):
        allowance = allow(named_least(allow))
        assert allowance.costs[-1] * num_steps <= allowance.affordable


def test_units_agree() -> None:
    options = step_options(CONFIG, guided=True)
    half = fraction_allowance(0.5, CONFIG, SIZE, options=options, num_steps=20)
    gmacs = gmacs_allowance(half.affordable / 1e9, CONFIG, SIZE, options=options, num_steps=20)
    assert abs(gmacs.affordable - half.affordable) <= 1
    assert bought(gmacs) == bought(half)
    assert half.cost(bought(half)) == schedule_macs(bought(half), CONFIG, SIZE)


@pytest.mark.parametrize("guide_mode", [None, "2x4x4"])
@pytest.mark.parametrize("fixed", [0, 10**9])
def test_shares_are_of_full_compute_whatever_guidance_saves(guide_mode: str | None, fixed: int, build_table) -> None:
    settings = {"options": step_options(CONFIG, guided=True, guide_mode=guide_mode), "num_steps": 20, "fixed": fixed}
    full = 20 * 2 * macs(CONFIG, SIZE) + fixed
    for budget in (0.9, 0.5, 0.3):
        allowance = fraction_allowance(budget, CONFIG, SIZE, **settings)
        assert 0 <= budget * full - fixed - allowance.affordable <= 1
        assert allowance.at(budget) == allowance
        assert allowance.share(allowance.affordable) == pytest.approx(budget)
        seen = AdaptivePlan(allowance, build_table(allowance.options, 20)).share
        assert seen == pytest.approx(budget)
    few = fraction_allowance(0.1, CONFIG, SIZE, keep_steps=False, **settings)
    assert few.share(few.affordable) == pytest.approx(0.1)  # also with fewer calls


def test_seconds_follow_the_clock_and_not_the_formulas() -> None:
    latency = {PatchMode(mode): seconds for mode, seconds in zip(MODES, (0.1, 0.11, 0.05, 0.02), strict=True)}
    allowance = seconds_allowance(1.0, latency, options=step_options(CONFIG), num_steps=20)
    assert [str(step) for step in allowance.options] == ["1x2x2", "1x4x4", "2x4x4"]  # 2x2x2 is slower than native
    assert allowance.costs == (100_000, 50_000, 20_000)
    assert sum(latency[step.mode] for step in bought(allowance)) <= 1.0


def test_presets() -> None:
    def spent(budget: float | str, modes: tuple[str, ...] = MODES) -> float:
        options = step_options(CONFIG, modes=modes)
        allowance = fraction_allowance(budget, CONFIG, SIZE, options=options, num_steps=20)
        return budget_of(bought(allowance), CONFIG, SIZE)

    assert [spent(name) for name in PRESETS] == [spent(share) for share in PRESETS.values()]
    assert spent("draft", ("1x2x2", "2x2x2")) == macs(CONFIG, SIZE, "2x2x2") / macs(CONFIG, SIZE)  # the least possible
    assert (number_or_preset("draft"), number_or_preset("0.5"), number_or_preset(1)) == ("draft", 0.5, 1)
    with pytest.raises(ValueError, match=r"got budget 'drfat'; expected a fraction in \(0, 1\] or one of draft, bal"):
        number_or_preset("drfat")


def test_weak_guidance_is_paid_for() -> None:
    options = step_options(CONFIG, guided=True, guide_mode="1x2x2")
    allowance = fraction_allowance(0.75, CONFIG, SIZE, options=options, num_steps=20)
    plan = bought(allowance)
    assert {str(step.guide_mode) for step in plan} == {"1x2x2"}
    assert 0.7 < budget_of(plan, CONFIG, SIZE) <= 0.75
    with pytest.raises(ValueError, match=r"expected at least 0\.5"):
        fraction_allowance(0.4, CONFIG, SIZE, options=options, num_steps=20)


@pytest.mark.parametrize("amount", [0, -1.0, float("nan"), float("inf")])
def test_refuses_what_is_no_amount(amount: float) -> None:
    options = step_options(CONFIG)
    with pytest.raises(ValueError, match=r"got --budget-gmacs .*; expected a number above 0"):
        gmacs_allowance(amount, CONFIG, SIZE, options=options, num_steps=20)
    with pytest.raises(ValueError, match=r"got --budget-seconds .*; expected a number above 0"):
        seconds_allowance(amount, {PatchMode(mode): 1.0 for mode in MODES}, options=options, num_steps=20)
    with pytest.raises(ValueError, match="got 0 steps; expected 1 to"):
        gmacs_allowance(1.0, CONFIG, SIZE, options=options, num_steps=0)
