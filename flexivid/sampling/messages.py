"""How programs speak: plans and results as lines for people, progress, errors as one line. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from flexivid.budget.cost import human


def plan_line(budget: float, schedule: Any, macs_per_video: int, videos: int) -> str:
    """One line before the work: how many steps of which mode in each branch, and what it costs.

    Example:
        >>> from flexivid import Schedule
        >>> plan_line(0.25, Schedule.parse("12x4x8x8,8x2x4x4"), 2_000_000, 8)
        'budget 0.25: 12 steps of 4x8x8, 8 of 2x4x4, no guidance; 2.00 MMACs a video, 16.0 MMACs in all'
    """
    branches = [_counted(step.mode or step for step in schedule)]
    guides = [step.guide_mode for step in schedule if step.guide_mode is not None]
    if not guides:
        branches.append("no guidance")
    elif all(step.guide_mode == step.mode for step in schedule if step.modes):
        branches.append("guidance branch the same without the condition")
    else:
        branches.append(f"guidance branch {_counted(guides)}")
    cost = f"{human(macs_per_video)} a video, {human(macs_per_video * videos)} in all"
    return f"budget {budget:g}: {', '.join(branches)}; {cost}"


def _counted(modes: Iterable[Any]) -> str:
    """``12 steps of 4x8x8, 8 of 2x4x4``: neighbours counted."""
    runs = [f"{len(list(group))} of {mode}" for mode, group in groupby(modes)]
    return ", ".join([runs[0].replace(" of ", " steps of "), *runs[1:]])


def result_line(budget: float, outcome: Any, full: Any) -> str:
    """One line after the work: what was measured, against the first plan."""
    share = outcome.measured_macs / full.measured_macs
    return (
        f"budget {budget:g}: measured {human(outcome.measured_macs)} ({share:.1%} of the first),"
        f" {outcome.seconds:.2f} s ({outcome.seconds / full.seconds:.1%}), {len(outcome.files)} videos"
    )
