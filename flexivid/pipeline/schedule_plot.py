"""A picture of the searched schedules: which option each step uses, for every budget, and the error left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flexivid.budget.schedule import Step
from flexivid.budget.search import Point, best
from flexivid.pipeline.whole_file import whole_file

ROWS = 200  # budgets drawn
COLOURS = "cividis"


def schedule_map(front: Sequence[Point], full: int, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Option of each step at evenly spaced budgets.

    Args:
        front: From ``frontier``.
        full: Cost of native steps throughout.
        rows: Number of budgets.

    Returns:
        Budgets (rows,), rising from the least possible to 1; options (rows, steps), int.

    Example:
        >>> front = [Point(2, 6.0, (1, 1)), Point(5, 1.0, (0, 1)), Point(8, 0.0, (0, 0))]
        >>> budgets, options = schedule_map(front, 8, rows=3)
        >>> budgets.tolist(), options.tolist()
        ([0.25, 0.625, 1.0], [[1, 1], [0, 1], [0, 0]])
    """
    budgets = np.linspace(front[0].cost / full, 1, rows)
    points = [best(front, max(front[0].cost, budget * full * (1 + 1e-12))) for budget in budgets]
    return budgets, np.array([point.choice for point in points if point is not None])


def write_schedule_plot(
    path: str | Path, front: Sequence[Point], options: Sequence[Step], full: int, title: str
) -> None:
    """Write the picture as PNG; it is whole at any time.

    Args:
        path: Where to.
        front: From ``frontier``.
        options: What the choices mean.
        full: Cost of native steps throughout.
        title: Line above it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    budgets, choice = schedule_map(front, full)
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[2.2, 1])
    extent = (0.5, choice.shape[1] + 0.5, budgets[0], budgets[-1])
    look = {"cmap": COLOURS, "vmin": 0, "vmax": max(1, len(options) - 1), "interpolation": "nearest"}
    image = left.imshow(choice, aspect="auto", origin="lower", extent=extent, **look)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(xlabel="call of the network, noise to data", ylabel="budget", title=title)
    colours = image.get_cmap()(np.linspace(0, 1, max(2, len(options))))
    handles = [Patch(color=colour, label=str(step)) for colour, step in zip(colours, options, strict=False)]
    left.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=4, frameon=False)
    right.plot([point.error for point in front], [point.cost / full for point in front], color="black")
    right.set(xlabel="predicted error (sum over calls)")
    right.grid(alpha=0.3)
    path = Path(path)
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=120)
