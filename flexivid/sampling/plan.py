"""A plan: which schedule a budget came to, under which solver settings, and what it is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from flexivid.budget.adaptive import AdaptivePlan
from flexivid.budget.schedule import Schedule, schedule_macs
from flexivid.model.flexidit import FlexiDiT
from flexivid.patching.shapes import PatchMode
from flexivid.sampling.settings import Settings, full_macs, with_steps_of


class Plan(NamedTuple):
    """A patch plan with the budget it stands for, which names its files.

    Args:
        budget: Fraction of the all-native compute.
        schedule: Of every sample; its length says how many calls of the network there are. Where each sample chooses
            its own, the one they begin with.
        adaptive: How each sample chooses its own; ``None`` = all follow the schedule.
        planner: Who made it; ``None`` = whoever asked for it.
        sampling: Fields of ``Settings`` that belong to the plan, such as ``{"shift": 2.0}``; others are the sampler's.
    """

    budget: float
    schedule: Schedule
    adaptive: AdaptivePlan | None = None
    planner: str | None = None
    sampling: Mapping[str, Any] = {}

    @property
    def followed(self) -> Schedule | AdaptivePlan:
        """What samples follow."""
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
    """Name a schedule by the budget that was asked for, or by its own, to three digits."""
    own = schedule_macs(schedule, model.config, settings.size) / full_macs(model, settings)
    return Plan(round(own, 3) if budget is None else budget, schedule)
