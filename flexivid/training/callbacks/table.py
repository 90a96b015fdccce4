"""An evaluation as a table for people."""

from __future__ import annotations

import math

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from flexivid.evaluation.samples import BudgetScores, Evaluation

COST = ("budget", "GMACs", "seconds", "FVD", "95 %")
RIVAL = ("fewer\nsteps", "difference\n95 %", "plan\nis")
CAPTION = (
    "fewer steps: native steps alone that the budget pays for, from the same noises; difference: the plan's FVD minus"
    " theirs, paired"
)


def curve_table(evaluation: Evaluation) -> Table:
    """Cost and quality of each budget beside what fewer native steps come to, in at most 80 columns.

    Without such rivals: beside coverage and likeness to full compute.
    """
    title = f"{evaluation.metric} at step {evaluation.global_step}, mean {evaluation.fvd_auc:.4g}"
    floor = next((row.scores.floor for row in evaluation.rows), math.nan)
    title += "" if math.isnan(floor) else f"; real against real {short(floor)}"
    beside = any(row.rival for row in evaluation.rows)
    table = Table(title=escape(title), box=SIMPLE_HEAD, collapse_padding=True)  # "[motion]" is no markup
    table.caption = CAPTION if beside else None
    for name in (*COST, *(RIVAL if beside else ("coverage", "PSNR"))):
        table.add_column(name, justify="right", no_wrap=True)
    for row in evaluation.rows:
        scores = row.scores
        cost = (f"{row.budget:g}", f"{row.macs / 1e9:.3g}", f"{row.seconds:.3g}")
        table.add_row(
            *cost, short(scores.fvd), _interval(scores.low, scores.high), *(_rival(row) if beside else _likeness(row))
        )
    return table


def short(value: float) -> str:
    """Three digits, or all before the point.

    Example:
        >>> short(7.0123), short(1234.5), short(0.000123456)
        ('7.01', '1234', '0.000123')
    """
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _interval(low: float, high: float) -> str:
    return f"{short(low)} to {short(high)}"


def _rival(row: BudgetScores) -> tuple[str, str, str]:
    """Nothing where the plan is itself native steps alone."""
    if row.rival is None or row.difference is None:
        return "", "", ""
    difference = row.difference
    return short(row.rival.scores.fvd), _interval(difference.low, difference.high), difference.verdict


def _likeness(row: BudgetScores) -> tuple[str, str]:
    return f"{row.scores.coverage:.2f}", "" if row.fidelity is None else f"{row.fidelity.psnr:.1f} dB"
