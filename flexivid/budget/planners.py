"""Which schedule an allowance buys: one function a planner, all in ``PLANNERS``. No torch.

Every planner stays within the allowance, whatever its unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flexivid.budget.schedule import Schedule, greedy_counts
from flexivid.budget.search import best, frontier
from flexivid.budget.table import ErrorTable
from flexivid.budget.units import Allowance

Planner = Callable[[Allowance, "ErrorTable | None"], Schedule]


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
    return allowance.schedule(_weak_first(allowance))


def three_phase(allowance: Allowance, table: ErrorTable | None = None) -> Schedule:
    """Native, weak, native: the steps of :func:`weak_first`, with half of the native ones moved to the beginning.

    Source:
        SRDiffusion (the large model in the earliest steps) and FlowBlending (in the earliest and the latest).
    """
    choice = _weak_first(allowance)
    early = (choice.count(0) + 1) // 2
    return allowance.schedule([0] * early + choice[: len(choice) - early])


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
    front = frontier(table.rows(allowance.options), allowance.costs, max_switches=table.max_switches)
    point = best(front, allowance.affordable)
    assert point is not None, "an allowance pays for the cheapest option everywhere"
    return allowance.schedule(point.choice)


PLANNERS: dict[str, Planner] = {
    "weak_first": weak_first,
    "searched": searched,
    "adaptive": searched,  # what a sample follows until it has changed often enough to be judged by its own changes
    "three_phase": three_phase,
}


def check_planner(name: str) -> str:
    """Return the name.

    Raises:
        ValueError: If there is no such planner.
    """
    if name not in PLANNERS:
        raise ValueError(f"got planner {name!r}; expected one of {', '.join(PLANNERS)}; choose one")
    return name


def _weak_first(allowance: Allowance) -> list[int]:
    """Indices of the options, cheapest first, native last."""
    counts: Sequence[int] = greedy_counts(allowance.costs, allowance.num_steps, allowance.affordable)
    return [option for option in reversed(range(len(counts))) for _ in range(counts[option])]
