"""The patch mode of each step of a diffusers pipeline, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from torch import nn

from flexivid.budget.allowance import Allowance
from flexivid.budget.planners import staged, three_phase, weak_first
from flexivid.budget.schedule import affordable_cost
from flexivid.pretrained.cost import transformer_macs
from flexivid.pretrained.flexify import NATIVE, flexi_of

STAGED = "staged"


class PretrainedPlan(NamedTuple):
    """The mode of every solver step, and what that costs.

    Example:
        >>> plan = PretrainedPlan(("1x4x4", "1x4x4", "native"), {"native": 100, "1x4x4": 10})
        >>> str(plan), round(plan.budget, 2)
        ('2 of 1x4x4, 1 of native', 0.4)
        >>> weak = plan._replace(guide_modes=("1x4x4",) * 3)
        >>> str(weak), round(weak.budget, 2)
        ('2 of 1x4x4, 1 of native+1x4x4', 0.25)
    """

    modes: tuple[str, ...]  # "native" or a weak mode, one a step
    costs: dict[str, int]  # MACs of one call for one sample, by mode
    guide_modes: tuple[str, ...] = ()  # of the calls without the prompt; empty = ``modes``, and they are not counted
    full_steps: int = 0  # native steps of full compute; 0 = as many as the plan has

    @property
    def macs(self) -> int:
        """MACs of all steps for one sample: one call each, or both if ``guide_modes`` has the second."""
        return sum(self.costs[mode] for mode in self.modes + self.guide_modes)

    @property
    def budget(self) -> float:
        """Cost as a fraction of full compute."""
        calls = (self.full_steps or len(self.modes)) * (2 if self.guide_modes else 1)
        return self.macs / (calls * self.costs[NATIVE])

    def mode_of_call(self, step: int, call: int) -> str:
        """Return the mode of a call in a step; calls after the last step are native."""
        modes = self.guide_modes if call and self.guide_modes else self.modes
        return modes[step] if step < len(modes) else NATIVE

    def __str__(self) -> str:
        pairs = zip(self.modes, self.guide_modes or self.modes, strict=True)
        names = [mode if mode == guide else f"{mode}+{guide}" for mode, guide in pairs]
        return ", ".join(f"{len(list(same))} of {name}" for name, same in groupby(names))


def costs_of(model: nn.Module, size: tuple[int, int, int], text_tokens: int) -> dict[str, int]:
    """Return MACs of one call for one sample, by mode of a flexified transformer."""
    modes = (NATIVE, *flexi_of(model).modes)
    return {mode: transformer_macs(model, size, mode, text_tokens=text_tokens) for mode in modes}


def least_budget(costs: dict[str, int]) -> float:
    """Return the budget of all steps in the cheapest mode, rounded up to four digits so that a plan can meet it.

    Example:
        >>> least_budget({"native": 3, "1x4x4": 1})
        0.3334
    """
    return -(-min(costs.values()) * 10_000 // costs[NATIVE]) / 10_000


def plan_steps(
    budget: float,
    costs: dict[str, int],
    num_steps: int,
    *,
    guide_mode: str | None = None,
    planner: str = "weak_first",
) -> PretrainedPlan:
    """Plan as many native steps as the budget pays for and weak ones for the rest; the remainder buys finer modes.

    A budget below the least possible, which is named, an unknown mode or planner are a ``ValueError``.

    Args:
        budget: Fraction of the all-native cost, in (0, 1].
        costs: MACs by mode.
        num_steps: Solver steps of full compute, and of the plan unless its planner is ``staged``.
        guide_mode: Mode of guidance's second call in all steps that are not cheaper; ``None`` = that of the step.
        planner: Where the weak steps are: one of ``PLANNERS``; or ``staged``, which chooses their number too.

    Example:
        >>> costs = {"native": 100, "2x2x2": 40, "1x4x4": 10}
        >>> str(plan_steps(0.5, costs, 10)), str(plan_steps(0.5, costs, 10, guide_mode="1x4x4"))
        ('5 of 1x4x4, 1 of 2x2x2, 4 of native', '2 of 2x2x2+1x4x4, 8 of native+1x4x4')
        >>> str(plan_steps(0.5, costs, 10, planner="weak_last"))
        '4 of native, 1 of 2x2x2, 5 of 1x4x4'
        >>> str(plan_steps(0.5, costs, 4, planner=STAGED))
        '4 of 1x4x4, 4 of 2x2x2'
    """
    check_fraction(budget)
    check_planner(planner, (*PLANNERS, STAGED))
    if guide_mode is not None and guide_mode not in costs:
        raise ValueError(
            f"got guide mode {guide_mode}; expected one of {', '.join(costs)}; choose one, or add the mode"
        )
    guides = {name: min(name, guide_mode or name, key=lambda mode: costs[mode]) for name in costs}
    price = {name: cost + (costs[guides[name]] if guide_mode else 0) for name, cost in costs.items()}
    full = costs[NATIVE] * (2 if guide_mode else 1)
    names = sorted(costs, key=lambda name: (-costs[name], name != NATIVE))
    names = names[names.index(NATIVE) :]  # a mode that costs more than the native one buys nothing
    affordable = affordable_cost(budget, num_steps * full)
    allowance = Allowance((), tuple(price[name] for name in names), num_steps, affordable)
    is_staged = planner == STAGED and allowance.costs[-1] <= affordable
    if not is_staged and num_steps * allowance.costs[-1] > affordable:
        raise ValueError(
            f"got budget {budget}; expected at least {least_budget({**price, NATIVE: full})}, which is every step in"
            f" {names[-1]}; raise the budget, or flexify with a larger mode"
        )
    choice = staged(allowance) if is_staged else PLANNERS[planner](allowance)
    modes = tuple(names[option] for option in choice)
    guide_modes = tuple(guides[name] for name in modes) if guide_mode else ()
    return PretrainedPlan(modes, costs, guide_modes, num_steps if is_staged else 0)


def explicit_plan(
    modes: Sequence[str], costs: dict[str, int], num_steps: int, guide_modes: Sequence[str] = ()
) -> PretrainedPlan:
    """Make a plan of these modes, for a run of as many steps.

    Example:
        >>> explicit_plan(["1x4x4", "native"], {"native": 100, "1x4x4": 10}, 2).budget
        0.55
    """
    unknown = sorted({*modes, *guide_modes} - costs.keys())
    if unknown:
        raise ValueError(
            f"got modes {', '.join(unknown)}; expected some of {', '.join(costs)}; choose these, or add them"
        )
    if len(modes) != num_steps:
        raise ValueError(
            f"got a run of {num_steps} steps under a schedule of {len(modes)}; expected as many; pass"
            f" num_inference_steps={len(modes)}"
        )
    return PretrainedPlan(tuple(modes), costs, tuple(guide_modes))


PLANNERS: dict[str, Callable[[Allowance], list[int]]] = {
    "weak_first": weak_first,
    "weak_last": lambda allowance: weak_first(allowance)[::-1],
    "three_phase": three_phase,
}


def check_fraction(budget: float) -> None:
    """Refuse a budget that is not in (0, 1]."""
    if not 0 < budget <= 1:
        raise ValueError(f"got budget {budget}; expected a fraction in (0, 1]; 1 is every step at full compute")


def check_planner(name: str, choices: Iterable[str] = PLANNERS) -> None:
    """Refuse a planner that is not among the choices, by default those that keep the number of steps."""
    if name not in choices:
        raise ValueError(f"got planner {name!r} for a pipeline; expected one of {', '.join(choices)}; choose one")
