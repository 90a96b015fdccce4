"""How programs speak of samples: a line for each plan before the work, for each result after it. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from flexivid.budget.allowance import price_of
from flexivid.budget.cost import human
from flexivid.budget.schedule import Schedule


def describe(plan: Any, model: Any, settings: Any, num_videos: int, latency: Mapping[Any, float] | None = None) -> str:
    """One line before the work: the plan and what it costs, in seconds too where those of a call are known."""
    if plan.adaptive is not None:
        return f"budget {plan.budget:g}: {plan.adaptive}, each video its own; at most {plan.adaptive.share:.3g} of all"
    cost = settings.schedule_macs(model.config, plan.schedule)
    condition = "text" if model.config.text_channels else "class"
    line = plan_line(plan.budget, plan.schedule, cost, num_videos, without=condition)
    windows = len(settings.window_starts)
    line += f"; {windows} windows of {settings.window_frames} latent frames a step" if windows > 1 else ""
    line += f"; planner {plan.planner}" if plan.planner else ""
    line += "".join(f", {name.replace('_', ' ')} {value}" for name, value in plan.sampling.items())
    if latency:
        seconds = windows * sum(price_of(step, latency) for step in plan.schedule)
        line += f"; about {seconds:.3g} s a video"
    return line


def plan_line(budget: float, schedule: Schedule, macs_per_video: int, videos: int, *, without: str = "class") -> str:
    """How many steps of which mode, how they are guided, and what they cost.

    Example:
        >>> plan_line(0.25, Schedule.parse("12x4x8x8,8x2x4x4"), 2_000_000, 8)
        'budget 0.25: 12 steps of 4x8x8, 8 of 2x4x4, without guidance; 2.00 MMACs a video, 16.0 MMACs in all'
        >>> plan_line(1, Schedule.parse("3x2x4x4+2x4x4,1x2x4x4"), 2_000_000, 8).split("; ")[0]
        'budget 1: 4 steps of 2x4x4, the first 3 guided by a second call without the class'
    """
    steps = _counted(step.mode or step for step in schedule)
    cost = f"{human(macs_per_video)} a video, {human(macs_per_video * videos)} in all"
    return f"budget {budget:g}: {steps}, {_guidance(schedule, without)}; {cost}"


def _guidance(schedule: Schedule, without: str) -> str:
    guided = [step for step in schedule if step.guide_mode is not None]
    if not guided:
        return "without guidance"
    calls, count = [step for step in schedule if step.mode is not None], len(guided)
    which = f"{count} of them"
    if guided == calls[:count]:
        which = "each" if count == len(calls) else f"the first {count}"
    if all(step.guide_mode == step.mode for step in guided):
        return f"{which} guided by a second call without the {without}"
    modes = dict.fromkeys(str(step.guide_mode) for step in guided)
    return f"{which} guided by a second call in {' or '.join(modes)}"


def _counted(modes: Iterable[Any]) -> str:
    """``12 steps of 4x8x8, 8 of 2x4x4``: neighbours counted."""
    (count, first), *rest = [(len(list(group)), mode) for mode, group in groupby(modes)]
    return ", ".join([f"{count} step{'s' * (count > 1)} of {first}", *(f"{count} of {mode}" for count, mode in rest)])


def result_line(budget: float, outcome: Any, full: Any) -> str:
    """One line after the work: what was measured, against the first plan."""
    share = outcome.measured_macs / full.measured_macs
    videos = "1 video" if len(outcome.files) == 1 else f"{len(outcome.files)} videos"
    return (
        f"budget {budget:g}: measured {human(outcome.measured_macs)} ({share:.1%} of the first),"
        f" {outcome.seconds:.2f} s ({outcome.seconds / full.seconds:.1%}), {videos}"
    )
