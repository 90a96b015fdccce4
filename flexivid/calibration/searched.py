"""The result of a search in lines and pictures: its schedules for some budgets, over one or more numbers of steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flexivid.budget.allowance import Allowance
from flexivid.budget.measured import expected_front, searchable
from flexivid.budget.schedule import Schedule, affordable_cost
from flexivid.budget.scores import ScoredPlan, ScoreTable, affordable_rows, best_row
from flexivid.budget.search import Point, best, merged
from flexivid.budget.table import ErrorTable
from flexivid.calibration.plan_search import SEARCHED_BUDGETS
from flexivid.calibration.schedule_plot import write_schedule_plot
from flexivid.model.flexidit import FlexiDiT
from flexivid.sampling.plan import allowance_of
from flexivid.sampling.settings import Settings


def searched_front(
    model: FlexiDiT, settings: Sequence[Settings], tables: Sequence[ErrorTable]
) -> tuple[list[Point], Allowance]:
    """The Pareto-optimal schedules of all tables together, each of another number of steps, from ``relate``.

    Returns the points, and the allowance of the most steps at full compute, with the options and their costs.
    """
    allowances = [allowance_of(model, each) for each in settings]
    front = merged(map(expected_front, allowances, tables))
    return front, searchable(max(allowances, key=lambda allowance: allowance.num_steps), tables[0])


def searched_lines(
    model: FlexiDiT, settings: Sequence[Settings], tables: Sequence[ErrorTable], budgets: Sequence[float]
) -> list[str]:
    """A line for each budget, a fraction of native compute with the most steps; one below the least is left out."""
    front, full = searched_front(model, settings, tables)
    pairs = [(allowance_of(model, each), table) for each, table in zip(settings, tables, strict=True)]
    allowances = {allowance.num_steps: searchable(allowance, table) for allowance, table in pairs}
    lines = []
    for budget in budgets:
        point = best(front, affordable_cost(budget, full.full))
        if point is not None:
            plan = allowances[len(point.choice)].schedule(point.choice)
            lines.append(f"budget {budget:g}: {plan}; {len(plan)} calls, expected error {point.error:.4g}")
    return lines


def score_lines(model: FlexiDiT, settings: Settings, table: ScoreTable) -> list[str]:
    """A line for each budget: its plan, cost and distance, and the distance of fewer native steps instead."""
    allowance, lines = allowance_of(model, settings, keep_steps=False), []
    if table.step_floor is not None:
        lines.append(
            f"step floor {table.step_floor}: more native steps than that make no measurable difference; budgets are"
            f" fractions of {settings.num_inference_steps}"
        )
    for budget in SEARCHED_BUDGETS:
        rows = affordable_rows(table, allowance._replace(affordable=affordable_cost(budget, allowance.full)))
        row, rival = best_row(rows), best_row([row for row in rows if _is_native(row, allowance)])
        if row is None:
            continue
        share = allowance.cost(Schedule.parse(row.steps)) / allowance.full
        beside = f"; fewer native steps {rival.fvd:.4g}" if rival is not None and rival is not row else ""
        extra = "".join(f", {name.replace('_', ' ')} {value}" for name, value in row.sampling.items())
        lines.append(
            f"budget {budget:g}: {Schedule.parse(row.steps).short}{extra}; {share:.3g} of all, {table.by['metric']} of"
            f" {row.num_videos} videos {row.fvd:.4g} ({row.low:.4g} - {row.high:.4g}){beside}"
        )
    return lines


def _is_native(row: ScoredPlan, allowance: Allowance) -> bool:
    """Whether a plan is native steps alone, under the sampler's own settings."""
    native = {allowance.options[0], allowance.options[0].plain}
    return not row.sampling and set(Schedule.parse(row.steps)) <= native


def draw_scores(model: FlexiDiT, settings: Settings, table: ScoreTable, path: Path) -> None:
    """Write the picture of the best plans of all budgets."""
    allowance = allowance_of(model, settings, keep_steps=False).with_reuse()
    options = {step: number for number, step in enumerate(allowance.options)}
    options |= {step.plain: number for step, number in options.items()}
    points = [
        Point(allowance.cost(steps), row.fvd, tuple(options[step] for step in steps))
        for row in affordable_rows(table, allowance)
        if (steps := Schedule.parse(row.steps))
    ]
    title = f"best of the plans that were sampled, {max(row.num_videos for row in table.rows)} videos each"
    write_schedule_plot(path, merged([points]), allowance, title, quality=table.by["metric"])


def draw_schedules(model: FlexiDiT, settings: Sequence[Settings], tables: Sequence[ErrorTable], path: Path) -> None:
    """Write the picture of the schedules of all budgets."""
    front, allowance = searched_front(model, settings, tables)
    title, quality = f"searched schedules, {tables[0].protocol['num_videos']} videos measured", "expected error"
    write_schedule_plot(path, front, allowance, title, quality=quality)
