"""A budget is a contract: never exceeded, equal to brute force, refused with the least possible."""

from __future__ import annotations

import random
import re

import pytest

from flexivid import FlexiDiTConfig, PatchMode, Schedule, Step, budget_of, constant, for_budget, macs, weak_first
from flexivid.budget.allowance import Allowance, Amount, allowance_for
from flexivid.budget.schedule import schedule_macs
from tests.reference.schedules import best_counts

MODES = ("1x2x2", "2x2x2", "1x4x4", "2x4x4")
CONFIG = FlexiDiTConfig(width=192, depth=6, num_heads=3, modes=MODES)
SIZE = (8, 16, 16)


def random_case(source: random.Random) -> tuple[FlexiDiTConfig, tuple[int, int, int], int]:
    sides = [(t, s) for t in (1, 2, 3, 4) for s in (1, 2, 3, 4, 8)]
    modes = tuple(f"{t}x{s}x{s}" for t, s in source.sample(sides, source.randint(1, 5)))
    width = 12 * source.randint(1, 20)
    config = FlexiDiTConfig(width, source.randint(1, 8), 1, 3, modes, attention=source.choice(["joint", "factorised"]))
    return config, (source.randint(1, 9), source.randint(4, 33), source.randint(4, 33)), source.randint(1, 40)


def least_budget(config: FlexiDiTConfig, size: tuple[int, int, int]) -> float:
    """The budget of the cheapest mode at every step."""
    return min(macs(config, size, mode) for mode in config.modes) / macs(config, size)


def fraction_allowance(budget: float | str, config: FlexiDiTConfig, size: tuple[int, int, int], **options) -> Allowance:
    """What a fraction of the all-native compute allows."""
    costs = {mode: macs(config, size, mode) for mode in config.modes}
    return allowance_for(Amount(budget), costs=costs, **options)


@pytest.mark.parametrize("seed", range(60))
def test_never_exceeds_the_budget(seed: int) -> None:
    source = random.Random(seed)
    config, size, num_steps = random_case(source)
    least = least_budget(config, size)
    for budget in [1.0, least, *(source.uniform(least, 1.0) for _ in range(5))]:
        schedule = for_budget(budget, config, size, num_steps=num_steps, guided=source.random() < 0.5)
        assert len(schedule) == num_steps
        assert budget_of(schedule, config, size) <= budget
        costs = [macs(config, size, step.mode) for step in schedule]
        assert costs == sorted(costs)


@pytest.mark.parametrize("seed", range(40))
def test_equals_brute_force(seed: int) -> None:
    source = random.Random(seed)
    config, size, _ = random_case(source)
    num_steps, native = source.randint(1, 7), macs(config, size)
    known = [PatchMode(mode) for mode in config.modes]
    costs = sorted((cost for cost in (macs(config, size, mode) for mode in known) if cost <= native), reverse=True)
    for budget in (0.1, 0.25, 0.4, 0.55, 0.7, 0.9, 1.0):
        expected = best_counts(costs, num_steps, budget)
        if expected is None:
            with pytest.raises(ValueError, match="expected at least"):
                for_budget(budget, config, size, num_steps=num_steps)
        else:
            schedule = for_budget(budget, config, size, num_steps=num_steps)
            got = [sum(macs(config, size, s.mode) == cost for s in schedule) for cost in dict.fromkeys(costs)]
            same = [sum(n for n, c in zip(expected, costs, strict=True) if c == cost) for cost in dict.fromkeys(costs)]
            assert got == same


@pytest.mark.parametrize("seed", range(20))
def test_more_budget_never_buys_less(seed: int) -> None:
    config, size, num_steps = random_case(random.Random(seed))
    budgets = sorted({min(1.0, least_budget(config, size) + part / 40) for part in range(40)})
    plans = [for_budget(budget, config, size, num_steps=num_steps) for budget in budgets]
    spent = [schedule_macs(plan, config, size) for plan in plans]
    natives = [sum(step.mode == config.native for step in plan) for plan in plans]
    assert spent == sorted(spent)
    assert natives == sorted(natives)


@pytest.mark.parametrize("seed", range(20))
def test_what_a_schedule_costs_buys_as_many_native_steps(seed: int) -> None:
    """A budget read off a schedule is enough for it: no rounding in between."""
    source = random.Random(seed)
    config, size, _ = random_case(source)
    cheapest = min(config.modes, key=lambda mode: macs(config, size, mode))
    for weak in range(8):
        schedule = weak_first([(cheapest, weak), (config.native, 7 - weak)])
        bought = for_budget(budget_of(schedule, config, size), config, size, num_steps=7)
        assert schedule_macs(bought, config, size) >= schedule_macs(schedule, config, size)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("guided", [False, True])
def test_full_budget_is_all_native(seed: int, guided: bool) -> None:
    config, size, num_steps = random_case(random.Random(seed))
    full = constant(config.native, num_steps, guided=guided)
    assert for_budget(1.0, config, size, num_steps=num_steps, guided=guided) == full
    assert for_budget(1, config, size, num_steps=num_steps, guided=guided) == full
    assert budget_of(full, config, size) == 1


@pytest.mark.parametrize("budget", [0, -0.5, 1.5, float("nan")])
def test_refuses_what_is_no_fraction(budget: float) -> None:
    with pytest.raises(ValueError, match=r"expected a fraction in \(0, 1\]"):
        for_budget(budget, CONFIG, SIZE)


EXACT = FlexiDiTConfig(60, 4, 1, 3, ("1x3x3", "1x4x4")), (2, 17, 6), 25  # 21/25, a little above the number 0.84


@pytest.mark.parametrize("case", [EXACT, *(random_case(random.Random(seed)) for seed in range(40))])
def test_least_budget_named_can_be_met(case: tuple) -> None:
    config, size, num_steps = case
    with pytest.raises(ValueError, match="expected at least") as caught:
        for_budget(1e-9, config, size, num_steps=num_steps)
    named = float(re.search(r"at least ([\d.]+)", str(caught.value))[1])  # type: ignore[index]
    assert least_budget(config, size) <= named < least_budget(config, size) + 1.001e-4
    costs = {macs(config, size, s.mode) for s in for_budget(named, config, size, num_steps=num_steps)}
    assert min(macs(config, size, mode) for mode in config.modes) in costs


@pytest.mark.parametrize("modes", [MODES, MODES[:2], MODES[:3]])
def test_refuses_the_infeasible_with_a_number_that_works(modes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="expected at least") as caught:
        for_budget(0.001, CONFIG, SIZE, modes=modes)
    named = float(re.search(r"at least ([\d.]+)", str(caught.value))[1])  # type: ignore[index]
    cheapest = min(macs(CONFIG, SIZE, mode) for mode in modes) / macs(CONFIG, SIZE)
    assert cheapest <= named <= cheapest + 1e-4
    assert {str(step) for step in for_budget(named, CONFIG, SIZE, modes=modes)} == {modes[-1]}


def test_uses_only_the_allowed_modes() -> None:
    schedule = for_budget(0.5, CONFIG, SIZE, modes=["1x4x4"])
    assert {str(step) for step in schedule} == {"1x2x2", "1x4x4"}
    with pytest.raises(ValueError, match="got mode 9x9x9"):
        for_budget(0.5, CONFIG, SIZE, modes=["9x9x9"])


def test_guidance_counts_both_branches() -> None:
    plain, guided = (for_budget(0.4, CONFIG, SIZE, guided=guided) for guided in (False, True))
    assert schedule_macs(guided, CONFIG, SIZE) == 2 * schedule_macs(plain, CONFIG, SIZE)
    assert budget_of(guided, CONFIG, SIZE) == budget_of(plain, CONFIG, SIZE)
    weak = Schedule([Step(PatchMode("1x2x2"), PatchMode("2x4x4"))])
    expected = (macs(CONFIG, SIZE) + macs(CONFIG, SIZE, "2x4x4")) / (2 * macs(CONFIG, SIZE))
    assert budget_of(weak, CONFIG, SIZE) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["20x1x2x2", "12x2x4x4,8x1x2x2", "3x2x4x4+2x4x4,1x1x2x2", "1x1x2x2,1x2x4x4,1x1x2x2"])
def test_written_form_survives(text: str) -> None:
    assert str(Schedule.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "12", "12x4x8", "0x1x2x2", "-1x1x2x2", "3x1x2x2;2x1x2x2", "99999x1x2x2", "2x1x2x2,"]
)
def test_refuses_other_forms(text: str) -> None:
    with pytest.raises(ValueError, match="expected COUNTxMODE"):
        Schedule.parse(text)


def test_weak_first_and_constant() -> None:
    assert str(weak_first([("2x4x4", 2), ("1x2x2", 1)], guided=True)) == "2x2x4x4+2x4x4,1x1x2x2+1x2x2"
    assert str(constant("1x2x2", 3)) == "3x1x2x2"
    for counts in ([], [("1x2x2", 0)]):
        with pytest.raises(ValueError, match="got 0 steps"):
            weak_first(counts)
    with pytest.raises(ValueError, match="got -1 steps"):
        weak_first([("1x2x2", -1)])
