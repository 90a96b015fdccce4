"""Which patch mode each step of a diffusers pipeline runs in, and what that costs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

from torch import nn

from flexivid.budget.schedule import affordable_cost, greedy_counts
from flexivid.pretrained.cost import transformer_macs
from flexivid.pretrained.flexify import NATIVE, flexi_of


class PretrainedPlan(NamedTuple):
    """The mode of every solver step, and what that costs.

    Args:
        modes: ``"native"`` or a weak mode, one a step.
        costs: MACs of one call for one sample, by mode.
        guide_modes: Of the second call of each step, without the prompt; empty = the same modes, and not counted.

    Example:
        >>> plan = PretrainedPlan(("1x4x4", "1x4x4", "native"), {"native": 100, "1x4x4": 10})
        >>> str(plan), round(plan.budget, 2)
        ('2 of 1x4x4, 1 of native', 0.4)
        >>> weak = plan._replace(guide_modes=("1x4x4",) * 3)
        >>> str(weak), round(weak.budget, 2)
        ('2 of 1x4x4, 1 of native+1x4x4', 0.25)
    """

    modes: tuple[str, ...]
    costs: dict[str, int]
    guide_modes: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Of all steps, one sample: one call each, or both where the second has a mode of its own."""
        return sum(self.costs[mode] for mode in self.modes + self.guide_modes)

    @property
    def budget(self) -> float:
        """Cost over that of as many native steps."""
        return self.macs / (len(self.modes + self.guide_modes) * self.costs[NATIVE])

    def mode_of(self, step: int, call: int) -> str:
        """Of a call in a step; what comes after the last step is native."""
        modes = self.guide_modes if call and self.guide_modes else self.modes
        return modes[step] if step < len(modes) else NATIVE

    def __str__(self) -> str:
        pairs = zip(self.modes, self.guide_modes or self.modes, strict=True)
        names = [mode if mode == guide else f"{mode}+{guide}" for mode, guide in pairs]
        return ", ".join(f"{len(list(same))} of {name}" for name, same in groupby(names))


def costs_of(model: nn.Module, size: tuple[int, int, int], text_tokens: int) -> dict[str, int]:
    """MACs of one call for one sample in every mode of a flexified transformer."""
    modes = (NATIVE, *flexi_of(model).modes)
    return {mode: transformer_macs(model, size, mode, text_tokens=text_tokens) for mode in modes}


def least_budget(costs: dict[str, int]) -> float:
    """Every step in the cheapest mode; rounded up to four digits, so that it can be met.

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
    """As many native steps as can be paid, weak ones for the rest; what is left buys the next finer mode.

    Args:
        budget: Fraction of the all-native cost, in (0, 1].
        costs: MACs by mode.
        num_steps: Solver steps.
        guide_mode: Mode of guidance's second call in all steps that are not cheaper; ``None`` = that of the step.
        planner: Where the weak steps are: one of ``PLANNERS``.

    Raises:
        ValueError: If the budget is not a fraction, or less than the least, which is named; if there is no such mode
            or planner.

    Example:
        >>> costs = {"native": 100, "2x2x2": 40, "1x4x4": 10}
        >>> str(plan_steps(0.5, costs, 10)), str(plan_steps(0.5, costs, 10, guide_mode="1x4x4"))
        ('5 of 1x4x4, 1 of 2x2x2, 4 of native', '2 of 2x2x2+1x4x4, 8 of native+1x4x4')
        >>> str(plan_steps(0.5, costs, 10, planner="weak_last"))
        '4 of native, 1 of 2x2x2, 5 of 1x4x4'
    """
    check_fraction(budget)
    check_planner(planner)
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
    if num_steps * price[names[-1]] > affordable:
        raise ValueError(
            f"got budget {budget}; expected at least {least_budget({**price, NATIVE: full})}, which is every step in"
            f" {names[-1]}; raise the budget, or flexify with a larger mode"
        )
    counts = greedy_counts([price[name] for name in names], num_steps, affordable)
    finest_first = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
    modes = PLANNERS[planner](finest_first)
    return PretrainedPlan(tuple(modes), costs, tuple(guides[name] for name in modes) if guide_mode else ())


def _three_phase(finest_first: list[str]) -> list[str]:
    """Half of the native steps, the weak ones from the coarsest on, the other native steps."""
    start = -(-finest_first.count(NATIVE) // 2)
    return finest_first[:start] + finest_first[start:][::-1]


PLANNERS: dict[str, Callable[[list[str]], list[str]]] = {
    "weak_first": lambda finest_first: finest_first[::-1],
    "weak_last": lambda finest_first: finest_first,
    "three_phase": _three_phase,
}


def check_fraction(budget: float) -> None:
    """Refuse what is no fraction of the compute."""
    if not 0 < budget <= 1:
        raise ValueError(f"got budget {budget}; expected a fraction in (0, 1]; 1 is every step at full compute")


def check_planner(name: str) -> None:
    """Refuse what is not one of ``PLANNERS``."""
    if name not in PLANNERS:
        raise ValueError(f"got planner {name!r} for a pipeline; expected one of {', '.join(PLANNERS)}; choose one")
