"""What a schedule may be made of and what it may cost: all that a planner needs to know. No torch.

An amount in any unit (a fraction, a preset, GMACs or seconds) becomes an ``Allowance``; one that cannot be met is
refused here, with the least possible in its own unit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from flexivid.budget.cost import NetworkShape, full_cost
from flexivid.budget.schedule import MAX_STEPS, REUSE, Schedule, Step, affordable_cost
from flexivid.patching.shapes import PatchMode

PRESETS = {"draft": 0.15, "balanced": 0.4, "full": 1.0}  # fractions; draft is the least possible where that is more
UNITS = {"gmacs": 10**9, "seconds": 10**6}  # what costs are counted in: MACs, microseconds


class Amount(NamedTuple):
    """What may be spent on one video.

    Example:
        >>> Amount("draft"), Amount(1.5, "seconds")
        (Amount(value='draft', unit='fraction'), Amount(value=1.5, unit='seconds'))
    """

    value: float | str  # a number, or the name of a preset where the unit is ``fraction``
    unit: str = "fraction"  # ``fraction`` of the all-native compute, ``gmacs`` (10^9 multiply-accumulates), ``seconds``


def number_or_preset(word: float | str) -> float | str:
    """A budget as it is written: a number, or the name of a preset; ``ValueError`` if it is neither.

    Example:
        >>> number_or_preset("0.25"), number_or_preset("draft")
        (0.25, 'draft')
    """
    try:
        return float(word) if isinstance(word, str) and word not in PRESETS else word
    except ValueError:
        raise ValueError(
            f"got budget {word!r}; expected a fraction in (0, 1] or one of {', '.join(PRESETS)}; change it"
        ) from None


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

    def guided_first(self) -> Allowance:
        """The same with guidance in the cheapest option alone: of a schedule from coarse to fine, in its first steps.

        Example:
            >>> native, weak = (Step(PatchMode(mode), PatchMode(mode)) for mode in ("1x2x2", "2x4x4"))
            >>> early = Allowance((native, weak), (8, 2), 3, 24, (4, 1)).guided_first()
            >>> str(early.schedule([1, 0, 0])), early.costs
            ('1x2x4x4+2x4x4,2x1x2x2', (4, 2))
        """
        options = (*(step.plain for step in self.options[:-1]), *self.options[-1:])
        return self._replace(options=options, costs=(*(self.plain_costs or self.costs)[:-1], *self.costs[-1:]))

    def with_reuse(self) -> Allowance:
        """The same with one more option, the last output again, which costs nothing.

        Example:
            >>> Allowance((Step(PatchMode("1x2x2")),), (8,), 3, 24, (8,)).with_reuse().costs
            (8, 0)
        """
        return self._replace(
            options=(*self.options, REUSE), costs=(*self.costs, 0), plain_costs=(*(self.plain_costs or self.costs), 0)
        )


def allowance_for(
    amount: Amount,
    options: Sequence[Step],
    costs: Mapping[PatchMode | Step, float],
    *,
    num_steps: int,
    plain_calls: Collection[int] = (),
    keep_steps: bool = True,
    fixed: int = 0,
) -> Allowance:
    """What an amount allows the calls of one video, whose ``options`` are from ``step_options``.

    Args:
        costs: Of one call in each mode, as in the options: MACs, or seconds where the amount is in seconds. Steps that
            cost something else than the sum of their calls may be named too: in seconds, all do.
        num_steps: Calls of the network at full compute; of these, ``plain_calls`` have no guidance.
        keep_steps: Whether a schedule must have ``num_steps`` calls; if not, it has fewer where these cost too much.
        fixed: Cost beside the calls, such as reading the text, which the amount pays for too.

    Raises:
        ValueError: If the amount is out of range, or below the least possible, which is named.

    Example:
        >>> native, weak = Step(PatchMode("1x2x2")), Step(PatchMode("2x4x4"))
        >>> costs = {native.mode: 0.2, weak.mode: 0.03}
        >>> allowance = allowance_for(Amount(1.5, "seconds"), [native, weak], costs, num_steps=20)
        >>> allowance.costs, allowance.affordable
        ((200000, 30000), 1500000)
    """
    if amount.unit == "seconds":
        costs = {call: math.ceil(_exact(seconds) * UNITS["seconds"]) for call, seconds in costs.items()}
    allowance = _priced(options, costs, num_steps, frozenset(plain_calls))
    native = options[0].ordinary  # at full compute, whatever guides it here
    price, plain = (int(price_of(step, costs)) for step in (native, native.plain))
    is_guided = native.guide_mode is not None
    full = fixed + full_cost(
        plain, guided=is_guided, num_steps=num_steps, plain_calls=plain_calls, guide_cost=price - plain
    )
    allowance = allowance._replace(full_compute=full, fixed=fixed)
    cheapest = fixed + (sum(row[-1] for row in allowance.rows) if keep_steps else allowance.costs[-1])
    if amount.unit == "fraction":
        least = -(-cheapest * 10_000 // full) / 10_000  # rounded up in whole numbers, so that it can be met
        affordable = fixed + allowance.at(_share(amount.value, least)).affordable
        words = f"budget {amount.value}", f"{least}", "the budget or use a model with larger patches"
    else:
        affordable = _whole_units(float(amount.value), amount.unit)
        least_written = _rounded_up(cheapest, UNITS[amount.unit])
        words = f"--budget-{amount.unit} {amount.value:g}", f"{least_written} for one video", "it or take fewer steps"
    if cheapest > affordable:
        raise ValueError(
            f"got {words[0]}; expected at least {words[1]}, which is {'every' if keep_steps else 'one'} step in the"
            f" cheapest mode {allowance.options[-1].mode}; raise {words[2]}"
        )
    return allowance.within(affordable - fixed)


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


def price_of(step: Step, costs: Mapping[PatchMode | Step, float]) -> float:
    """What a step costs: as it is named in the costs, else the sum of its calls.

    Example:
        >>> step = Step(PatchMode("2x4x4"), PatchMode("2x4x4"))
        >>> price_of(step, {step.mode: 2.0}), price_of(step.plain, {step.mode: 2.0, step.plain: 3.0})
        (4.0, 3.0)
    """
    return costs[step] if step in costs else sum(costs[mode] for mode in step.modes)


def _priced(
    options: Sequence[Step], costs: Mapping[PatchMode | Step, float], num_steps: int, plain_calls: frozenset[int]
) -> Allowance:
    """Options with their costs, native first, then falling; one that costs more than native is of no use."""
    if not 1 <= num_steps <= MAX_STEPS:
        raise ValueError(f"got {num_steps} steps; expected 1 to {MAX_STEPS}; change num_steps")
    native, prices = options[0], {step: int(price_of(step, costs)) for step in options}
    useful = [step for step in options if prices[step] <= prices[native]]
    useful.sort(key=lambda step: (step != native, -prices[step]))
    plain_costs = tuple(int(price_of(step.plain, costs)) for step in useful)
    return Allowance(tuple(useful), tuple(prices[s] for s in useful), num_steps, 0, plain_costs, plain_calls)


def _share(budget: float | str, least: float) -> float:
    budget = number_or_preset(budget)
    if not isinstance(budget, str) and not 0 < budget <= 1:
        raise ValueError(f"got budget {budget}; expected a fraction in (0, 1]; 1 is every step at full compute")
    return max(PRESETS[budget], least) if isinstance(budget, str) else budget


def _whole_units(amount: float, unit: str) -> int:
    if not (amount > 0 and math.isfinite(amount)):
        raise ValueError(f"got --budget-{unit} {amount:g}; expected a number above 0, for one video; change it")
    return math.floor(_exact(amount) * UNITS[unit])


def _exact(number: float) -> Fraction:
    """The number as it is written in decimals, so that a limit that was printed can be met."""
    return Fraction(repr(float(number)))


def _rounded_up(cost: int, unit: int) -> str:
    """``cost / unit`` to four digits, not below it."""
    digits = max(0, len(str(cost)) - 4)
    return f"{float(Fraction(-(-cost // 10**digits) * 10**digits, unit)):.12g}"
