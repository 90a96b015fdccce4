"""The result of a search in lines and pictures: its schedules for some budgets, over one or more numbers of steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flexivid.budget.allowance import Allowance
from flexivid.budget.measured import expected_front, searchable
from flexivid.budget.schedule import Schedule
from flexivid.budget.scores import ScoreTable, affordable_rows, best_row
from flexivid.budget.search import Point, best, merged
from flexivid.budget.table import ErrorTable
from flexivid.calibration.plan_search import SEARCHED_BUDGETS
from flexivid.model.flexidit import FlexiDiT
from flexivid.runtime.files import atomic_write
from flexivid.sampling.plan import allowance_of
from flexivid.sampling.settings import Settings

ROWS, COLUMNS = 200, 240  # budgets, and parts of the way from noise to data, that are drawn


def searched_front(
    model: FlexiDiT, settings: Sequence[Settings], tables: Sequence[ErrorTable]
) -> tuple[list[Point], Allowance]:
    """The Pareto-optimal schedules of all tables of ``relate``, and the allowance of the most steps at full compute."""
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
        point = best(front, full.at(budget).affordable)
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
    native = {allowance.options[0], allowance.options[0].plain}
    for budget in SEARCHED_BUDGETS:
        rows = affordable_rows(table, allowance.at(budget))
        natives = [row for row in rows if not row.sampling and set(Schedule.parse(row.steps)) <= native]
        row, rival = best_row(rows), min(natives, key=lambda row: row.fvd, default=None)
        if row is None:
            continue
        share = allowance.share(allowance.cost(Schedule.parse(row.steps)))
        beside = f"; fewer native steps {rival.fvd:.4g}" if rival is not None and rival is not row else ""
        extra = "".join(f", {name.replace('_', ' ')} {value}" for name, value in row.sampling.items())
        lines.append(
            f"budget {budget:g}: {Schedule.parse(row.steps).short}{extra}; {share:.3g} of all, {table.by['metric']} of"
            f" {row.num_videos} videos {row.fvd:.4g} ({row.low:.4g} - {row.high:.4g}){beside}"
        )
    return lines


def draw_scores(model: FlexiDiT, settings: Settings, table: ScoreTable, path: Path) -> None:
    """Write the picture of the best plans of all budgets."""
    allowance = allowance_of(model, settings, keep_steps=False).with_reuse()
    options = {step: number for number, step in enumerate(allowance.options)}
    options |= {step.plain: number for step, number in options.items()}
    points = [
        Point(allowance.cost(steps), row.fvd, tuple(options[step] for step in steps))
        for row in affordable_rows(table, allowance)
        if row.ahead and (steps := Schedule.parse(row.steps))
    ]
    title = f"best of the plans that were sampled, {max(row.num_videos for row in table.rows)} videos each"
    write_schedule_plot(path, merged([points]), allowance, title, quality=table.by["metric"])


def draw_schedules(model: FlexiDiT, settings: Sequence[Settings], tables: Sequence[ErrorTable], path: Path) -> None:
    """Write the picture of the schedules of all budgets."""
    front, allowance = searched_front(model, settings, tables)
    title = f"searched schedules, {tables[0].protocol['num_videos']} videos measured"
    write_schedule_plot(path, front, allowance, title)


def schedule_map(front: Sequence[Point], full: int, rows: int = ROWS, columns: int = COLUMNS) -> tuple[np.ndarray, ...]:
    """Option at each part of the way from noise to data (columns), at evenly spaced budgets (rows).

    Native steps throughout, with the most steps, cost ``full``. Returns budgets (rows,), rising from the least possible
    to 1; options (rows, columns), int; numbers of calls (rows,).

    Example:
        >>> front = [Point(1, 7.0, (1,)), Point(5, 1.0, (0, 1)), Point(8, 0.0, (0, 0))]
        >>> budgets, options, calls = schedule_map(front, 8, rows=3, columns=2)
        >>> budgets.tolist(), options.tolist(), calls.tolist()
        ([0.125, 0.5625, 1.0], [[1, 1], [1, 1], [0, 0]], [1, 1, 2])
    """
    budgets = np.linspace(front[0].cost / full, 1, rows)
    points = [best(front, max(front[0].cost, budget * full * (1 + 1e-12))) for budget in budgets]
    choices = [point.choice for point in points if point is not None]
    spread = [[choice[column * len(choice) // columns] for column in range(columns)] for choice in choices]
    return budgets, np.array(spread), np.array([len(choice) for choice in choices])


def write_schedule_plot(
    path: str | Path, front: Sequence[Point], allowance: Allowance, title: str, *, quality: str = "expected error"
) -> None:
    """Write the picture as PNG; ``quality`` names the points' errors, and ``allowance`` has the options they choose."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    options, full = allowance.options, allowance.at(1).affordable
    budgets, choice, calls = schedule_map(front, full)
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    steps, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=[2.2, 0.5, 1])
    look = {"cmap": "cividis", "vmin": 0, "vmax": max(1, len(options) - 1), "interpolation": "nearest"}
    image = steps.imshow(choice, aspect="auto", origin="lower", extent=(0, 1, budgets[0], budgets[-1]), **look)
    steps.set(xlabel="way from noise to data", ylabel="budget", title=title)
    colours = image.get_cmap()(np.linspace(0, 1, max(2, len(options))))
    handles = [Patch(color=colour, label=str(step)) for colour, step in zip(colours, options, strict=False)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    middle.step(calls, budgets, color="black")
    middle.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
    middle.set(xlabel="calls", xlim=(0, 1.1 * max(calls)))
    right.plot([point.error for point in front], [point.cost / full for point in front], color="black")
    right.set(xlabel=quality)
    for axes in (middle, right):
        axes.grid(alpha=0.3)
    path = Path(path)
    with atomic_write(path) as part:
        figure.savefig(part, format="png", dpi=120)
