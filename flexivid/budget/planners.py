"""From a budget to steps: what an amount of compute allows, and which steps a planner buys with it. No torch.

An amount in any unit (a fraction, a preset, GMACs or seconds) becomes an ``Allowance``; one that cannot be met is
refused here, with the least possible in its own unit. A planner answers with the number of each step's option and never
spends more than the allowance; some keep its number of steps, some choose their own. Planners that need measurements of
the model or its data are in ``measured`` and ``spectral``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from flexivid.budget.allowance import Allowance, step_options
from flexivid.budget.cost import NetworkShape, full_cost, macs
from flexivid.budget.schedule import MAX_STEPS, Schedule, Step
from flexivid.patching.shapes import PatchMode

PRESETS = {"draft": 0.15, "balanced": 0.4, "full": 1.0}  # fractions; draft is the least possible where that is more
UNITS = {"gmacs": 10**9, "seconds": 10**6}  # what costs are counted in: MACs, microseconds

FINER_SHARE = 16  # steps of the finest weak mode that each native one should come with, at least
WEAK_SHARE = 6  # the same for networks with a single weak mode
WEAK_STEPS = 10  # the cheapest mode fills up to so many where the finest weak one has fewer
FEWEST_STEPS = 4  # of both weak modes together, where the finer one takes part
MOST_COARSE = 12  # steps of the cheapest mode, without the finest weak one, for each native one and beside them
OWN_STEPS = ("staged", "fewer_steps", "spectral", "searched_fvd")  # planners that choose the number of steps themselves


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


def allowance_for(
    amount: Amount,
    options: Sequence[Step],
    costs: Mapping[PatchMode, float],
    *,
    num_steps: int,
    plain_calls: Collection[int] = (),
    keep_steps: bool = True,
    fixed: int = 0,
) -> Allowance:
    """What an amount allows the calls of one video, whose ``options`` are from ``step_options``.

    Args:
        costs: Of one call in each mode: MACs, or seconds where the amount is in seconds.
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
        costs = {mode: math.ceil(_exact(seconds) * UNITS["seconds"]) for mode, seconds in costs.items()}
    allowance = _priced(options, costs, num_steps, frozenset(plain_calls))
    guided, native_cost = options[0].guide_mode is not None, int(costs[options[0].modes[0]])
    full = fixed + full_cost(native_cost, guided=guided, num_steps=num_steps, plain_calls=plain_calls)
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


def for_budget(
    budget: float,
    config: NetworkShape,
    size: tuple[int, int, int],
    *,
    num_steps: int = 20,
    guided: bool = False,
    modes: Sequence[str | PatchMode] | None = None,
) -> Schedule:
    """The best weak-first schedule whose cost does not exceed the budget, see :func:`weak_first`.

    Args:
        budget: Fraction of the all-native cost, in (0, 1].
        config: Shape of the network, e.g. a ``FlexiDiTConfig``.
        size: Latent size (t, h, w).
        num_steps: Calls of the network (solver steps).
        guided: Whether every step has guidance by its own mode (the fraction stays the same).
        modes: Modes that may be used; ``None`` = all the network has. The native one is always allowed.

    Returns:
        A schedule of ``num_steps`` steps with ``budget_of(...) <= budget``.

    Raises:
        ValueError: If the budget is outside (0, 1] or below the least possible, which is named.

    Example:
        >>> from flexivid import FlexiDiTConfig, budget_of
        >>> config = FlexiDiTConfig(width=192, depth=6, num_heads=3, modes=("1x2x2", "2x2x2", "1x4x4", "2x4x4"))
        >>> schedule = for_budget(0.25, config, (8, 16, 16), num_steps=20)
        >>> str(schedule), round(budget_of(schedule, config, (8, 16, 16)), 3)
        ('16x2x4x4,1x2x2x2,3x1x2x2', 0.246)
    """
    options = step_options(config, guided=guided, modes=modes)
    costs = {mode: macs(config, size, mode) for step in options for mode in step.modes}
    allowance = allowance_for(Amount(budget), options, costs, num_steps=num_steps)
    return allowance.schedule(weak_first(allowance))


def weak_first(allowance: Allowance) -> list[int]:
    """As many native steps as can be paid, then of the next finer mode, and so on; the cheapest ones come first.

    Source:
        FlexiDiT (arXiv:2502.20126): weak steps first, powerful ones last.

    Example:
        >>> allowance = Allowance((), (100, 40, 10), num_steps=10, affordable=400)
        >>> weak_first(allowance), three_phase(allowance)
        ([2, 2, 2, 2, 2, 2, 1, 0, 0, 0], [0, 0, 2, 2, 2, 2, 2, 2, 1, 0])
    """
    return _refined(allowance, [], [])


def three_phase(allowance: Allowance) -> list[int]:
    """Native, weak, native: as :func:`weak_first`, but half of the native steps come at the beginning.

    Source:
        SRDiffusion (the large model in the earliest steps) and FlowBlending (in the earliest and the latest).
    """
    cheapest = len(allowance.costs) - 1
    for count in range(allowance.num_steps, -1, -1):
        late = [0] * (count // 2)
        early = [0] * (count - len(late))
        choice = [*early, *[cheapest] * (allowance.num_steps - count), *late]
        if _cost(allowance, choice) <= allowance.affordable:
            break
    return _refined(allowance, early, late)


def staged(allowance: Allowance) -> list[int]:
    """Three stages, from the largest patches to native ones, with a number of steps that suits the budget: the default.

    The cheapest mode decides what is shown, the finest weak mode draws it, the native mode finishes it. Each step of
    the finest weak mode comes with one of the cheapest, until both together are :data:`WEAK_STEPS`; beyond, more of
    the finest weak mode take the place of the cheapest. A native step is taken only where it leaves enough for
    :data:`FINER_SHARE` steps of the finest weak mode. How many steps full compute has does not matter, but full
    compute itself is native.

    Source:
        The order: FlexiDiT (arXiv:2502.20126). The shares: measured on moving digits and on real footage, docs/LOG.md.

    Example:
        >>> allowance = Allowance((), (100, 40, 10), num_steps=10, affordable=300)
        >>> staged(allowance), staged(allowance._replace(affordable=90))
        ([2, 2, 2, 2, 1, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 1])
    """
    if allowance.affordable >= allowance.full:
        return [0] * allowance.num_steps  # nothing is to be saved
    costs, last = allowance.costs, len(allowance.costs) - 1
    native, finer, cheapest = costs[0], costs[min(1, last)], costs[last]
    share = FINER_SHARE * finer if cheapest < finer else WEAK_SHARE * cheapest
    late = min(MAX_STEPS, allowance.affordable // (native + share))
    unspent = allowance.affordable - late * native
    middle = _finer_steps(unspent, finer, cheapest) if cheapest < finer else 0
    unspent -= middle * finer
    most = max(0, WEAK_STEPS - middle) if middle else MOST_COARSE * (late + 1)
    early = min(unspent // cheapest, most) if cheapest < native else 0
    if not late and not middle and not early:
        late = 1  # an allowance pays for one call of its cheapest option
    return [last] * early + [min(1, last)] * middle + [0] * late


def _finer_steps(amount: int, finer: int, cheapest: int) -> int:
    """Steps of the finest weak mode that an amount pays for together with the steps of the cheapest beside them."""
    count = min(MAX_STEPS, amount // finer)
    while count and count * finer + min(count, max(0, WEAK_STEPS - count)) * cheapest > amount:
        count -= 1
    return 0 if count == 1 and finer + (FEWEST_STEPS - 1) * cheapest > amount else count


def fewer_steps(allowance: Allowance) -> list[int]:
    """Native steps alone, as many as can be paid: what a budget has to be better than.

    ``ValueError`` if not even one can be paid.

    Example:
        >>> fewer_steps(Allowance((), (100, 10), num_steps=10, affordable=400))
        [0, 0, 0, 0]
    """
    count = min(allowance.num_steps, allowance.affordable // allowance.costs[0])
    if count < 1:
        share = allowance.affordable / allowance.costs[0]
        raise ValueError(
            f"got a budget of {share:.2g} native steps for the planner fewer_steps; expected at least one whole step;"
            " raise the budget or choose another planner"
        )
    return [0] * count


PLANNERS: dict[str, Callable[[Allowance], list[int]]] = {
    "staged": staged,
    "weak_first": weak_first,
    "three_phase": three_phase,
    "fewer_steps": fewer_steps,
}


def _refined(allowance: Allowance, early: Sequence[int], late: Sequence[int]) -> list[int]:
    """Fill the steps between ``early`` and ``late`` from the end, the finest option first, while it can be paid."""
    rows, end = allowance.rows, allowance.num_steps - len(late)
    cheapest = len(allowance.costs) - 1
    choice = [*early, *[cheapest] * (end - len(early)), *late]
    unspent = allowance.affordable - _cost(allowance, choice)
    for option in range(cheapest):
        while end > len(early) and rows[end - 1][option] - rows[end - 1][cheapest] <= unspent:
            end -= 1
            unspent -= rows[end][option] - rows[end][cheapest]
            choice[end] = option
    return choice


def _cost(allowance: Allowance, choice: Sequence[int]) -> int:
    return sum(row[option] for row, option in zip(allowance.rows, choice, strict=True))


def _priced(
    options: Sequence[Step], costs: Mapping[PatchMode, float], num_steps: int, plain_calls: frozenset[int]
) -> Allowance:
    """Options with their costs, native first, then falling; one that costs more than native is of no use."""
    if not 1 <= num_steps <= MAX_STEPS:
        raise ValueError(f"got {num_steps} steps; expected 1 to {MAX_STEPS}; change num_steps")
    native, prices = options[0], {step: int(sum(costs[mode] for mode in step.modes)) for step in options}
    useful = [step for step in options if prices[step] <= prices[native]]
    useful.sort(key=lambda step: (step != native, -prices[step]))
    plain_costs = tuple(int(costs[step.modes[0]]) for step in useful)
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
