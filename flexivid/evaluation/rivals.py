"""Rivals of a plan: native steps alone, as many as its budget pays for.

The simplest way to spend less compute is to take fewer native steps. A plan with large patches is useful only where it
is better than that, so an evaluation samples both from the same noises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from flexivid.budget.allowance import Allowance
from flexivid.budget.schedule import affordable_cost
from flexivid.model.flexidit import FlexiDiT
from flexivid.sampling.plan import Plan, allowance_of, plan_of
from flexivid.sampling.settings import Settings, full_macs

FEWER_STEPS = "fewer_steps"  # name of the planner in plans of this file


def native_plan(model: FlexiDiT, settings: Settings, num_steps: int | None = None) -> Plan:
    """Native steps throughout, ``None`` = as many as full compute has; the plan's budget is what it costs.

    Example:
        >>> from flexivid import FlexiDiT, FlexiDiTConfig
        >>> from flexivid.sampling.settings import Sampling
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4")))
        >>> settings = Sampling(size=(2, 8, 8), num_inference_steps=20).filled(model)
        >>> plan = native_plan(model, settings, 5)
        >>> plan.budget, str(plan.schedule)
        (0.25, '5x1x2x2')
    """
    full = _full(model, settings, settings.num_inference_steps if num_steps is None else num_steps)
    return plan_of(full.schedule([0] * full.num_steps), model, settings)._replace(planner=FEWER_STEPS)


def rival_plan(model: FlexiDiT, settings: Settings, budget: float) -> Plan:
    """As many native steps as a budget pays for, at least one; full compute at budget 1.

    If the plan of the budget does not use the budget up, its rival may cost a little more.
    """
    affordable = affordable_cost(budget, full_macs(model, settings))
    most = settings.num_inference_steps * max(1, math.ceil(budget))
    for steps in range(most, 1, -1):
        native = _full(model, settings, steps)
        if native.full + native.fixed <= affordable:
            return native_plan(model, settings, steps)
    return native_plan(model, settings, 1)


def with_rivals(model: FlexiDiT, settings: Settings, plans: Sequence[Plan], *, rivals: bool = True) -> tuple[Plan, ...]:
    """Append the :func:`rival_plan` of each plan, and full compute where a plan of budget 1 is something else.

    Likeness is measured against full compute. Plans that are there already are not appended.
    """
    sampled = list(plans)
    natives = [native_plan(model, settings)] if any(plan.budget >= 1 for plan in plans) else []
    natives += [rival_plan(model, settings, plan.budget) for plan in plans] if rivals else []
    for native in natives:
        if find_plan(sampled, native) is None:
            sampled.append(native)
    return tuple(sampled)


def find_plan(plans: Sequence[Plan], plan: Plan) -> int | None:
    """Number of the plan that makes the same samples; ``None`` if there is none."""
    keys = [(each.followed, dict(each.sampling)) for each in plans]
    key = (plan.followed, dict(plan.sampling))
    return keys.index(key) if key in keys else None


def _full(model: FlexiDiT, settings: Settings, num_steps: int) -> Allowance:
    return allowance_of(model, settings._replace(num_inference_steps=num_steps))
