"""Every planner stays within every budget; the searched schedule has the least measured error of all that do."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from flexivid import Schedule, budget_of, for_budget
from flexivid.budget.planners import PLANNERS, check_planner, scored_front, searched_over, three_phase, weak_first
from flexivid.budget.schedule import least_budget
from flexivid.budget.units import fraction_allowance, step_options
from tests.budget.test_schedule import CONFIG, SIZE, random_case
from tests.reference.choices import all_choices


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("seed", range(30))
def test_never_exceeds_the_budget(planner: str, seed: int, build_table) -> None:
    source = random.Random(seed)
    config, size, num_steps = random_case(source)
    guide = source.choice([None, source.choice(config.modes)])
    options = step_options(config, guided=source.random() < 0.7, guide_mode=guide)
    table = build_table(options, num_steps, seed=seed, max_switches=source.choice([None, 0, 2]))
    prices = [budget_of([step], config, size) for step in options]
    least = min(prices) + 1e-4
    for budget in (least, source.uniform(least, 1), 1.0) if least <= 1 else ():
        plain = frozenset(call for call in range(num_steps) if source.random() < 0.3)
        allowance = fraction_allowance(budget, config, size, options=options, num_steps=num_steps, plain_calls=plain)
        plan = PLANNERS[planner](allowance, table)
        assert len(plan) == num_steps
        assert budget_of(plan, config, size) <= budget


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("guided", [False, True])
def test_weak_first_is_the_public_one(seed: int, guided: bool) -> None:
    source = random.Random(seed)
    config, size, num_steps = random_case(source)
    budget = min(1.0, source.uniform(least_budget(config, size), 1) + 1e-4)
    options = step_options(config, guided=guided)
    allowance = fraction_allowance(budget, config, size, options=options, num_steps=num_steps)
    assert weak_first(allowance) == for_budget(budget, config, size, num_steps=num_steps, guided=guided)


def test_three_phases_are_the_same_steps_in_another_order() -> None:
    options = step_options(CONFIG)
    allowance = fraction_allowance(0.4, CONFIG, SIZE, options=options, num_steps=20)
    plan, first = three_phase(allowance), weak_first(allowance)
    assert sorted(plan) == sorted(first)
    native = [step == options[0] for step in plan]
    assert native[0]
    assert native[-1]
    assert 0 <= native.index(False) - native[::-1].index(False) <= 1
    assert sum(a != b for a, b in pairwise(native)) == 2


@pytest.mark.parametrize("seed", range(10))
def test_searched_fvd_is_the_closest_that_was_tried_and_can_be_paid(seed: int, build_table) -> None:
    source = random.Random(seed)
    config, size, num_steps = random_case(source)
    options = step_options(config)
    table = build_table(options, num_steps, seed=seed)
    least = min(budget_of([step], config, size) for step in options) + 1e-4
    for budget in (least, source.uniform(least, 1), 1.0) if least <= 1 else ():
        allowance = fraction_allowance(budget, config, size, options=options, num_steps=num_steps)
        plan = PLANNERS["searched_fvd"](allowance, table)
        if allowance.affordable >= allowance.full:
            assert plan == allowance.schedule([0] * num_steps)
            continue
        paid = [row for row in table.scored if budget_of(Schedule.parse(row.steps), config, size) <= budget]
        assert str(plan) == min(paid, key=lambda row: row.fvd).steps
        part = allowance._replace(options=options[:1], costs=allowance.costs[:1], plain_costs=allowance.plain_costs[:1])
        assert [row.choice for row in scored_front(part, table)] == [(0,) * num_steps]


@pytest.mark.parametrize("seed", range(10))
def test_searched_is_the_best_there_is(seed: int, build_table) -> None:
    options = step_options(CONFIG)
    table = build_table(options, 5, seed=seed)
    for budget in (0.2, 0.5, 0.8):
        allowance = fraction_allowance(budget, CONFIG, SIZE, options=options, num_steps=5)
        rows = table.rows(allowance.options)
        found = [allowance.options.index(step) for step in PLANNERS["searched"](allowance, table)]
        listed = all_choices(rows, allowance.costs, None)
        least = min(error for cost, error, _ in listed if cost <= allowance.affordable)
        assert sum(row[i] for row, i in zip(rows, found, strict=True)) == pytest.approx(least)


def test_full_budget_is_all_native(build_table) -> None:
    options = step_options(CONFIG, guided=True)
    allowance = fraction_allowance(1.0, CONFIG, SIZE, options=options, num_steps=6)
    plans = {str(planner(allowance, build_table(options, 6))) for planner in PLANNERS.values()}
    assert plans == {"6x1x2x2+1x2x2"}


def test_searched_needs_a_table_of_its_options(build_table) -> None:
    options = step_options(CONFIG)
    allowance = fraction_allowance(0.5, CONFIG, SIZE, options=options, num_steps=6)
    with pytest.raises(ValueError, match=r"got no table of measured errors.*run python -m flexivid.search first"):
        PLANNERS["searched"](allowance)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="got a table of measured errors without 1x4x4"):
        PLANNERS["searched"](allowance, build_table(options[:2], 6))


def test_planners_by_name() -> None:
    assert check_planner("adaptive") == "adaptive"
    with pytest.raises(ValueError, match="got planner 'best'; expected one of weak_first, searched, adaptive, three"):
        check_planner("best")


@pytest.mark.parametrize("seed", range(20))
def test_over_numbers_of_steps_equals_brute_force(seed: int, build_table) -> None:
    source = random.Random(seed)
    options = step_options(CONFIG)
    tables = {steps: build_table(options, steps, seed=seed + steps, distance=3.0 / steps) for steps in (4, 3, 2)}
    whole = fraction_allowance(source.uniform(0.2, 1), CONFIG, SIZE, options=options, num_steps=4)
    rivals = [(whole._replace(num_steps=steps), table) for steps, table in tables.items()]
    plan = searched_over(rivals)
    assert whole.cost(plan) <= whole.affordable
    found = tables[len(plan)].distance + sum(
        row[whole.options.index(step)] for row, step in zip(tables[len(plan)].rows(whole.options), plan, strict=True)
    )
    least = min(
        error + table.distance
        for allowance, table in rivals
        for cost, error, _ in all_choices(table.rows(whole.options), allowance.costs, None)
        if cost <= whole.affordable
    )
    assert found == pytest.approx(least)
