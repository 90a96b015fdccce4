"""Planners that go by what was measured of the model: least error, or samples closest to real videos. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from flexivid.budget.allowance import Allowance
from flexivid.budget.schedule import REUSE, Schedule
from flexivid.budget.scores import ScoredPlan, ScoreTable, affordable_rows, best_row
from flexivid.budget.search import Point, best, frontier, merged
from flexivid.budget.table import ErrorTable, Table


def searched(allowance: Allowance, table: Table | None) -> Schedule:
    """The schedule of least measured error; ``ValueError`` if there is no table, or it lacks an option."""
    if not isinstance(table, ErrorTable):
        raise ValueError(
            "got no table of measured errors, which the planners searched and adaptive go by; expected schedules.json"
            " beside the checkpoint; run python -m flexivid.search --goal fidelity first, or choose --planner staged"
        )
    return searched_over([(allowance, table)])


def searched_over(alternatives: Sequence[tuple[Allowance, ErrorTable]]) -> Schedule:
    """The schedule of least expected error among several numbers of steps, each with a table of its own.

    ``ValueError`` if none of the tables has a schedule that is so cheap.
    """
    point = best(merged(expected_front(*pair) for pair in alternatives), alternatives[0][0].affordable)
    if point is None:
        raise ValueError(
            "got a budget below that of every measured schedule; expected a table of fewer steps; search with fewer"
            " --num-inference-steps, or choose --planner staged"
        )
    allowance, table = next(pair for pair in alternatives if pair[0].num_steps == len(point.choice))
    return searchable(allowance, table).schedule(point.choice)


def searchable(allowance: Allowance, table: ErrorTable) -> Allowance:
    """The allowance with the option to reuse the last output, if the table knows what that costs in error."""
    return allowance.with_reuse() if REUSE in table.options else allowance


def error_front(allowance: Allowance, table: ErrorTable) -> list[Point]:
    """The best choices at every cost, with the sums of their calls' errors; options are those of ``searchable``."""
    allowance = searchable(allowance, table)
    return frontier(table.rows(allowance.options), allowance.rows, max_switches=table.max_switches)


def expected_front(allowance: Allowance, table: ErrorTable) -> list[Point]:
    """The same, with the errors to be expected of them: see ``ErrorTable.expected``."""
    return [point._replace(error=table.expected(point.error)) for point in error_front(allowance, table)]


def best_scored(allowance: Allowance, table: Table | None, *, num_calls: int | None = None) -> ScoredPlan:
    """The plan whose samples came closest to real videos, of those that were tried and can be paid.

    Only plans of ``num_calls`` calls count, unless that is ``None``. ``ValueError`` if none was tried, or none can be
    paid.
    """
    is_scored = isinstance(table, ScoreTable)
    row = best_row(affordable_rows(table, allowance, num_calls=num_calls)) if is_scored else None  # type: ignore[arg-type]
    if row is None:
        reason = "so small a budget" if is_scored else "this model and these settings"
        raise ValueError(
            f"got no plan scored against real videos for {reason}, which the planner searched_fvd goes by; expected"
            " scores in schedules.json beside the checkpoint; run python -m flexivid.search first, or choose --planner"
            " staged"
        )
    return row
