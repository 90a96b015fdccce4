"""The frontier equals brute force: every Pareto-optimal choice and no other, with and without a limit on switches."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from flexivid.budget.search import Point, best, frontier, merged, outlooks
from tests.reference.choices import all_choices, pareto


def random_case(seed: int) -> tuple[list[list[float]], list[int]]:
    """Errors that are whole numbers, so that sums are exact and ties happen."""
    source = random.Random(seed)
    options, steps = source.randint(1, 4), source.randint(1, 6)
    return (
        [[float(source.randint(0, 9)) for _ in range(options)] for _ in range(steps)],
        [source.randint(1, 12) for _ in range(options)],
    )


@pytest.mark.parametrize("max_switches", [None, 0, 1, 2, 9])
@pytest.mark.parametrize("seed", range(25))
def test_equals_brute_force(seed: int, max_switches: int | None) -> None:
    errors, costs = random_case(seed)
    listed = all_choices(errors, costs, max_switches)
    front = frontier(errors, costs, max_switches=max_switches)
    assert {(point.cost, point.error) for point in front} == pareto(listed)
    assert {tuple(point) for point in front} <= set(listed)  # each choice is what its cost and error say
    for affordable in range(0, sum(costs) * len(errors), 3):
        possible = [error for cost, error, _ in listed if cost <= affordable]
        point = best(front, affordable)
        assert (None if point is None else point.error) == min(possible, default=None)


@pytest.mark.parametrize("seed", range(25))
def test_of_equals_the_earlier_option_ends(seed: int) -> None:
    errors, costs = random_case(seed)
    for cost, error, choice in frontier(errors, costs):
        same = [other for c, e, other in all_choices(errors, costs, None) if (c, e) == (cost, error)]
        assert choice[::-1] == min(other[::-1] for other in same)


def test_every_budget_of_a_long_schedule_in_one_go() -> None:
    source = random.Random(0)
    errors = [[0.0, *sorted(source.random() for _ in range(3))] for _ in range(50)]
    front = frontier(errors, [100, 41, 18, 8])
    assert [point.cost for point in front] == sorted({point.cost for point in front})
    assert (front[0].choice, front[-1].choice) == ((3,) * 50, (0,) * 50)
    assert all(before.error > after.error for before, after in pairwise(front))


def test_fewer_switches_are_never_better() -> None:
    errors, costs = random_case(3)[0] * 2, random_case(3)[1]
    free = frontier(errors, costs)
    for limit in (3, 2, 1, 0):
        tight = frontier(errors, costs, max_switches=limit)
        for point in tight:
            assert sum(a != b for a, b in pairwise(point.choice)) <= limit
            unlimited = best(free, point.cost)
            assert unlimited is not None
            assert unlimited.error <= point.error
        free = tight


@pytest.mark.parametrize("seed", range(10))
def test_outlooks_are_the_fronts_of_what_is_left(seed: int) -> None:
    errors, costs = random_case(seed)
    left = outlooks(errors, costs)
    assert len(left) == len(errors) + 1
    for i in range(len(errors)):
        front = frontier(errors[i:], costs)
        assert [tuple(pair) for pair in zip(*map(list, left[i]), strict=True)] == [point[:2] for point in front]


def test_merged_keeps_what_no_other_front_beats() -> None:
    few, many = [Point(2, 5.0, (1,)), Point(6, 4.0, (0,))], [Point(4, 4.5, (1, 1)), Point(6, 3.0, (0, 1))]
    assert merged([few, many]) == [few[0], many[0], many[1]]
    assert merged([many]) == many


@pytest.mark.parametrize(
    ("errors", "costs", "limit", "message"),
    [
        ([], [1], None, "got errors of 0 steps"),
        ([[1.0]], [], None, r"and \[0\] costs"),
        ([[1.0, 2.0], [1.0]], [2, 1], None, r"with \[1, 2\] options"),
        ([[float("nan")]], [1], None, "not a number"),
        ([[1.0, 2.0], [float("inf")] * 2], [2, 1], None, "none is finite"),
        ([[1.0]], [-1], None, "got cost -1; expected"),
        ([[1.0]], [1], -1, "got max_switches=-1"),
    ],
)
def test_refuses_what_cannot_be_searched(errors: list, costs: list, limit: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frontier(errors, costs, max_switches=limit)
