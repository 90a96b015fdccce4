"""Which schedule an allowance buys: one function a planner, all in ``PLANNERS``. No torch.

Every planner stays within the allowance, whatever its unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flexivid.budget.schedule import Schedule
from flexivid.budget.search import Point, best, frontier, merged
from flexivid.budget.table import ErrorTable
from flexivid.budget.units import Allowance

Planner = Callable[[Allowance, "ErrorTable | None"], Schedule]
FrontOf = Callable[[Allowance, ErrorTable], "list[Point]"]


def weak_first(allowance: Allowance, table: ErrorTable | None = None) -> Schedule:
    """As many native steps as can be paid, then of the next finer mode, and so on; the cheapest ones come first.

    Source:
        FlexiDiT (arXiv:2502.20126): weak steps first, powerful ones last.

    Example:
        >>> from flexivid.budget.schedule import Step
        >>> from flexivid.patching.shapes import PatchMode
        >>> options = tuple(Step(PatchMode(mode)) for mode in ("1x2x2", "1x4x4", "2x4x4"))
        >>> allowance = Allowance(options, (100, 40, 10), num_steps=10, affordable=400)
        >>> str(weak_first(allowance)), str(three_phase(allowance))
        ('6x2x4x4,1x1x4x4,3x1x2x2', '2x1x2x2,6x2x4x4,1x1x4x4,1x1x2x2')
    """
    return allowance.schedule(_filled(allowance, [], []))


def three_phase(allowance: Allowance, table: ErrorTable | None = None) -> Schedule:
    """Native, weak, native: as :func:`weak_first`, but half of the native steps come at the beginning.

    Source:
        SRDiffusion (the large model in the earliest steps) and FlowBlending (in the earliest and the latest).
    """
    for count in range(allowance.num_steps, -1, -1):
        late = [0] * (count // 2)
        early = [0] * (count - len(late))
        middle = [-1] * (allowance.num_steps - count)
        if sum(row[option] for row, option in zip(allowance.rows, early + middle + late, strict=True)) <= (
            allowance.affordable
        ):
            break
    return allowance.schedule(_filled(allowance, early, late))


def searched(allowance: Allowance, table: ErrorTable | None = None) -> Schedule:
    """The schedule of least measured error.

    Raises:
        ValueError: If there is no table, or it lacks an option.
    """
    if table is None:
        raise ValueError(
            "got no table of measured errors, which the planners searched and adaptive go by; expected schedules.json"
            " beside the checkpoint; run python -m flexivid.search first, or choose --planner weak_first"
        )
    return searched_over([(allowance, table)])


def searched_fvd(allowance: Allowance, table: ErrorTable | None = None) -> Schedule:
    """The schedule whose samples came closest to real videos, of those that were tried.

    Raises:
        ValueError: If none was tried.
    """
    return searched_over([] if table is None else [(allowance, table)], scored_front)


def searched_over(rivals: Sequence[tuple[Allowance, ErrorTable]], front_of: FrontOf | None = None) -> Schedule:
    """The best schedule among several numbers of steps.

    Args:
        rivals: For each number of steps what may be spent, the same for all, and what was measured.
        front_of: Goal: :func:`expected_front` (also ``None``) or :func:`scored_front`.

    Raises:
        ValueError: If nothing is known that the goal goes by.
    """
    if rivals and rivals[0][0].affordable >= rivals[0][0].full:
        return rivals[0][0].schedule([0] * rivals[0][0].num_steps)  # full compute is native, whatever is closest
    front = merged([(front_of or expected_front)(allowance, table) for allowance, table in rivals])
    point = best(front, rivals[0][0].affordable) if front else None
    if point is None:
        raise ValueError(
            "got no schedule scored against real videos, which the planner searched_fvd goes by; expected scores in"
            " schedules.json beside the checkpoint; run python -m flexivid.search --goal fvd first, or choose --planner"
            " searched"
        )
    allowances = {allowance.num_steps: allowance for allowance, _ in rivals}
    return allowances[len(point.choice)].schedule(point.choice)


def error_front(allowance: Allowance, table: ErrorTable) -> list[Point]:
    """The best choices at every cost, with the sums of their calls' errors."""
    return frontier(table.rows(allowance.options), allowance.rows, max_switches=table.max_switches)


def expected_front(allowance: Allowance, table: ErrorTable) -> list[Point]:
    """The same, with the errors to be expected of them: see ``ErrorTable.expected``."""
    return [point._replace(error=table.expected(point.error)) for point in error_front(allowance, table)]


def scored_front(allowance: Allowance, table: ErrorTable) -> list[Point]:
    """The best of the schedules held against real videos, with their distances; none if none was.

    Those with an option that the allowance has not are left out.
    """
    places = {step: place for place, step in enumerate(allowance.options)}
    points = []
    for row in table.scored:
        steps = Schedule.parse(row.steps)
        if len(steps) == allowance.num_steps and places.keys() >= set(steps):
            choice = tuple(places[step] for step in steps)
            cost = sum(prices[option] for prices, option in zip(allowance.rows, choice, strict=True))
            points.append(Point(cost, row.fvd, choice))
    return merged([points])


PLANNERS: dict[str, Planner] = {
    "weak_first": weak_first,
    "searched": searched,
    "adaptive": searched,  # what a sample follows until it has changed often enough to be judged by its own changes
    "three_phase": three_phase,
    "searched_fvd": searched_fvd,
}


def check_planner(name: str) -> str:
    """Return the name.

    Raises:
        ValueError: If there is no such planner.
    """
    if name not in PLANNERS:
        raise ValueError(f"got planner {name!r}; expected one of {', '.join(PLANNERS)}; choose one")
    return name


def _filled(allowance: Allowance, early: Sequence[int], late: Sequence[int]) -> list[int]:
    """A choice between given ones: as many of the finest option at the end as can be paid, then of the next finer."""
    rows, end = allowance.rows, allowance.num_steps - len(late)
    cheapest = len(allowance.options) - 1
    choice = [*early, *[cheapest] * (end - len(early)), *late]
    left = allowance.affordable - sum(row[option] for row, option in zip(rows, choice, strict=True))
    for option in range(cheapest):
        while end > len(early) and rows[end - 1][option] - rows[end - 1][cheapest] <= left:
            end -= 1
            left -= rows[end][option] - rows[end][cheapest]
            choice[end] = option
    return choice
