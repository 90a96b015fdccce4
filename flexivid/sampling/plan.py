"""From a budget to a plan: which planner, what was measured that it goes by, and the schedule as the solver runs it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flexivid.budget.adaptive import AdaptivePlan
from flexivid.budget.allowance import Allowance, Amount, allowance_for
from flexivid.budget.measured import best_scored, searched, searched_over
from flexivid.budget.planners import OWN_STEPS, PLANNERS, early_scale, guided_stages
from flexivid.budget.schedule import Schedule, Step
from flexivid.budget.scores import ScoreTable
from flexivid.budget.spectral import spectral
from flexivid.budget.table import ErrorTable, Table, find_table
from flexivid.diffusion.guidance import at_call
from flexivid.diffusion.solver import call_times, check_solver, num_calls, steps_of_calls
from flexivid.diffusion.times import noise_shares
from flexivid.model.checkpoint import fingerprint
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.shipped import locate
from flexivid.patching.shapes import PatchMode
from flexivid.sampling.options import MEASURED_UNDER
from flexivid.sampling.settings import Settings, full_macs, options_for, plain_calls, reading_macs, with_steps_of

PARTS = 16  # steps by which a planner is told of more compute, up to twice as much


class Plan(NamedTuple):
    """A patch plan with the budget it stands for, which names its files."""

    budget: float  # fraction of the all-native compute
    schedule: Schedule  # of every sample, a step for each call; where each chooses its own, the one they begin with
    adaptive: AdaptivePlan | None = None  # how each sample chooses its own; ``None`` = all follow the schedule
    planner: str | None = None  # who made it; ``None`` = whoever asked for it
    sampling: Mapping[str, Any] = {}  # settings of the sampler that the plan changes, such as ``{"shift": 2.0}``

    @property
    def followed(self) -> Schedule | AdaptivePlan:
        """The schedule of all samples, or the plan by which each chooses its own."""
        return self.adaptive or self.schedule

    @property
    def modes(self) -> set[PatchMode]:
        """Every mode that may be called."""
        steps = self.adaptive.allowance.options if self.adaptive else self.schedule
        return {mode for step in steps for mode in step.modes}

    def settings(self, settings: Settings) -> Settings:
        """The sampler's settings with those of the plan, its number of solver steps among them."""
        return with_steps_of(settings._replace(**self.sampling), len(self.followed))


def plan_of(schedule: Schedule, model: FlexiDiT, settings: Settings, budget: float | None = None) -> Plan:
    """A plan of a schedule, named by the budget that was asked for, or by the schedule's own, to three digits."""
    share = settings.schedule_macs(model.config, schedule) / full_macs(model, settings)
    return Plan(round(share, 3) if budget is None else budget, schedule)


def tables_folder(checkpoint: str | Path) -> Path:
    """Where the measured errors of a checkpoint, or of a shipped model by its name, are stored: its folder.

    Example:
        >>> tables_folder("runs/digits/last.ckpt").as_posix()
        'runs/digits'
    """
    path = locate(checkpoint)
    return path if path.is_dir() else path.parent


def plan_for(
    model: FlexiDiT,
    settings: Settings,
    budget: Amount | float | str = 1.0,
    schedule: Schedule | str | None = None,
    *,
    tables: Sequence[Table] = (),
    latency: Mapping[PatchMode | Step, float] | None = None,
) -> Plan:
    """The plan for a budget by the planner that the settings name, or an explicit schedule instead, checked.

    A plan may have fewer steps than the settings, or more, unless their number was asked for and the planner is not one
    that chooses it itself. The budget is a fraction in (0, 1], a preset (``draft``, ``balanced``, ``full``), or an
    amount in another unit; one in seconds needs ``latency``, see ``known_latency``. ``tables``, from ``read_tables``,
    hold what was measured of this model. ``ValueError`` if a mode is unknown, a schedule's length does not fit the
    solver, the budget cannot be met, or the planner lacks what it goes by.
    """
    if schedule is not None:
        return plan_of(_explicit_schedule(model, settings, schedule), model, settings)
    amount = budget if isinstance(budget, Amount) else Amount(budget)
    planner, table = _planner_for(model, settings, tables)
    measured = settings
    if isinstance(table, ErrorTable) and settings.modes is None:  # some modes may not have been measured
        measured = settings._replace(modes=tuple(str(step.mode) for step in table.options if step.modes))
    try:
        keep_steps = planner == "adaptive" or _fixed_calls(settings) is not None
        allowance = allowance_of(model, measured, amount, latency, keep_steps=keep_steps)
        plan = _plan_by(planner, table, model, measured, allowance, tables)
    except ValueError:
        if settings.planner is not None or table is None:
            raise
        settings = settings._replace(planner=_default_planner(settings))  # nothing so cheap was searched
        return plan_for(model, settings, amount, latency=latency)
    if amount.unit == "fraction" and not isinstance(amount.value, str):
        plan = plan._replace(budget=float(amount.value))
    return plan._replace(planner=planner)


def allowance_of(
    model: FlexiDiT,
    settings: Settings,
    budget: Amount | float | str = 1.0,
    latency: Mapping[PatchMode | Step, float] | None = None,
    *,
    keep_steps: bool = True,
) -> Allowance:
    """What a budget allows one video under these settings; arguments as in :func:`plan_for`.

    ``ValueError`` if it cannot be met; the least possible is named in its unit.
    """
    amount = budget if isinstance(budget, Amount) else Amount(budget)
    if amount.unit == "seconds":
        windows = len(settings.window_starts)
        costs = {call: windows * seconds for call, seconds in (latency or {}).items()}
    else:
        costs = {mode: settings.call_macs(model.config, mode) for mode in map(PatchMode, model.config.modes)}
    return allowance_for(
        amount,
        options_for(model, settings),
        costs,
        num_steps=num_calls(settings.solver, settings.num_inference_steps),
        plain_calls=plain_calls(model, settings),
        keep_steps=keep_steps,
        fixed=0 if amount.unit == "seconds" else reading_macs(model, settings),
    )


def runnable(schedule: Schedule, model: FlexiDiT, settings: Settings) -> Schedule:
    """A schedule as the solver can run it: Heun makes an odd number of calls, and guidance may have an interval."""
    if settings.solver == "heun" and len(schedule) % 2 == 0:
        schedule = Schedule(schedule[1:])
    plain = plain_calls(model, with_steps_of(settings, len(schedule)))
    return Schedule(at_call(step, call, plain) for call, step in enumerate(schedule))


def table_settings(settings: Settings) -> dict[str, Any]:
    """Settings that sampling and a measurement must have in common, as plain data."""
    interval = settings.guidance_interval and list(settings.guidance_interval)
    values = {name: getattr(settings, name) for name in MEASURED_UNDER}
    weak = settings.weak_guidance_scale  # named only if there is one: older tables are found without it
    named: dict[str, Any] = {} if weak is None else {"weak_guidance_scale": weak}
    newer = {"window_frames": settings.window_frames, "frame_guidance": settings.frame_guidance}
    named |= {name: value for name, value in newer.items() if value}
    return {**values, **named, "guidance_interval": interval, "size": list(settings.size)}


def _plan_by(
    planner: str,
    table: Table | None,
    model: FlexiDiT,
    settings: Settings,
    allowance: Allowance,
    tables: Sequence[Table],
) -> Plan:
    """The plan of a planner, called by its own share of the all-native compute."""
    if planner == "searched_fvd":
        row = best_scored(allowance, table, num_calls=_fixed_calls(settings))
        return plan_of(Schedule.parse(row.steps), model, settings)._replace(sampling=dict(row.sampling))
    if planner == "adaptive":
        adaptive = AdaptivePlan(allowance, table if isinstance(table, ErrorTable) else None)
        return Plan(round(adaptive.share, 3), adaptive.opening, adaptive)
    if planner == "searched":
        if not isinstance(table, ErrorTable):
            return plan_of(searched(allowance, table), model, settings)
        return plan_of(searched_over(_alternatives(model, settings, allowance, table, tables)), model, settings)
    if planner == "staged" and settings.guidance_interval is None and settings.weak_guidance_scale is None:
        options, choice = guided_stages(allowance)
        plan = plan_of(runnable(options.schedule(choice), model, settings), model, settings)
        is_early = options is not allowance
        return plan._replace(sampling={"guidance_scale": early_scale(settings.guidance_scale)} if is_early else {})
    return plan_of(_bought(planner, model, settings, allowance), model, settings)


def _bought(planner: str, model: FlexiDiT, settings: Settings, allowance: Allowance) -> Schedule:
    """The schedule that a planner buys.

    One that chooses the number of steps prices all of them with guidance. Where an interval leaves some without, it is
    told of more compute than there is, as much as its schedule then still leaves within the allowance.
    """
    is_cheaper = planner in OWN_STEPS and settings.guidance_interval is not None
    for part in range(2 * PARTS if is_cheaper else PARTS, PARTS - 1, -1):
        larger = allowance._replace(affordable=allowance.affordable * part // PARTS)
        choice = _spectral_choice(model, settings, larger) if planner == "spectral" else PLANNERS[planner](larger)
        schedule = runnable(Schedule(allowance.options[option] for option in choice), model, settings)
        if allowance.cost(schedule) <= allowance.affordable:
            break
    return schedule


def _spectral_choice(model: FlexiDiT, settings: Settings, allowance: Allowance) -> list[int]:
    """The spectral planner's choice under the times of the solver."""
    spectrum, process = model.recipe.spectrum, model.recipe.process
    if spectrum is None:
        raise ValueError(
            "got planner spectral for a model whose recipe has no spectrum; expected one that training measured; train"
            " anew, or choose --planner weak_first"
        )

    def times_of(calls: int) -> list[float]:
        steps = steps_of_calls(settings.solver, calls)
        times = call_times(process, settings.solver, steps, shift=settings.shift)
        return noise_shares(process, times)[:calls]

    return spectral(allowance, spectrum, times_of)


def _alternatives(
    model: FlexiDiT, settings: Settings, allowance: Allowance, table: ErrorTable, tables: Sequence[Table]
) -> list[tuple[Allowance, ErrorTable]]:
    """The table of the settings, and those of other numbers of steps that can be compared with it."""
    alternatives = []
    others = [] if settings.fixed_steps or table.finest is None else [each for each in tables if each is not table]
    for candidate in [table, *others]:
        fewer = settings._replace(num_inference_steps=candidate.settings["num_inference_steps"])
        if candidate is table or (
            isinstance(candidate, ErrorTable)
            and (candidate.finest, dict(candidate.settings)) == (table.finest, table_settings(fewer))
            and set(allowance.options) <= set(candidate.options)
        ):
            calls = num_calls(fewer.solver, fewer.num_inference_steps)
            shorter = allowance._replace(num_steps=calls, plain_calls=plain_calls(model, fewer))
            alternatives.append((shorter, candidate))
    return alternatives


def _planner_for(model: FlexiDiT, settings: Settings, tables: Sequence[Table]) -> tuple[str, Table | None]:
    """Name of the planner, and the table it goes by.

    Without a name: what was scored against real videos under these settings, else what was measured against full
    compute, else ``staged``, or ``weak_first`` where the number of steps was asked for.
    """
    if settings.planner in (*PLANNERS, "spectral"):
        return settings.planner, None
    scores, errors = None, None
    if tables:
        weights, conditions = fingerprint(model), table_settings(settings)
        scores = find_table(tables, weights, conditions, ScoreTable)
        errors = find_table(tables, weights, conditions)
    if settings.planner is None:
        calls = _fixed_calls(settings)
        if scores is not None and (
            calls is None or any(len(Schedule.parse(row.steps)) == calls for row in scores.rows)
        ):
            return "searched_fvd", scores
        return ("searched", errors) if errors is not None else (_default_planner(settings), None)
    kind, table = (ScoreTable, scores) if settings.planner == "searched_fvd" else (ErrorTable, errors)
    measured = "; ".join(str(dict(candidate.settings)) for candidate in tables if isinstance(candidate, kind))
    if measured and table is None:
        raise ValueError(
            f"got planner {settings.planner} for {table_settings(settings)}; expected settings that were measured"
            f" ({measured}); run python -m flexivid.search with these, or choose --planner staged"
        )
    return settings.planner, table


def _default_planner(settings: Settings) -> str:
    return "weak_first" if settings.fixed_steps else "staged"


def _fixed_calls(settings: Settings) -> int | None:
    """Calls of the network if the number of steps was asked for and the planner keeps it; ``None`` = any number."""
    is_fixed = settings.fixed_steps and settings.planner not in OWN_STEPS
    return num_calls(settings.solver, settings.num_inference_steps) if is_fixed else None


def _explicit_schedule(model: FlexiDiT, settings: Settings, schedule: Schedule | str) -> Schedule:
    """The schedule with guidance, and as many solver steps as it has calls unless another number was asked for."""
    plan = (Schedule.parse(schedule) if isinstance(schedule, str) else Schedule(schedule)).check()
    steps = settings.num_inference_steps if settings.fixed_steps else steps_of_calls(settings.solver, len(plan))
    calls = num_calls(settings.solver, steps)
    check_solver(model.recipe.process, settings.solver, steps)
    if len(plan) != calls:
        raise ValueError(
            f"got a schedule of {len(plan)} steps; expected {calls} ({steps} inference steps of {settings.solver});"
            " change the counts or num_inference_steps"
        )
    for mode in {mode for step in plan for mode in step.modes}:
        model.config.mode(mode)
    if settings.guidance_scale == settings.weak_scale == 1 and any(step.guide_mode for step in plan):
        warnings.warn("the guidance of the schedule has no effect, but costs: guidance_scale is 1", stacklevel=4)
    if all(step.guide_mode is None for step in plan):
        options = {step.plain: step for step in options_for(model, settings._replace(modes=None))}
        plain = plain_calls(model, with_steps_of(settings, len(plan)))
        plan = Schedule(at_call(options.get(step, step), call, plain) for call, step in enumerate(plan))
    return plan
