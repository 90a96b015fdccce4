"""A picture of the searched schedules: which option each step uses, for every budget, and the error that remains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flexivid.budget.allowance import Allowance
from flexivid.budget.search import Point, best
from flexivid.runtime.files import atomic_write

ROWS, COLUMNS = 200, 240  # budgets, and parts of the way from noise to data, that are drawn
COLOURS = "cividis"


def schedule_map(front: Sequence[Point], full: int, rows: int = ROWS, columns: int = COLUMNS) -> tuple[np.ndarray, ...]:
    """Option at each part of the way from noise to data (columns), at evenly spaced budgets (rows).

    Native steps throughout, with the most steps, cost ``full``.

    Returns:
        Budgets (rows,), rising from the least possible to 1; options (rows, columns), int; numbers of calls (rows,).

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
    """Write the picture as PNG; ``quality`` names the points' errors.

    The allowance is that of native steps throughout, with the most steps; its options are those of the points' choices.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    options, full = allowance.options, allowance.full
    budgets, choice, calls = schedule_map(front, full)
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    steps, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=[2.2, 0.5, 1])
    look = {"cmap": COLOURS, "vmin": 0, "vmax": max(1, len(options) - 1), "interpolation": "nearest"}
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
