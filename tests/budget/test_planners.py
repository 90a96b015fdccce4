"""Every planner stays within every budget; the searched schedule has the least measured error of all that do."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from flexivid import Schedule, budget_of, for_budget
from flexivid.budget.allowance import Allowance, step_options
from flexivid.budget.measured import best_scored, searched, searched_over
from flexivid.budget.planners import FEWEST_STEPS, FINER_SHARE, MOST_COARSE, PLANNERS, WEAK_STEPS
from flexivid.budget.schedule import REUSE, schedule_macs
from flexivid.budget.spectral import Spectrum, spectral
from tests.budget.test_schedule import CONFIG, SIZE, fraction_allowance, least_budget, random_case
from tests.reference.choices import all_choices

KEEP_STEPS = {"weak_first", "three_phase", "searched"}


def bought(planner: str, allowance: Allowance, table=None) -> Schedule:
    """The schedule of a planner by name."""
    if planner == "searched":
        return searched(allowance, table)
    if planner == "searched_fvd":
        return Schedule.parse(best_scored(allowance, table).steps)
    choice = PLANNERS[planner](allowance)
    if planner in KEEP_STEPS:
        return allowance.schedule(choice)
    return Schedule(allowance.options[option] for option in choice)


@pytest.mark.parametrize("planner", [*PLANNERS, "searched", "searched_fvd"])
@pytest.mark.parametrize("seed", range(30))
def test_never_exceeds_the_budget(planner: str, seed: int, build_table, build_scores) -> None:
    source = random.Random(seed)
    config, size, num_steps = random_case(source)
    guide = source.choice([None, source.choice(config.modes)])
    options = step_options(config, guided=source.random() < 0.7, guide_mode=guide)
    build = build_scores if planner == "searched_fvd" else build_table
    limit = {} if planner == "searched_fvd" else {"max_switches": source.choice([None, 0, 2])}
    table = build(options, num_steps, seed=seed, **limit)
    prices = [budget_of([step], config, size) for step in options]
    least = min(prices) + 1e-4
    for budget in (least, source.uniform(least, 1), 1.0) if least <= 1 else ():
        plain = frozenset(call for call in range(num_steps) if source.random() < 0.3 and planner in KEEP_STEPS)
        allowance = fraction_allowance(budget, config, size, options=options, num_steps=num_steps, plain_calls=plain)
        if planner == "fewer_steps" and allowance.affordable < allowance.costs[0]:
            continue
        plan = bought(planner, allowance, table)
        if planner in KEEP_STEPS:
            assert len(plan) == num_steps
            assert budget_of(plan, config, size) <= budget
        assert allowance.cost(plan) <= allowance.affordable


@pytest.mark.parametrize("seed", range(30))
def test_stages_go_from_coarse_to_native_and_grow_with_the_budget(seed: int) -> None:
    source = random.Random(seed)
    config, size, num_steps = random_case(source)
    options = step_options(config)
    whole = fraction_allowance(1.0, config, size, options=options, num_steps=num_steps, keep_steps=False)
    least, natives = whole.costs[-1], []
    if least == whole.full:
        return  # one step of one mode: there is nothing to plan
    for affordable in sorted(source.randint(least, whole.full - 1) for _ in range(8)):
        plan = bought("staged", whole._replace(affordable=affordable))
        costs = [whole.costs[whole.options.index(step)] for step in plan]
        assert costs == sorted(costs)
        middle = whole.options[min(1, len(whole.options) - 1)]
        counts = [sum(step == option for step in plan) for option in (options[0], middle, whole.options[-1])]
        if len(set(whole.costs)) > 2 and counts[0]:
            assert counts[1] >= FINER_SHARE * counts[0]
        if len(set(whole.costs)) > 2 and counts[1]:
            assert FEWEST_STEPS <= counts[1] + counts[2] <= max(counts[1], WEAK_STEPS)
            assert counts[2] >= min(counts[1], WEAK_STEPS - counts[1])
            assert (
                affordable - whole.cost(plan) < whole.costs[1] + least
            )  # no other step of the finest weak mode could be paid
        if least < whole.costs[0] and not counts[1] and counts[2] < MOST_COARSE:
            assert affordable - whole.cost(plan) < least  # nothing that could be spent is left
        natives.append(counts[0])
    if least < whole.costs[0]:
        assert natives == sorted(natives)


@pytest.mark.parametrize("seed", range(20))
def test_spectral_stays_within_the_budget_and_weakens_towards_noise(seed: int) -> None:
    source = random.Random(seed)
    config, size, num_steps = random_case(source)
    whole = fraction_allowance(1.0, config, size, options=step_options(config), num_steps=num_steps, keep_steps=False)
    rows = [tuple(3.0 * 0.5**k for k in range(cells)) for cells in size]
    spectrum = Spectrum((rows[0], rows[1], rows[2]), deviation=0.6, clips=4)
    for affordable in (whole.costs[-1], source.randint(whole.costs[-1], whole.full), whole.full):
        allowance = whole._replace(affordable=affordable)
        choice = spectral(allowance, spectrum, lambda calls: [1 - call / calls for call in range(calls)])
        assert sum(whole.costs[option] for option in choice) <= affordable
        assert choice == sorted(choice, reverse=True)


def test_fewer_steps_refuses_what_pays_for_none() -> None:
    options = step_options(CONFIG)
    allowance = fraction_allowance(0.1, CONFIG, SIZE, options=options, num_steps=5, keep_steps=False)
    with pytest.raises(ValueError, match=r"got a budget of 0\.5 native steps for the planner fewer_steps"):
        PLANNERS["fewer_steps"](allowance)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("guided", [False, True])
def test_weak_first_is_the_public_one(seed: int, guided: bool) -> None:
    source = random.Random(seed)
    config, size, num_steps = random_case(source)
    budget = min(1.0, source.uniform(least_budget(config, size), 1) + 1e-4)
    options = step_options(config, guided=guided)
    allowance = fraction_allowance(budget, config, size, options=options, num_steps=num_steps)
    assert bought("weak_first", allowance) == for_budget(budget, config, size, num_steps=num_steps, guided=guided)


def test_three_phases_are_the_same_steps_in_another_order() -> None:
    options = step_options(CONFIG)
    allowance = fraction_allowance(0.4, CONFIG, SIZE, options=options, num_steps=20)
    plan, first = bought("three_phase", allowance), bought("weak_first", allowance)
    assert sorted(plan) == sorted(first)
    native = [step == options[0] for step in plan]
    assert native[0]
    assert native[-1]
    assert 0 <= native.index(False) - native[::-1].index(False) <= 1
    assert sum(a != b for a, b in pairwise(native)) == 2


@pytest.mark.parametrize("seed", range(20))
def test_searched_fvd_is_the_closest_that_was_tried_and_can_be_paid(seed: int, build_scores) -> None:
    source = random.Random(seed)
    config, size, num_steps = random_case(source)
    options = [*step_options(config), *([REUSE] if seed % 2 else [])]
    table = build_scores(options, num_steps, seed=seed)
    whole = fraction_allowance(1.0, config, size, options=step_options(config), num_steps=num_steps, keep_steps=False)
    last = math.inf
    for affordable in sorted({whole.costs[-1], source.randint(whole.costs[-1], whole.full), whole.full}):
        allowance = whole._replace(affordable=affordable)
        row = best_scored(allowance, table)
        known = set(whole.options)
        paid = [
            row
            for row in table.rows
            if {step for step in Schedule.parse(row.steps) if step != REUSE} <= known
            and schedule_macs(Schedule.parse(row.steps), config, size) <= affordable
        ]
        assert row.fvd == min(row.fvd for row in paid)
        assert row.fvd <= last  # the dial is monotone
        last = row.fvd
        fixed = [row for row in paid if len(Schedule.parse(row.steps)) == num_steps]
        if fixed:
            assert best_scored(allowance, table, num_calls=num_steps).fvd == min(row.fvd for row in fixed)


def test_only_plans_seen_on_the_most_videos_count(build_scores) -> None:
    table = build_scores(step_options(CONFIG), 3)
    early = table.rows[0]._replace(fvd=-1.0, num_videos=16)
    allowance = fraction_allowance(1.0, CONFIG, SIZE, options=step_options(CONFIG), num_steps=3)
    assert best_scored(allowance, table._replace(rows=(early, *table.rows))).fvd >= 0


def test_searched_fvd_needs_plans_that_can_be_paid(build_scores) -> None:
    options = step_options(CONFIG)
    allowance = fraction_allowance(0.1, CONFIG, SIZE, options=options, num_steps=5, keep_steps=False)
    native = build_scores(options[:1], 5)
    with pytest.raises(ValueError, match="got no plan scored against real videos for so small a budget"):
        best_scored(allowance, native)
    with pytest.raises(ValueError, match="got no plan scored against real videos for this model"):
        best_scored(allowance, None)


@pytest.mark.parametrize("seed", range(10))
def test_searched_is_the_best_there_is(seed: int, build_table) -> None:
    options = step_options(CONFIG)
    table = build_table(options, 5, seed=seed)
    for budget in (0.2, 0.5, 0.8):
        allowance = fraction_allowance(budget, CONFIG, SIZE, options=options, num_steps=5)
        rows = table.rows(allowance.options)
        found = [allowance.options.index(step) for step in searched(allowance, table)]
        listed = all_choices(rows, allowance.costs, None)
        least = min(error for cost, error, _ in listed if cost <= allowance.affordable)
        assert sum(row[i] for row, i in zip(rows, found, strict=True)) == pytest.approx(least)


def test_full_budget_is_all_native(build_table) -> None:
    options = step_options(CONFIG, guided=True)
    allowance = fraction_allowance(1.0, CONFIG, SIZE, options=options, num_steps=6)
    plans = {str(bought(name, allowance, build_table(options, 6))) for name in [*KEEP_STEPS, "fewer_steps"]}
    assert plans == {"6x1x2x2+1x2x2"}


def test_searched_needs_a_table_of_its_options(build_table) -> None:
    options = step_options(CONFIG)
    allowance = fraction_allowance(0.5, CONFIG, SIZE, options=options, num_steps=6)
    with pytest.raises(ValueError, match=r"got no table of measured errors.*run python -m flexivid.search --goal fid"):
        searched(allowance, None)
    with pytest.raises(ValueError, match="got a table of measured errors without 1x4x4"):
        searched(allowance, build_table(options[:2], 6))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("with_reuse", [False, True])
def test_over_numbers_of_steps_modes_and_reuse_equals_brute_force(seed: int, with_reuse: bool, build_table) -> None:
    source = random.Random(seed)
    options = [*step_options(CONFIG), *([REUSE] if with_reuse else [])]
    tables = {steps: build_table(options, steps, seed=seed + steps, distance=3.0 / steps) for steps in (4, 3, 2)}
    whole = fraction_allowance(source.uniform(0.2, 1), CONFIG, SIZE, options=step_options(CONFIG), num_steps=4)
    rivals = [(whole._replace(num_steps=steps), table) for steps, table in tables.items()]
    plan = searched_over(rivals)
    assert whole.cost(plan) <= whole.affordable
    assert plan[0] != REUSE
    found = tables[len(plan)].distance + sum(
        row[options.index(step)] for row, step in zip(tables[len(plan)].errors, plan, strict=True)
    )
    costs = [*whole.costs, *([0] if with_reuse else [])]
    known = [*whole.options, *([REUSE] if with_reuse else [])]
    least = min(
        error + table.distance
        for _, table in rivals
        for cost, error, _ in all_choices(table.rows(known), costs, None)
        if cost <= whole.affordable
    )
    assert found == pytest.approx(least)
