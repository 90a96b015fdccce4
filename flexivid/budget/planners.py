"""Which steps a planner buys with an allowance. No torch.

A planner answers with the number of each step's option and never spends more than the allowance; some keep its number
of steps, some choose their own. Planners that need measurements of the model or its data are in ``measured`` and
``spectral``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flexivid.budget.allowance import Allowance, Amount, allowance_for, step_options
from flexivid.budget.cost import NetworkShape, macs
from flexivid.budget.schedule import MAX_STEPS, Schedule, Step
from flexivid.patching.shapes import PatchMode

FINER_SHARE = 16  # steps of the finest weak mode that each native one should come with, at least
WEAK_SHARE = 6  # the same for networks with a single weak mode
WEAK_STEPS = 10  # the cheapest mode fills up to so many where the finest weak one has fewer
FEWEST_STEPS = 4  # of both weak modes together, where the finer one takes part
MOST_COARSE = 12  # steps of the cheapest mode, without the finest weak one, for each native one and beside them
EARLY_STEPS = 3  # of the cheapest mode, before native ones
EARLY_GUIDANCE = 1.5  # times the guidance, its scale above 1, where only the first steps are guided
FEWEST_LATE = 2  # steps that finish a plan
FEW_STEPS = 6  # of full compute; native steps finish plans of such models, real footage asks for more and coarser ones
OWN_STEPS = ("staged", "fewer_steps", "spectral", "searched_fvd")  # planners that choose the number of steps themselves


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
    costs: dict[PatchMode | Step, float] = {mode: macs(config, size, mode) for step in options for mode in step.modes}
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


def early_scale(scale: float) -> float:
    """Guidance scale of the first steps where they alone are guided.

    Example:
        >>> early_scale(2.0), early_scale(1.0)
        (2.5, 1.0)
    """
    return 1 + EARLY_GUIDANCE * (scale - 1)


def guided_stages(allowance: Allowance) -> tuple[Allowance, list[int]]:
    """As :func:`staged`, where steps may go without their guidance: the options to choose from, and the choice.

    The first steps, in the cheapest mode, decide what is shown. Where full compute has few steps, native ones finish
    it, at least two; where these are too dear, two without guidance, or one after a step of the finest weak mode, or
    two of that. Else ``staged`` decides, without late guidance where this leaves fewer than two steps to finish.

    Source:
        Guidance at low noise does little (arXiv:2404.07724). The numbers: measured on moving digits, docs/LOG.md.

    Example:
        >>> from flexivid.budget.allowance import step_options
        >>> from flexivid.model.config import FlexiDiTConfig
        >>> options = tuple(step_options(FlexiDiTConfig(modes=("1x2x2", "2x2x2", "2x4x4")), guided=True))
        >>> allowance = Allowance(options, (200, 90, 20), 5, 500, (100, 45, 10))
        >>> for affordable in (500, 300, 220, 160, 140):
        ...     early, choice = guided_stages(allowance._replace(affordable=affordable))
        ...     print(early.schedule(choice))
        3x2x4x4+2x4x4,2x1x2x2+1x2x2
        3x2x4x4+2x4x4,2x1x2x2
        3x2x4x4+2x4x4,1x2x2x2,1x1x2x2
        3x2x4x4+2x4x4,2x2x2x2
        2x2x4x4+2x4x4,2x2x2x2
    """
    early = allowance.guided_first()._replace(num_steps=MAX_STEPS)  # whose native steps alone are not full compute
    last, is_ordinary = len(allowance.options) - 1, all(step.guide_mode == step.mode for step in allowance.options)
    saves = allowance.affordable < allowance.full and early.costs[-1] < early.costs[min(1, last)]
    if not saves or last < 2 or not is_ordinary:
        return allowance, staged(allowance)
    if allowance.at(1).affordable <= FEW_STEPS * allowance.costs[0]:
        coarse, unspent = [last] * EARLY_STEPS, allowance.affordable - EARLY_STEPS * allowance.costs[-1]
        if unspent >= FEWEST_LATE * allowance.costs[0]:
            return allowance, [*coarse, *[0] * (unspent // allowance.costs[0])]
        for late in ([0, 0], [1, 0], [1, 1]):
            if sum(early.costs[option] for option in late) <= unspent:
                return early, [*coarse, *late]
    few, more = staged(allowance), staged(early)
    late_few, late_more = (len(choice) - choice.count(last) for choice in (few, more))
    return (early, more) if late_few < FEWEST_LATE <= late_more else (allowance, few)


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
