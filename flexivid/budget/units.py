"""What a budget allows, whatever its unit: a fraction, a preset, GMACs or seconds. No torch.

All of them come to an ``Allowance``. A budget that cannot be met is refused here, with the least possible in the unit
that was asked in.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction

from flexivid.budget.allowance import Allowance
from flexivid.budget.cost import NetworkShape, macs
from flexivid.budget.schedule import MAX_STEPS, Step, affordable_cost
from flexivid.patching.shapes import PatchMode

USUAL_BUDGETS = (0.8, 0.6, 0.4, 0.25, 0.15)  # whose schedules a search samples and shows
PRESETS = {"draft": 0.15, "balanced": 0.4, "full": 1.0}  # fractions; draft is the least possible where that is more


def fraction_allowance(
    budget: float | str,
    config: NetworkShape,
    size: tuple[int, int, int],
    *,
    options: Sequence[Step],
    num_steps: int,
    plain_calls: Collection[int] = (),
    keep_steps: bool = True,
) -> Allowance:
    """What a fraction of the all-native cost allows.

    Args:
        budget: In (0, 1], or one of ``PRESETS``.
        config: Shape of the network.
        size: Latent size (t, h, w).
        options: From ``step_options``.
        num_steps: Calls of the network at full compute.
        plain_calls: Those that have no guidance, in native steps too.
        keep_steps: Whether a schedule has to have as many; if not, a budget below that of the cheapest mode throughout
            is met by fewer calls.

    Raises:
        ValueError: If the budget is no fraction or below the least possible, which is named.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> from flexivid.budget.allowance import step_options
        >>> config = FlexiDiTConfig(modes=("1x2x2", "2x4x4"))
        >>> allowance = fraction_allowance(0.5, config, (8, 16, 16), options=step_options(config), num_steps=20)
        >>> round(allowance.affordable / macs(config, (8, 16, 16)), 2)
        10.0
    """
    costs = {mode: macs(config, size, mode) for mode in config.modes}
    whole = _priced(options, costs, num_steps, plain_calls)
    guided = whole.options[0].guide_mode is not None
    full = native_macs(config, size, guided=guided, num_steps=num_steps, plain_calls=whole.plain_calls)
    cheapest = _least(whole, keep_steps)
    least = -(-cheapest * 10_000 // full) / 10_000  # rounded up in whole numbers, so that it can be met
    wanted = number_or_preset(budget)
    share = max(PRESETS[wanted], least) if isinstance(wanted, str) else _fraction(wanted)
    affordable = affordable_cost(share, full)
    if cheapest > affordable:
        raise ValueError(
            f"got budget {budget}; expected at least {least}, which is {_of_least(keep_steps)} in the cheapest mode"
            f" {whole.options[-1]}; raise the budget or use a model with larger patches"
        )
    return _shortened(whole._replace(affordable=affordable))


def native_macs(
    config: NetworkShape,
    size: tuple[int, int, int],
    *,
    guided: bool,
    num_steps: int,
    plain_calls: Collection[int] = (),
) -> int:
    """MACs of one sample with native steps throughout, guidance's branch native too: what a budget is a fraction of.

    Args:
        config: Shape of the network.
        size: Latent size (t, h, w).
        guided: Whether steps have guidance.
        num_steps: Calls of the network.
        plain_calls: Those that have no guidance.
    """
    branches = num_steps + (num_steps - len(plain_calls) if guided else 0)
    return branches * macs(config, size)


def gmacs_allowance(
    gmacs: float,
    config: NetworkShape,
    size: tuple[int, int, int],
    *,
    options: Sequence[Step],
    num_steps: int,
    plain_calls: Collection[int] = (),
    keep_steps: bool = True,
) -> Allowance:
    """What so many GMACs a video allow (10^9 multiply-accumulates); the rest as in :func:`fraction_allowance`.

    Raises:
        ValueError: If they are not above 0, or below the least possible, which is named.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> from flexivid.budget.allowance import step_options
        >>> config = FlexiDiTConfig(modes=("1x2x2", "2x4x4"))
        >>> gmacs_allowance(9.5, config, (8, 16, 16), options=step_options(config), num_steps=20).affordable
        9500000000
    """
    costs = {mode: macs(config, size, mode) for mode in config.modes}
    return _absolute(gmacs, 10**9, "--budget-gmacs", _priced(options, costs, num_steps, plain_calls), keep_steps)


def seconds_allowance(
    seconds: float,
    latency: Mapping[PatchMode, float],
    *,
    options: Sequence[Step],
    num_steps: int,
    plain_calls: Collection[int] = (),
    keep_steps: bool = True,
) -> Allowance:
    """What so many seconds a video allow.

    Args:
        seconds: Of the network's calls for one video.
        latency: Measured seconds of one call for one video, by mode.
        options: From ``step_options``.
        num_steps: Calls of the network.
        plain_calls: Those without guidance.
        keep_steps: As in :func:`fraction_allowance`.

    Raises:
        ValueError: If they are not above 0, or below the least possible, which is named.

    Example:
        >>> native, weak = Step(PatchMode("1x2x2")), Step(PatchMode("2x4x4"))
        >>> allowance = seconds_allowance(
        ...     1.5, {native.mode: 0.2, weak.mode: 0.03}, options=[native, weak], num_steps=20
        ... )
        >>> allowance.costs, allowance.affordable
        ((200000, 30000), 1500000)
    """
    costs = {mode: math.ceil(_exact(value) * 10**6) for mode, value in latency.items()}
    return _absolute(seconds, 10**6, "--budget-seconds", _priced(options, costs, num_steps, plain_calls), keep_steps)


def _priced(
    options: Sequence[Step], costs: Mapping[PatchMode, int], num_steps: int, plain_calls: Collection[int]
) -> Allowance:
    """Options with their costs, native first, then falling; one that costs more than native is of no use."""
    price = {step: sum(costs[mode] for mode in step.modes) for step in options}
    native = options[0]
    kept = sorted((step for step in options if price[step] <= price[native]), key=lambda step: -price[step])
    kept.sort(key=lambda step: step != native)
    plain = tuple(costs[step.modes[0]] for step in kept)
    whole = Allowance(
        tuple(kept), tuple(price[step] for step in kept), _checked_steps(num_steps), 0, plain, frozenset(plain_calls)
    )
    return whole._replace(affordable=whole.full)


def _least(whole: Allowance, keep_steps: bool) -> int:
    """The cost of the cheapest schedule there is."""
    return sum(row[-1] for row in whole.rows) if keep_steps else whole.costs[-1]


def _of_least(keep_steps: bool) -> str:
    return "every step" if keep_steps else "one step"


def _shortened(whole: Allowance) -> Allowance:
    """As many calls as the cheapest option can be paid for, at most those there are."""
    if sum(row[-1] for row in whole.rows) <= whole.affordable:
        return whole
    return whole._replace(num_steps=whole.affordable // whole.costs[-1])


def _absolute(amount: float, unit: int, flag: str, whole: Allowance, keep_steps: bool) -> Allowance:
    if not (amount > 0 and math.isfinite(amount)):
        raise ValueError(f"got {flag} {amount:g}; expected a number above 0, for one video; change it")
    affordable = math.floor(_exact(amount) * unit)
    cheapest = _least(whole, keep_steps)
    if cheapest > affordable:
        raise ValueError(
            f"got {flag} {amount:g}; expected at least {_rounded_up(cheapest, unit)} for one video, which is"
            f" {_of_least(keep_steps)} in the cheapest mode {whole.options[-1]}; raise it or take fewer steps"
        )
    return _shortened(whole._replace(affordable=affordable))


def number_or_preset(word: float | str) -> float | str:
    """A budget as it is written: a number, or the name of a preset.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> number_or_preset("0.25"), number_or_preset("draft")
        (0.25, 'draft')
    """
    if word in PRESETS or not isinstance(word, str):
        return word
    try:
        return float(word)
    except ValueError:
        raise ValueError(
            f"got budget {word!r}; expected a fraction in (0, 1] or one of {', '.join(PRESETS)}; change it"
        ) from None


def _fraction(budget: float) -> float:
    if not 0 < budget <= 1:
        raise ValueError(f"got budget {budget}; expected a fraction in (0, 1]; 1 is every step at full compute")
    return budget


def _checked_steps(num_steps: int) -> int:
    if not 1 <= num_steps <= MAX_STEPS:
        raise ValueError(f"got {num_steps} steps; expected 1 to {MAX_STEPS}; change num_steps")
    return num_steps


def _exact(number: float) -> Fraction:
    """The number as it is written in decimals, so that a limit that was printed can be met."""
    return Fraction(repr(float(number)))


def _rounded_up(cost: int, unit: int) -> str:
    """``cost / unit`` to four digits, not below it."""
    digits = max(0, len(str(cost)) - 4)
    return f"{float(Fraction(-(-cost // 10**digits) * 10**digits, unit)):.12g}"
