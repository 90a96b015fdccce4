"""What a schedule may be made of and what it may cost: all that a planner needs to know. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flexivid.budget.cost import NetworkShape
from flexivid.budget.schedule import REUSE, Schedule, Step, affordable_cost
from flexivid.patching.shapes import PatchMode


class Allowance(NamedTuple):
    """What a schedule of one sample may spend, in whole units of any kind (MACs, microseconds).

    Example:
        >>> native, weak = (Step(PatchMode(mode), PatchMode(mode)) for mode in ("1x2x2", "2x4x4"))
        >>> allowance = Allowance((native, weak), (8, 2), 3, 24, (4, 1), frozenset({0}))
        >>> str(allowance.schedule([1, 1, 0])), allowance.rows, allowance.full
        ('1x2x4x4,1x2x4x4+2x4x4,1x1x2x2+1x2x2', [(4, 1), (8, 2), (8, 2)], 20)
    """

    options: tuple[Step, ...]  # the steps that a schedule may be made of; the native one first, then finest to coarsest
    costs: tuple[int, ...]  # of each option, falling
    num_steps: int  # calls of the network; a planner that chooses their number itself is not bound by it
    affordable: int  # the most that a schedule may cost in all; the cheapest option everywhere is within it
    plain_costs: tuple[int, ...] = ()  # of each option without its guidance
    plain_calls: frozenset[int] = frozenset()  # calls that have no guidance, whatever the option
    full_compute: int = 0  # what a budget is a fraction of, see ``full_cost``, with what is fixed; 0 = ``full``
    fixed: int = 0  # cost beside the calls, such as reading the text; ``affordable`` is without it

    @property
    def rows(self) -> list[tuple[int, ...]]:
        """Costs of the options at each call."""
        return [self.plain_costs if call in self.plain_calls else self.costs for call in range(self.num_steps)]

    @property
    def full(self) -> int:
        """Cost of the native option throughout."""
        return sum(row[0] for row in self.rows)

    def share(self, cost: int) -> float:
        """Calls of this cost as a fraction of full compute, with what is fixed."""
        return (cost + self.fixed) / self._whole

    def at(self, budget: float) -> Allowance:
        """The same with the limit of a budget, a fraction of full compute; below 0 if that does not pay what is fixed.

        Example:
            >>> weakly_guided = Allowance((Step(PatchMode("1x2x2"), PatchMode("2x4x4")),), (5,), 4, 32, full_compute=32)
            >>> weakly_guided.full, weakly_guided.at(0.5).affordable, weakly_guided.share(16)
            (20, 16, 0.5)
        """
        return self._replace(affordable=affordable_cost(budget, self._whole) - self.fixed)

    @property
    def _whole(self) -> int:
        return self.full_compute or self.full + self.fixed

    def step(self, call: int, option: int) -> Step:
        """The step of an option at a call: without guidance where the call has none."""
        return self.options[option].plain if call in self.plain_calls else self.options[option]

    def cost(self, schedule: Sequence[Step]) -> int:
        """What a schedule of these options costs; a step that reuses the last output costs nothing."""
        prices = {REUSE: 0, **dict(zip(self.options, self.costs, strict=True))}
        prices |= dict(zip((step.plain for step in self.options), self.plain_costs or self.costs, strict=True))
        return sum(prices[step] for step in schedule)

    def within(self, affordable: int) -> Allowance:
        """The same with a limit, and with fewer calls where it does not pay for all of them in the cheapest option.

        Which of fewer calls have no guidance depends on their times, so all of them are priced with it.
        """
        if sum(row[-1] for row in self.rows) <= affordable:
            return self._replace(affordable=affordable)
        calls = affordable // self.costs[-1]
        return self._replace(affordable=affordable, num_steps=calls, plain_calls=frozenset())

    def schedule(self, choice: Sequence[int]) -> Schedule:
        """The schedule of one option a step, by their indices."""
        return Schedule(self.step(call, option) for call, option in enumerate(choice))

    def with_reuse(self) -> Allowance:
        """The same with one more option, the last output again, which costs nothing.

        Example:
            >>> Allowance((Step(PatchMode("1x2x2")),), (8,), 3, 24, (8,)).with_reuse().costs
            (8, 0)
        """
        return self._replace(
            options=(*self.options, REUSE), costs=(*self.costs, 0), plain_costs=(*(self.plain_costs or self.costs), 0)
        )


def step_options(
    config: NetworkShape,
    *,
    guided: bool = False,
    guide_mode: str | PatchMode | None = None,
    modes: Sequence[str | PatchMode] | None = None,
) -> list[Step]:
    """One step for each of the ``modes`` that may be used (``None`` = all), native first: the options of a schedule.

    With guidance, the second branch has the ``guide_mode``; ``None`` = each step's own. ``ValueError`` if the network
    does not have a mode.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> [str(step) for step in step_options(FlexiDiTConfig(modes=("1x2x2", "2x4x4")), guided=True)]
        ['1x2x2+1x2x2', '2x4x4+2x4x4']
    """
    named = [config.mode(None), *(config.mode(mode) for mode in (config.modes if modes is None else modes))]
    second = config.mode(guide_mode) if guided and guide_mode is not None else None
    return [Step(mode, (second or mode) if guided else None) for mode in dict.fromkeys(named)]
