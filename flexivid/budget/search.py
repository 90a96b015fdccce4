"""The best schedule for every budget at once: a multiple-choice knapsack, solved exactly by dynamic programming.

No torch. Knows options (what a step may use), what each costs and how much error it brings at each step; errors add
up. What an option is, and where errors come from, is decided elsewhere.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

Costs = Sequence[int] | Sequence[Sequence[int]]  # of every option; of every option at every step


class Point(NamedTuple):
    """A choice that no other beats in both cost and error."""

    cost: int  # sum of the options' costs
    error: float  # sum of the steps' errors
    choice: tuple[int, ...]  # index of the option of each step


class _Front(NamedTuple):
    """Partial choices, cost rising and error falling; ``trail`` is the backpointer of each."""

    cost: np.ndarray  # int64 (n,)
    error: np.ndarray  # float64 (n,)
    trail: np.ndarray  # int64 (n,)


class _Trails:
    """Backpointers of the dynamic program: entry i holds its option and the entry before it."""

    def __init__(self) -> None:
        self._options: list[np.ndarray] = []
        self._before: list[np.ndarray] = []
        self._count = 0

    def extend(self, front: _Front, option: int, cost: int, error: float) -> _Front:
        """All points of a front with one more step."""
        count = len(front.cost)
        self._options.append(np.full(count, option))
        self._before.append(front.trail)
        trail = np.arange(self._count, self._count + count)
        self._count += count
        return _Front(front.cost + cost, front.error + error, trail)

    def points(self, front: _Front, num_steps: int) -> list[Point]:
        """The choices written out."""
        options, before = np.concatenate(self._options), np.concatenate(self._before)
        choices, trail = np.empty((len(front.cost), num_steps), dtype=int), front.trail
        for i in reversed(range(num_steps)):
            choices[:, i], trail = options[trail], before[trail]
        rows = zip(front.cost.tolist(), front.error.tolist(), choices.tolist(), strict=True)
        return [Point(cost, error, tuple(choice)) for cost, error, choice in rows]


def frontier(errors: Sequence[Sequence[float]], costs: Costs, *, max_switches: int | None = None) -> list[Point]:
    """All Pareto-optimal choices of one option a step, cheapest first.

    Of two choices alike in cost and error, the one that ends in the earlier option stays: with the native mode first
    among the options, that is the one with native steps last. With a few options and tens of steps this takes
    milliseconds; the number of points grows with the number of different sums of costs.

    Args:
        errors: Of every option at every step, errors[step][option]; infinite = the step cannot have the option.
        costs: Of every option, whole numbers >= 0 in any unit; one row for all steps, or one a step.
        max_switches: How often neighbouring steps may differ; ``None`` = no limit.

    Raises:
        ValueError: If rows do not fit, a step has no option, an error is NaN, or a cost is below 0.

    Example:
        >>> [(point.cost, point.error, point.choice) for point in frontier([[0, 5], [0, 1]], [4, 1])]
        [(2, 6.0, (1, 1)), (5, 1.0, (0, 1)), (8, 0.0, (0, 0))]
    """
    prices = _price_rows(errors, costs)
    _check(errors, prices, max_switches)
    trails = _Trails()
    if max_switches is None or max_switches >= len(errors) - 1:
        front = _nothing()
        for row, price in zip(errors, prices, strict=True):
            front = _prune([trails.extend(front, o, price[o], row[o]) for o in range(len(price))])
    else:
        front = _limited(errors, prices, max_switches, trails)
    return trails.points(front, len(errors))


def _limited(
    errors: Sequence[Sequence[float]], prices: Sequence[Sequence[int]], max_switches: int, trails: _Trails
) -> _Front:
    """The front of choices with at most so many switches: one front for each number of them and last option."""
    options = range(len(prices[0]))
    ends = [[trails.extend(_nothing(), o, prices[0][o], errors[0][o]) for o in options]] * (max_switches + 1)
    for row, price in zip(errors[1:], prices[1:], strict=True):
        others = [_prune(fronts) for fronts in ends[:-1]]  # a switch to itself wastes one, which is allowed
        ends = [
            [
                trails.extend(_prune([fronts[o], others[k - 1]] if k else [fronts[o]]), o, price[o], row[o])
                for o in options
            ]
            for k, fronts in enumerate(ends)
        ]
    return _prune(ends[-1])


def _nothing() -> _Front:
    """The front of zero steps: one empty choice, free and without error."""
    return _Front(np.zeros(1, dtype=np.int64), np.zeros(1), np.zeros(1, dtype=np.int64))


def _prune(fronts: Iterable[_Front]) -> _Front:
    """Points that no other beats in both cost and error; of equals the first."""
    cost, error, trail = (np.concatenate(column) for column in zip(*fronts, strict=True))
    order = np.lexsort((error, cost))  # stable: equals stay in the order given
    cost, error, trail = cost[order], error[order], trail[order]
    best_before = np.concatenate(([np.inf], np.minimum.accumulate(error)[:-1]))
    is_better = error < best_before
    return _Front(cost[is_better], error[is_better], trail[is_better])


def outlooks(errors: Sequence[Sequence[float]], costs: Costs) -> list[tuple[np.ndarray, np.ndarray]]:
    """The front of the remaining steps, from each step on: costs, rising, and the least error that each buys.

    Arguments as in :func:`frontier`. The last entry is the end, where nothing costs nothing.

    Example:
        >>> [(cost.tolist(), error.tolist()) for cost, error in outlooks([[0, 5], [0, 1]], [4, 1])]
        [([2, 5, 8], [6.0, 1.0, 0.0]), ([1, 4], [1.0, 0.0]), ([0], [0.0])]
    """
    prices = _price_rows(errors, costs)
    _check(errors, prices, None)
    front = _nothing()
    fronts = [front]
    for row, price in zip(reversed(errors), reversed(prices), strict=True):
        front = _prune([_Front(front.cost + price[o], front.error + row[o], front.trail) for o in range(len(price))])
        fronts.insert(0, front)
    return [(front.cost, front.error) for front in fronts]


def merged(fronts: Iterable[Sequence[Point]]) -> list[Point]:
    """One front of several, e.g. of different numbers of steps whose errors are measured against the same samples.

    Example:
        >>> [point.cost for point in merged([[Point(1, 5.0, (1,)), Point(3, 2.0, (0,))], [Point(2, 2.0, (1, 1))]])]
        [1, 2]
    """
    front: list[Point] = []
    for point in sorted((point for points in fronts for point in points), key=lambda point: (point.cost, point.error)):
        if not front or point.error < front[-1].error:
            front.append(point)
    return front


def best(front: Sequence[Point], affordable: float) -> Point | None:
    """The point of least error whose cost is within what can be paid; ``None`` if nothing is.

    Example:
        >>> best([Point(2, 6.0, (1, 1)), Point(5, 1.0, (0, 1))], 4).choice
        (1, 1)
    """
    count = bisect_right([point.cost for point in front], affordable)
    return front[count - 1] if count else None


def winners(front: Sequence[Point], limits: Iterable[float]) -> list[Point]:
    """The points that :func:`best` gives for several limits, each once.

    Example:
        >>> winners([Point(2, 6.0, (1, 1)), Point(5, 1.0, (0, 1))], [1, 2, 4, 9])
        [Point(cost=2, error=6.0, choice=(1, 1)), Point(cost=5, error=1.0, choice=(0, 1))]
    """
    return list(dict.fromkeys(point for limit in limits if (point := best(front, limit)) is not None))


def check_switches(max_switches: int | None) -> None:
    """Refuse a limit below 0."""
    if max_switches is not None and max_switches < 0:
        raise ValueError(f"got max_switches={max_switches}; expected 0 or more; leave it out for no limit")


def _price_rows(errors: Sequence[Sequence[float]], costs: Costs) -> list[Sequence[int]]:
    """Costs of the options at each step."""
    per_step = any(isinstance(row, Sequence) for row in costs)
    return list(costs) if per_step else [costs] * len(errors)  # type: ignore[arg-type, list-item]


def _check(errors: Sequence[Sequence[float]], prices: Sequence[Sequence[int]], max_switches: int | None) -> None:
    lengths = [sorted({len(row) for row in rows}) for rows in (errors, prices)]
    if len(errors) != len(prices) or len(lengths[0]) != 1 or lengths[0] != lengths[1] or lengths[0] == [0]:
        raise ValueError(
            f"got errors of {len(errors)} steps with {lengths[0]} options, and {lengths[1]} costs for {len(prices)}"
            " steps; expected at least one step and one cost for each option; pass errors[step][option]"
        )
    rows = np.asarray(errors, dtype=float)
    if np.isnan(rows).any() or np.isneginf(rows).any() or not np.isfinite(rows).any(axis=1).all():
        raise ValueError(
            "got an error that is not a number, or a step of which none is finite; expected measured numbers; measure"
            " again"
        )
    least = min(min(row) for row in prices)
    if least < 0:
        raise ValueError(f"got cost {least}; expected whole numbers of 0 or more; pass MACs or microseconds")
    check_switches(max_switches)
