"""Each row of the picture is the best schedule of its budget, over the whole width whatever its number of calls."""

import random

from flexivid.budget.search import best, frontier, merged
from flexivid.calibration.searched import schedule_map


def test_rows_are_the_best_schedules():
    source = random.Random(0)
    fronts = [
        frontier([[0.0, source.random(), 1 + source.random()] for _ in range(calls)], [100, 40, 7]) for calls in (12, 4)
    ]
    front = merged([fronts[0], [point._replace(error=point.error + 0.5) for point in fronts[1]]])
    budgets, options, calls = schedule_map(front, 1200, rows=50, columns=24)
    assert options.shape == (50, 24)
    assert (options[0] == 2).all()
    assert (options[-1] == 0).all()
    assert set(calls) == {4, 12}
    for budget, row, count in zip(budgets[1:-1], options[1:-1], calls[1:-1], strict=True):
        point = best(front, budget * 1200)
        assert point is not None
        assert count == len(point.choice)
        assert tuple(row[:: 24 // count]) == point.choice
