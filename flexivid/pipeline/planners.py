"""From settings and a budget to a plan: which planner, what was measured that it goes by, and what it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flexivid.budget.adaptive import AdaptivePlan
from flexivid.budget.allowance import Allowance
from flexivid.budget.planners import PLANNERS, best_scored, searched_over, spectral
from flexivid.budget.schedule import Schedule
from flexivid.budget.scores import ScoreTable, affordable_rows
from flexivid.budget.table import ErrorTable, Table, find_scores, find_table
from flexivid.diffusion.guidance import at_call
from flexivid.diffusion.solver import call_times, num_calls, steps_of_calls
from flexivid.model.flexidit import FlexiDiT
from flexivid.pipeline.checkpoint import fingerprint, process_of
from flexivid.pipeline.plan import Plan, plan_of
from flexivid.pipeline.sampling import Settings, fraction_of, options_for, plain_calls, with_steps_of
from flexivid.pipeline.spectrum import noise_shares, required_spectrum

NEED_NO_TABLE = ("staged", "spectral", "weak_first", "three_phase", "fewer_steps")


def plan_for(
    model: FlexiDiT,
    settings: Settings,
    budget: float | str,
    schedule: Schedule | str | None = None,
    *,
    tables: Sequence[Table] = (),
) -> Plan:
    """The plan of a fraction of the all-native compute, or an explicit schedule, checked.

    Args:
        model: The network.
        settings: From ``Sampling(...).filled(model)``; they name the planner.
        budget: In (0, 1], or a preset: ``draft``, ``balanced``, ``full``.
        schedule: An explicit schedule instead.
        tables: What was measured of this model, from ``read_tables``.

    Raises:
        ValueError: If a mode is unknown, a schedule's length does not fit the solver, or the budget cannot be met.
    """
    if schedule is not None:
        return plan_of(_explicit_schedule(model, settings, schedule), model, settings)
    planner, table = planner_for(model, settings, tables)
    allowance = fraction_of(model, settings, budget, keep_steps=settings.fixed_steps or planner == "adaptive")
    share = None if isinstance(budget, str) else budget
    return plan_by(planner, table, model, settings, allowance, tables=tables, budget=share)


def plan_by(
    planner: str,
    table: Table | None,
    model: FlexiDiT,
    settings: Settings,
    allowance: Allowance,
    *,
    tables: Sequence[Table] = (),
    budget: float | None = None,
) -> Plan:
    """The planner's plan for an allowance. It may have fewer steps, or more, unless their number was asked for.

    Args:
        planner: Name and table from :func:`planner_for`.
        table: Likewise.
        model: The network.
        settings: From ``Sampling(...).filled(model)``.
        allowance: What may be spent, under these settings.
        tables: What was measured of this model, from ``read_tables``.
        budget: What the plan is called; ``None`` = its share of the all-native compute.

    Raises:
        ValueError: If the planner lacks what it goes by.
    """
    sampling: dict[str, Any] = {}
    adaptive = None
    calls = num_calls(settings.solver, settings.num_inference_steps) if settings.fixed_steps else None
    searched = isinstance(table, ScoreTable) and affordable_rows(table, allowance, num_calls=calls)
    if planner == "searched_fvd" and settings.planner is None and not searched:
        planner = "weak_first" if settings.fixed_steps else "staged"  # nothing so cheap was searched
    if planner == "searched_fvd":
        row = best_scored(allowance, table, num_calls=calls)
        schedule, sampling = Schedule.parse(row.steps), dict(row.sampling)
    elif planner == "adaptive":
        adaptive = AdaptivePlan(allowance, table if isinstance(table, ErrorTable) else None)
        schedule = adaptive.opening
        budget = round(adaptive.share, 3) if budget is None else budget
    elif planner == "searched" and isinstance(table, ErrorTable):
        schedule = searched_over(_rivals(model, settings, allowance, table, tables))
    elif planner == "spectral":
        schedule = runnable(_spectral(model, settings, allowance), model, settings)
    else:
        schedule = runnable(PLANNERS[planner](allowance, table), model, settings)
    return plan_of(schedule, model, settings, budget)._replace(adaptive=adaptive, planner=planner, sampling=sampling)


def _spectral(model: FlexiDiT, settings: Settings, allowance: Allowance) -> Schedule:
    """The spectral planner's schedule under the times of the solver."""
    spectrum, process = required_spectrum(model, "spectral"), process_of(model.recipe)

    def times_of(calls: int) -> list[float]:
        steps = steps_of_calls(settings.solver, calls)
        times = call_times(process, settings.solver, steps, shift=settings.shift)
        return noise_shares(process, times)[:calls]

    return spectral(allowance, spectrum, times_of)


def runnable(schedule: Schedule, model: FlexiDiT, settings: Settings) -> Schedule:
    """A schedule as the solver can run it: Heun makes an odd number of calls, and guidance may have an interval."""
    if settings.solver == "heun" and len(schedule) % 2 == 0:
        schedule = Schedule(schedule[1:])
    plain = plain_calls(model, with_steps_of(settings, len(schedule)))
    return Schedule(at_call(step, call, plain) for call, step in enumerate(schedule))


def _rivals(
    model: FlexiDiT, settings: Settings, allowance: Allowance, table: ErrorTable, tables: Sequence[Table]
) -> list[tuple[Allowance, ErrorTable]]:
    """The table of the settings, and those of other numbers of steps that can be compared with it."""
    full = num_calls(settings.solver, settings.num_inference_steps)
    rivals = [(allowance, table)] if allowance.num_steps == full else []
    for other in () if settings.fixed_steps or table.finest is None else tables:
        fewer = settings._replace(num_inference_steps=other.settings["num_inference_steps"])
        calls = num_calls(fewer.solver, fewer.num_inference_steps)
        whole = allowance._replace(num_steps=calls, plain_calls=plain_calls(model, fewer))
        if (
            isinstance(other, ErrorTable)
            and calls != full
            and (other.finest, dict(other.settings)) == (table.finest, table_settings(fewer))
            and sum(row[-1] for row in whole.rows) <= allowance.affordable
        ):
            rivals.append((whole, other))
    if not rivals:
        raise ValueError(
            f"got a budget that pays for {allowance.num_steps} calls in the cheapest mode; expected a table of measured"
            " errors with so few; search with that many --num-inference-steps, or choose --planner staged"
        )
    return rivals


def planner_for(model: FlexiDiT, settings: Settings, tables: Sequence[Table]) -> tuple[str, Table | None]:
    """Name of the planner, and the table it goes by.

    Without a name: what was scored against real videos under these settings, else what was measured against full
    compute, else ``staged``, or ``weak_first`` where the number of steps was asked for.

    Raises:
        ValueError: If the tables are of another model, or the planner needs one and none was measured so.
    """
    if settings.planner in NEED_NO_TABLE:
        return settings.planner, None
    scores, errors = _measured(model, settings, tables)
    if settings.planner is None:
        if scores is not None and (not settings.fixed_steps or _has_calls(scores, settings)):
            return "searched_fvd", scores
        if errors is not None:
            return "searched", errors
        return ("weak_first" if settings.fixed_steps else "staged"), None
    table = scores if settings.planner == "searched_fvd" else errors
    if tables and table is None:
        known = "; ".join(str(dict(table.settings)) for table in tables)
        raise ValueError(
            f"got planner {settings.planner} for {table_settings(settings)}; expected settings that were measured"
            f" ({known}); run python -m flexivid.search with these, or choose --planner staged"
        )
    return settings.planner, table


def _measured(
    model: FlexiDiT, settings: Settings, tables: Sequence[Table]
) -> tuple[ScoreTable | None, ErrorTable | None]:
    """Scores and errors under these settings."""
    if not tables:
        return None, None
    name, known = fingerprint(model), table_settings(settings)
    return find_scores(tables, name, known), find_table(tables, name, known)


def _has_calls(scores: ScoreTable, settings: Settings) -> bool:
    """Whether a plan with the number of steps that was asked for was scored."""
    calls = num_calls(settings.solver, settings.num_inference_steps)
    return any(len(Schedule.parse(row.steps)) == calls for row in scores.rows)


def table_settings(settings: Settings) -> dict[str, Any]:
    """What sampling and a measurement must have in common, as plain data."""
    names = ("num_inference_steps", "guidance_scale", "guidance", "guide_mode", "solver", "shift")
    interval = settings.guidance_interval and list(settings.guidance_interval)
    known = {name: getattr(settings, name) for name in names}
    weak = settings.weak_guidance_scale  # named only if there is one: older tables are found without it
    named = {} if weak is None else {"weak_guidance_scale": weak}
    return {**known, **named, "guidance_interval": interval, "size": list(settings.size)}


def _explicit_schedule(model: FlexiDiT, settings: Settings, schedule: Schedule | str) -> Schedule:
    """The schedule with guidance, and as many solver steps as it has calls unless another number was asked for."""
    plan = (Schedule.parse(schedule) if isinstance(schedule, str) else Schedule(schedule)).check()
    own = with_steps_of(settings, len(plan))
    calls = num_calls(
        settings.solver, settings.num_inference_steps if settings.fixed_steps else own.num_inference_steps
    )
    if len(plan) != calls:
        steps = settings.num_inference_steps if settings.fixed_steps else own.num_inference_steps
        raise ValueError(
            f"got a schedule of {len(plan)} steps; expected {calls} ({steps} inference steps of {settings.solver});"
            " change the counts or num_inference_steps"
        )
    for mode in {mode for step in plan for mode in step.modes}:
        model.config.mode(mode)
    if all(step.guide_mode is None for step in plan):
        options = {step.plain: step for step in options_for(model, settings._replace(modes=None))}
        plain = plain_calls(model, own)
        plan = Schedule(at_call(options.get(step, step), call, plain) for call, step in enumerate(plan))
    return plan
