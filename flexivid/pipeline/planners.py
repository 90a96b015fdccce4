"""Who chooses the schedule of an allowance, what was measured that it goes by, and the schedule it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flexivid.budget.planners import PLANNERS, expected_front, scored_front, searched_over
from flexivid.budget.schedule import Schedule
from flexivid.budget.table import ErrorTable, find_table
from flexivid.budget.units import Allowance
from flexivid.diffusion.guidance import at_call
from flexivid.diffusion.solver import num_calls
from flexivid.model.flexidit import FlexiDiT
from flexivid.pipeline.checkpoint import fingerprint
from flexivid.pipeline.sampling import Settings, fraction_of, plain_calls

GOALS = {"searched": expected_front, "searched_fvd": scored_front}  # planners over numbers of steps


def plan_for(
    model: FlexiDiT,
    settings: Settings,
    budget: float | str,
    schedule: Schedule | str | None = None,
    *,
    tables: Sequence[ErrorTable] = (),
) -> Schedule:
    """The patch plan: the explicit one, checked, or the planner's for the budget.

    Args:
        model: The network.
        settings: From ``Sampling(...).filled(model)``.
        budget: Fraction of the all-native compute, or a preset: ``draft``, ``balanced``, ``full``.
        schedule: An explicit plan instead.
        tables: Measured errors of this model, from ``read_tables``.

    Raises:
        ValueError: If a mode is unknown, the plan's length does not fit the solver, or the budget cannot be met.
    """
    if schedule is not None:
        return _explicit_plan(model, settings, schedule)
    chosen = planner_for(model, settings, tables)
    return schedule_by(chosen, model, settings, fraction_of(model, settings, budget), tables)


def schedule_by(
    chosen: tuple[str, ErrorTable | None],
    model: FlexiDiT,
    settings: Settings,
    allowance: Allowance,
    tables: Sequence[ErrorTable],
) -> Schedule:
    """The planner's schedule for an allowance. A searched one may have fewer steps, unless their number was asked for.

    Args:
        chosen: From :func:`planner_for`.
        model: The network.
        settings: From ``Sampling(...).filled(model)``.
        allowance: What may be spent, under these settings.
        tables: Measured errors of this model, from ``read_tables``.

    Raises:
        ValueError: If the planner lacks what it goes by.
    """
    planner, table = chosen
    if planner in GOALS and table is not None:
        return searched_over(_rivals(model, settings, allowance, table, tables), GOALS[planner])
    return PLANNERS[planner](allowance, table)


def _rivals(
    model: FlexiDiT, settings: Settings, allowance: Allowance, table: ErrorTable, tables: Sequence[ErrorTable]
) -> list[tuple[Allowance, ErrorTable]]:
    """The table of the settings, and those of fewer steps that can be compared with it."""
    rivals = [(allowance, table)]
    for other in () if settings.fixed_steps or table.finest is None else tables:
        fewer = settings._replace(num_inference_steps=other.settings["num_inference_steps"])
        is_fewer = fewer.num_inference_steps < settings.num_inference_steps
        if is_fewer and other.finest == table.finest and dict(other.settings) == table_settings(fewer):
            calls = num_calls(fewer.solver, fewer.num_inference_steps)
            rivals.append((allowance._replace(num_steps=calls, plain_calls=plain_calls(model, fewer)), other))
    return rivals


def planner_for(model: FlexiDiT, settings: Settings, tables: Sequence[ErrorTable]) -> tuple[str, ErrorTable | None]:
    """Name of the planner, and the table it goes by.

    Raises:
        ValueError: If the tables are of another model, or the planner needs one and none was measured so.
    """
    if settings.planner in ("weak_first", "three_phase"):
        return settings.planner, None
    table = find_table(tables, fingerprint(model), table_settings(settings)) if tables else None
    if settings.planner is None:
        if table is None:
            return "weak_first", None
        return ("searched_fvd" if table.scored else "searched"), table
    if tables and table is None:
        known = "; ".join(str(dict(table.settings)) for table in tables)
        raise ValueError(
            f"got planner {settings.planner} for {table_settings(settings)}; expected settings that errors were"
            f" measured under ({known}); run python -m flexivid.search with these, or choose --planner weak_first"
        )
    return settings.planner, table


def table_settings(settings: Settings) -> dict[str, Any]:
    """What sampling and a measurement of errors must have in common, as plain data."""
    names = ("num_inference_steps", "guidance_scale", "guidance", "guide_mode", "solver", "shift")
    interval = settings.guidance_interval and list(settings.guidance_interval)
    known = {name: getattr(settings, name) for name in names}
    return {**known, "guidance_interval": interval, "size": list(settings.size)}


def _explicit_plan(model: FlexiDiT, settings: Settings, schedule: Schedule | str) -> Schedule:
    calls, guided = num_calls(settings.solver, settings.num_inference_steps), settings.guidance_scale != 1.0
    plan = Schedule.parse(schedule) if isinstance(schedule, str) else Schedule(schedule)
    if guided and all(step.guide_mode is None for step in plan):
        guide = model.config.mode(settings.guide_mode) if settings.guide_mode else None
        unguided = plain_calls(model, settings)
        plan = Schedule(at_call(step, call, unguided) for call, step in enumerate(plan.guided(guide)))
    for mode in {mode for step in plan for mode in step if mode is not None}:
        model.config.mode(mode)
    if len(plan) != calls:
        raise ValueError(
            f"got a schedule of {len(plan)} steps; expected {calls} ({settings.num_inference_steps} inference steps of"
            f" {settings.solver}); change the counts or num_inference_steps"
        )
    return plan
