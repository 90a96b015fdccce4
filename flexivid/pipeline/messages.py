"""How programs speak: plans and results as lines for people, progress, errors as one line. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flexivid.budget.cost import human


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what a user can cause into one line on stderr and exit status 2; Ctrl-C into 130."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from error


def plan_line(budget: float, schedule: Any, macs_per_video: int, videos: int) -> str:
    """One line before the work: what will be done and what it costs.

    Example:
        >>> from flexivid import Schedule
        >>> plan_line(0.25, Schedule.parse("12x4x8x8,8x2x4x4"), 2_000_000, 8)
        'budget 0.25: 12 steps of 4x8x8, 8 of 2x4x4; 2.00 MMACs a video, 16.0 MMACs in all'
    """
    runs = [f"{count} of {step.mode}{_guide(step)}" for count, step in schedule.runs()]
    runs[0] = runs[0].replace(" of ", " steps of ", 1)
    guided = ", two passes a step (guidance)" if any(step.guide_mode == step.mode for step in schedule) else ""
    cost = f"{human(macs_per_video)} a video, {human(macs_per_video * videos)} in all"
    return f"budget {budget:g}: {', '.join(runs)}{guided}; {cost}"


def result_line(budget: float, outcome: Any, full: Any) -> str:
    """One line after the work: what was measured, against the first plan."""
    share = outcome.measured_macs / full.measured_macs
    return (
        f"budget {budget:g}: measured {human(outcome.measured_macs)} ({share:.1%} of the first),"
        f" {outcome.seconds:.2f} s ({outcome.seconds / full.seconds:.1%}), {len(outcome.files)} videos"
    )


def _guide(step: Any) -> str:
    return f" guided by {step.guide_mode}" if step.guide_mode not in (None, step.mode) else ""
