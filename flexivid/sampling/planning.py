"""From what a user asks (a fraction, a preset, GMACs or seconds; a planner) to a plan and the line that tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flexivid.budget.allowance import Allowance
from flexivid.budget.schedule import schedule_macs
from flexivid.budget.table import Table
from flexivid.budget.units import gmacs_allowance, seconds_allowance
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.shipped import locate
from flexivid.patching.shapes import PatchMode
from flexivid.sampling.messages import plan_line
from flexivid.sampling.plan import Plan
from flexivid.sampling.planners import plan_by, planner_for
from flexivid.sampling.settings import Settings, choices_for, fraction_of


class Amount(NamedTuple):
    """What may be spent on one video.

    Args:
        value: A number, or the name of a preset where the unit is ``fraction``.
        unit: ``fraction`` of the all-native compute, ``gmacs`` or ``seconds``.

    Example:
        >>> Amount("draft"), Amount(1.5, "seconds")
        (Amount(value='draft', unit='fraction'), Amount(value=1.5, unit='seconds'))
    """

    value: float | str
    unit: str = "fraction"


def tables_folder(checkpoint: str | Path) -> Path:
    """Where the measured errors of a checkpoint, or of a shipped model by its name, are kept: its folder.

    Example:
        >>> tables_folder("runs/digits/last.ckpt").as_posix()
        'runs/digits'
    """
    path = locate(checkpoint)
    return path if path.is_dir() else path.parent


def allowance_for(
    model: FlexiDiT,
    settings: Settings,
    amount: Amount,
    latency: Mapping[PatchMode, float] | None = None,
    *,
    keep_steps: bool = True,
) -> Allowance:
    """What an amount allows one video.

    Args:
        model: The network.
        settings: From ``Sampling(...).filled(model)``.
        amount: What may be spent.
        latency: Seconds of one call for one video, by mode; only seconds need it.
        keep_steps: Whether the plan has to have the settings' number of steps.

    Raises:
        ValueError: If the amount cannot be met; the least possible is named in its unit.
    """
    if amount.unit == "fraction":
        return fraction_of(model, settings, amount.value, keep_steps=keep_steps)
    choices = {**choices_for(model, settings), "keep_steps": keep_steps}
    if amount.unit == "gmacs":
        return gmacs_allowance(float(amount.value), model.config, settings.size, **choices)
    return seconds_allowance(float(amount.value), latency or {}, **choices)


def plan_within(
    model: FlexiDiT,
    settings: Settings,
    amount: Amount,
    *,
    tables: Sequence[Table] = (),
    latency: Mapping[PatchMode, float] | None = None,
) -> Plan:
    """The planner's plan for an amount.

    Args:
        model: The network.
        settings: From ``Sampling(...).filled(model)``; they name the planner.
        amount: What may be spent.
        tables: What was measured of this model, from ``read_tables``.
        latency: As in :func:`allowance_for`.

    Raises:
        ValueError: If the amount cannot be met, or the planner lacks what it goes by.
    """
    planner, table = planner_for(model, settings, tables)
    keep_steps = settings.fixed_steps or planner == "adaptive"
    allowance = allowance_for(model, settings, amount, latency, keep_steps=keep_steps)
    named = float(amount.value) if amount.unit == "fraction" and not isinstance(amount.value, str) else None
    return plan_by(planner, table, model, settings, allowance, tables=tables, budget=named)


def describe(
    plan: Plan, model: FlexiDiT, settings: Settings, num_videos: int, latency: Mapping[PatchMode, float] | None = None
) -> str:
    """One line before the work: the plan and what it costs, in seconds too where a call's are known."""
    if plan.adaptive is not None:
        return f"budget {plan.budget:g}: {plan.adaptive}, each video its own; at most {plan.adaptive.share:.3g} of all"
    cost = schedule_macs(plan.schedule, model.config, settings.size)
    line = plan_line(plan.budget, plan.schedule, cost, num_videos)
    line += f"; planner {plan.planner}" if plan.planner else ""
    line += "".join(f", {name.replace('_', ' ')} {value}" for name, value in plan.sampling.items())
    if latency:
        seconds = sum(latency[mode] for step in plan.schedule for mode in step.modes)
        line += f"; about {seconds:.3g} s a video"
    return line
