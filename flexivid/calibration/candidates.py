"""Which plans a search samples: candidates to begin with, and variations of the leaders.

Every plan has large patches first and fine ones last. Candidates differ in their modes and in the share of the budget
that goes to the first stage; solver, spacing of times and guidance are varied around the leaders only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from flexivid.budget.allowance import Allowance
from flexivid.budget.planners import staged
from flexivid.budget.schedule import REUSE, Step, affordable_cost
from flexivid.calibration.scoring import plan_from
from flexivid.diffusion.solver import solvers_of
from flexivid.model.flexidit import FlexiDiT
from flexivid.sampling.plan import Plan, allowance_of
from flexivid.sampling.settings import Settings

SHARES = (0.15, 0.3, 0.5)  # of a budget that goes to the first stage
MOST_STEPS = 24  # of a stage in one weak mode
SHIFTS = (0.5, 2.0)  # times the sampler's
GUIDANCE = (0.75, 1.25)  # times the sampler's, where it has any
WEAK_GUIDANCE = (0.0, 0.5, 1.5)  # the same of the weak steps alone; 0 = these steps without guidance, one call each


def first_candidates(
    model: FlexiDiT, settings: Settings, budgets: Iterable[float], *, shares: Sequence[float] = SHARES
) -> list[Plan]:
    """Plans for every budget: each weak mode alone and before native steps, two weak modes, native steps, the default.

    ``shares`` of a budget go to the first stage.
    """
    full = allowance_of(model, settings, keep_steps=False)
    plans: dict[str, Plan] = {}
    for budget in budgets:
        allowance = full._replace(affordable=affordable_cost(budget, full.full))
        for steps in filter(None, _mixtures(allowance, shares)):
            plan = plan_from(steps, model, settings)
            plans.setdefault(str(plan.schedule), plan)
    return list(plans.values())


def _mixtures(allowance: Allowance, shares: Sequence[float]) -> Iterable[list[Step]]:
    """Sequences of steps that an allowance pays for."""
    native, limit = allowance.costs[0], allowance.affordable
    yield [allowance.options[0]] * (limit // native)
    if limit >= allowance.costs[-1]:
        yield [allowance.options[option] for option in staged(allowance)]
    for step, cost in zip(allowance.options[1:], allowance.costs[1:], strict=True):
        yield [step] * min(MOST_STEPS, limit // cost)
        for share in shares:
            weak = min(MOST_STEPS, round(share * limit / cost))
            late = (limit - weak * cost) // native
            if weak > 0 and late > 0:
                weak = min(MOST_STEPS, (limit - late * native) // cost)
                yield [step] * weak + [allowance.options[0]] * late
    for share in shares if len(allowance.options) > 2 else ():  # weak modes alone, the finest of them last
        early = max(1, round(share * limit / allowance.costs[-1]))
        late = (limit - early * allowance.costs[-1]) // allowance.costs[1]
        if 0 < late <= MOST_STEPS and early <= MOST_STEPS:
            yield [allowance.options[-1]] * early + [allowance.options[1]] * late


def variations(model: FlexiDiT, settings: Settings, plan: Plan) -> list[Plan]:
    """A leader with another solver, spacing of times or guidance, or with outputs reused; never at a higher cost."""
    sampling, process = dict(plan.sampling), model.recipe.process
    skipped = {settings.solver, "heun", "ddpm"}  # two calls a step; noise of its own in every step
    changes: list[dict[str, Any]] = [{"solver": name} for name in solvers_of(process) if name not in skipped]
    if process.path == "flow":  # the only one whose times can be shifted
        changes += [{"shift": factor * settings.shift} for factor in SHIFTS]
    if settings.guidance_scale > 1:
        changes += [{"guidance_scale": max(1.0, 1 + factor * (settings.guidance_scale - 1))} for factor in GUIDANCE]
    varied = [plan._replace(sampling={**sampling, **new}) for new in changes if not new.keys() & sampling.keys()]
    varied += _with_weak_guidance(model, settings, plan)
    return varied + _with_reuse(model, settings, plan)


def _with_weak_guidance(model: FlexiDiT, settings: Settings, plan: Plan) -> list[Plan]:
    """Variations of the guidance scale in weak steps; at scale 1 these need no second call."""
    native, sampling = model.config.native, dict(plan.sampling)
    scale = sampling.get("guidance_scale", settings.guidance_scale)
    guided = {step.mode for step in plan.schedule if step.guide_mode is not None}
    if scale == 1 or not guided - {native} or "weak_guidance_scale" in sampling:
        return []
    plain = [step if step.mode in (native, None) else step.plain for step in plan.schedule]
    scales = [1 + factor * (scale - 1) for factor in WEAK_GUIDANCE]
    return [
        plan_from(plain if weak == 1 else plan.schedule, model, settings, {**sampling, "weak_guidance_scale": weak})
        for weak in scales
    ]


def _with_reuse(model: FlexiDiT, settings: Settings, plan: Plan) -> list[Plan]:
    """The plan with twice as many times in the last stage, every second one without a call of the network."""
    native = model.config.native
    late = [step for step in plan.schedule if step.mode == native]
    first = [step for step in plan.schedule if step.mode != native]
    if not late or REUSE in plan.schedule or settings.solver == "heun":
        return []
    between = [part for step in late for part in (step, REUSE)]
    varied = plan_from([*first, *between], model, settings, dict(plan.sampling))
    costs = [settings.schedule_macs(model.config, steps) for steps in (varied.schedule, plan.schedule)]
    return [varied] if costs[0] <= costs[1] else []
