"""What a search found, told and drawn: the schedules of some budgets, over one or more numbers of steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flexivid.budget.planners import FrontOf, expected_front, scored_front
from flexivid.budget.schedule import Schedule, affordable_cost
from flexivid.budget.search import Point, best, merged
from flexivid.budget.table import ErrorTable
from flexivid.budget.units import Allowance
from flexivid.model.flexidit import FlexiDiT
from flexivid.pipeline.sampling import Settings, fraction_of
from flexivid.pipeline.schedule_plot import write_schedule_plot


def searched_front(
    model: FlexiDiT, settings: Sequence[Settings], tables: Sequence[ErrorTable], front_of: FrontOf = expected_front
) -> tuple[list[Point], Allowance]:
    """The Pareto-optimal schedules of all tables together.

    Args:
        model: The network.
        settings: Of each table; they differ in the number of steps only.
        tables: From ``relate``: errors are distances from the samples with the most steps.
        front_of: Goal: ``expected_front`` or ``scored_front``.

    Returns:
        Points, and the whole allowance of the most steps, which names the options and their costs.
    """
    allowances = [fraction_of(model, one, 1.0) for one in settings]
    front = merged(map(front_of, allowances, tables))
    return front, max(allowances, key=lambda allowance: allowance.num_steps)


def searched_lines(
    model: FlexiDiT, settings: Sequence[Settings], tables: Sequence[ErrorTable], budgets: Sequence[float]
) -> list[str]:
    """A line for each budget, a fraction of native compute with the most steps; one below the least is left out."""
    front, whole = searched_front(model, settings, tables)
    found = _plans(model, settings, front, whole, budgets)
    return [
        f"budget {budget:g}: {plan}; {len(plan)} calls, expected error {point.error:.4g}"
        for budget, point, plan in found
    ]


def scored_lines(
    model: FlexiDiT, settings: Sequence[Settings], tables: Sequence[ErrorTable], budgets: Sequence[float]
) -> list[str]:
    """The same of schedules that were held against real videos, with the interval of their distance."""
    front, whole = searched_front(model, settings, tables, scored_front)
    rows = {row.steps: row for table in tables for row in table.scored}
    metric, lines = tables[0].scored_by["metric"], []
    for budget, point, plan in _plans(model, settings, front, whole, budgets):
        row = rows[str(Schedule(whole.options[option] for option in point.choice))]
        interval = f"{row.fvd:.4g} ({row.low:.4g} - {row.high:.4g})"
        lines.append(f"budget {budget:g}: {plan}; {point.cost / whole.full:.3g} of all, {metric} {interval}")
    return lines


def _plans(
    model: FlexiDiT, settings: Sequence[Settings], front: Sequence[Point], whole: Allowance, budgets: Sequence[float]
) -> list[tuple[float, Point, Schedule]]:
    """What a front has for each budget that pays for any of it."""
    allowances = {allowance.num_steps: allowance for allowance in (fraction_of(model, one, 1.0) for one in settings)}
    points = [(budget, best(front, affordable_cost(budget, whole.full))) for budget in budgets]
    return [(budget, point, allowances[len(point.choice)].schedule(point.choice)) for budget, point in points if point]


def draw_schedules(
    model: FlexiDiT,
    settings: Sequence[Settings],
    tables: Sequence[ErrorTable],
    path: Path,
    front_of: FrontOf = expected_front,
) -> None:
    """Write the picture of the schedules of all budgets."""
    front, whole = searched_front(model, settings, tables, front_of)
    if front_of is expected_front:
        title, quality = f"searched schedules, {tables[0].protocol['num_videos']} videos measured", "expected error"
    else:
        by = tables[0].scored_by
        title, quality = f"best of the sampled schedules, {by['num_videos']} videos each", by["metric"]
    write_schedule_plot(path, front, whole, title, quality=quality)
