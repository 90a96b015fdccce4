"""The picture of an evaluation: distance to real videos against compute, one line for each global step."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from flexivid.evaluation.result import Evaluation

FORMER, LATEST = (0.15, 0.75), "#c0392b"  # earlier lines: a range of the colour map; the last line stands out
RIVALS = "0.5"  # grey


def curve_figure(evaluations: Sequence[Evaluation]) -> Figure:
    """Draw FVD with its 95 % interval against GMACs a sample, on a logarithmic axis; the figure has no window.

    Evaluations come in the order of their global steps. Points of the last one bear their budgets, and a second, dashed
    line is native steps alone, where they were sampled. ``ValueError`` if there is nothing to draw, or the metrics
    differ.
    """
    metrics = sorted({evaluation.metric for evaluation in evaluations})
    if len(metrics) != 1:
        raise ValueError(f"got metrics {metrics}; expected one; draw those that were measured alike")
    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    colors = matplotlib.colormaps["viridis"]
    for number, evaluation in enumerate(evaluations):
        last = number == len(evaluations) - 1
        share = FORMER[0] + (FORMER[1] - FORMER[0]) * number / max(1, len(evaluations) - 2)
        _line(axes, evaluation, LATEST if last else colors(share), names=last)
    _rivals(axes, evaluations[-1])
    _axes(axes, evaluations)
    return figure


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _line(axes: Axes, evaluation: Evaluation, color: str | tuple[float, float, float, float], *, names: bool) -> None:
    rows = sorted(evaluation.rows, key=lambda row: row.macs)
    gmacs, values = [row.macs / 1e9 for row in rows], [row.scores.fvd for row in rows]
    low, high = [row.scores.low for row in rows], [row.scores.high for row in rows]
    middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]  # the interval need not hold the value
    half = [(b - a) / 2 for a, b in zip(low, high, strict=True)]
    label = None if evaluation.global_step is None else f"step {evaluation.global_step}"
    highest = [max(y for y in pair if math.isfinite(y)) for pair in zip(high, values, strict=True)]
    axes.plot(gmacs, values, "o-", color=color, label=label, markersize=5, zorder=3)
    axes.errorbar(gmacs, middle, yerr=half, fmt="none", ecolor=color, elinewidth=1, capsize=4, alpha=0.7)
    if names:
        _names(axes, [(row.budget, x, y) for x, y, row in zip(gmacs, highest, rows, strict=True)])


def _names(axes: Axes, points: Sequence[tuple[float, float, float]]) -> None:
    """Write budgets above their points, (budget, x, y); budgets with the same plan share a point and a label."""
    for x, y in dict.fromkeys(point[1:] for point in points):
        budgets = sorted(budget for budget, *point in points if point == [x, y])
        name = ", ".join(f"{budget:g}" for budget in budgets)
        axes.annotate(name, (x, y), (0, 6), textcoords="offset points", ha="center", color="0.35", fontsize=9)


def _rivals(axes: Axes, evaluation: Evaluation) -> None:
    """Draw native steps alone; where other rows have a rival, a row without one is native steps alone itself."""
    if any(row.rival for row in evaluation.rows):
        rivals = [row.rival or row for row in evaluation.rows]
        points = sorted({(rival.macs / 1e9, rival.scores.fvd) for rival in rivals})
        gmacs, values = zip(*points, strict=True)
        axes.plot(gmacs, values, "s--", color=RIVALS, label="native steps alone", markersize=4, zorder=2)


def _axes(axes: Axes, evaluations: Sequence[Evaluation]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.1, y=0.15)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("GMACs a sample (numbers above the points: budget)")
    axes.set_ylabel(f"{evaluations[-1].metric} (lower is better)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    rows = [row for evaluation in evaluations for row in evaluation.rows]
    sizes = {(row.scores.num_generated, row.scores.num_real) for row in rows}
    counts = ", ".join(f"{generated} generated, {real} real videos" for generated, real in sorted(sizes))
    axes.set_title(f"Quality against compute: {counts}; bars: 95 %", fontsize=10)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=9)
