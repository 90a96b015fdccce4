"""Each row of the picture is the best schedule of its budget."""

import random

from flexivid.budget.search import best, frontier
from flexivid.pipeline.schedule_plot import schedule_map


def test_rows_are_the_best_schedules():
    source = random.Random(0)
    front = frontier([[0.0, source.random(), 1 + source.random()] for _ in range(12)], [100, 40, 7])
    budgets, options = schedule_map(front, 1200, rows=50)
    assert options.shape == (50, 12)
    assert (options[0] == 2).all()
    assert (options[-1] == 0).all()
    for budget, row in zip(budgets[1:-1], options[1:-1], strict=True):
        point = best(front, budget * 1200)
        assert point is not None
        assert tuple(row) == point.choice
