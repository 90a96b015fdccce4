"""Which schedule an allowance buys: one function a planner, all in ``PLANNERS``. No torch.

Every planner stays within the allowance, whatever its unit. Some keep its number of steps, some choose their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flexivid.budget.allowance import Allowance
from flexivid.budget.schedule import MAX_STEPS, REUSE, Schedule
from flexivid.budget.scores import ScoredPlan, ScoreTable, affordable_rows, best_row
from flexivid.budget.search import Point, best, frontier, merged
from flexivid.budget.spectral import Spectrum, activation_choice
from flexivid.budget.table import ErrorTable, Table

Planner = Callable[[Allowance, "Table | None"], Schedule]
TimesOf = Callable[[int], Sequence[float]]  # flow times of so many calls

FINER_SHARE = 3  # steps of the finest weak mode that each native one should come with, at least
COARSE_SHARE = 1  # steps of the cheapest mode that each of the finest weak one should come with, at least
FEWEST_STEPS = 4  # of both weak modes together, where the finer one takes part
MOST_COARSE = 12  # steps of the cheapest mode for each finer one, at most: more of them add nothing
TOLERANCE = 0.01  # error of the best velocity that a weak mode may bring (spectral): 1 % of the noise's power
SPECTRAL_STEPS = 50  # at most


def staged(allowance: Allowance, table: Table | None = None) -> Schedule:
    """Three stages, from the largest patches to native ones, with a number of steps that suits the budget: the default.

    The cheapest mode decides what is shown, the finest weak mode draws most of it, the native mode finishes it. So a
    native step is taken only where it leaves enough for :data:`FINER_SHARE` steps of the finest weak mode, and one of
    these only where it leaves enough for :data:`COARSE_SHARE` of the cheapest and :data:`FEWEST_STEPS` in all. What is
    left buys more of the cheapest. How many steps full compute has does not matter, but full compute itself is native.

    Source:
        The order: FlexiDiT (arXiv:2502.20126). The shares: measured on moving digits and on real footage, docs/LOG.md.

    Example:
        >>> from flexivid.budget.schedule import Step
        >>> from flexivid.patching.shapes import PatchMode
        >>> options = tuple(Step(PatchMode(mode)) for mode in ("1x2x2", "2x2x2", "2x4x4"))
        >>> allowance = Allowance(options, (100, 40, 10), num_steps=10, affordable=400)
        >>> str(staged(allowance)), str(staged(allowance._replace(affordable=90)))
        ('6x2x4x4,6x2x2x2,1x1x2x2', '5x2x4x4,1x2x2x2')
    """
    if allowance.affordable >= allowance.full:
        return allowance.schedule([0] * allowance.num_steps)  # nothing is to be saved
    options = allowance.options[0], allowance.options[min(1, len(allowance.options) - 1)], allowance.options[-1]
    native, finer, cheapest = (allowance.costs[allowance.options.index(option)] for option in options)
    early, middle, late = staged_counts(native, finer, cheapest, allowance.affordable)
    return Schedule([options[2]] * early + [options[1]] * middle + [options[0]] * late)


def staged_counts(native: int, finer: int, cheapest: int, affordable: int) -> tuple[int, int, int]:
    """How many steps of the cheapest mode, of the finest weak one and of the native one :func:`staged` takes.

    Args:
        native: Cost of a native step, in any unit.
        finer: Of one of the finest weak mode; likewise ``cheapest``. All may be the same mode.
        affordable: What all steps may cost together; one of the cheapest is within it.

    Example:
        >>> staged_counts(100, 40, 10, 400), staged_counts(100, 40, 10, 90)
        ((6, 6, 1), (5, 1, 0))
    """
    with_coarse = finer + COARSE_SHARE * cheapest
    late = min(MAX_STEPS, affordable // (native + FINER_SHARE * with_coarse))
    left = affordable - late * native
    middle = min(MAX_STEPS, left // with_coarse) if cheapest < finer else 0
    if middle == 1 and finer + (FEWEST_STEPS - 1) * cheapest > left:
        middle = 0
    left -= middle * finer
    early = min(left // cheapest, MOST_COARSE * (late + middle + 1)) if cheapest < native else 0
    if not late and not middle and not early:
        late = 1  # an allowance pays for one call of its cheapest option
    return early, middle, late


def spectral(allowance: Allowance, spectrum: Spectrum, times_of: TimesOf) -> Schedule:
    """The cheapest mode at each call whose lost detail is still hidden by noise, in as many steps as can be paid.

    More steps and finer modes grow with the budget together. What is left refines the last calls, one after the other.
    A budget too small for this is spent on the cheapest mode.

    Args:
        allowance: Options and what may be spent.
        spectrum: Power of the data.
        times_of: Flow times of the calls, given their number.

    Source:
        Activation times: SPEED (arXiv:2605.18736), see ``budget.spectral``.

    Example:
        >>> from flexivid.budget.schedule import Step
        >>> from flexivid.patching.shapes import PatchMode
        >>> options = tuple(Step(PatchMode(mode)) for mode in ("1x2x2", "1x4x4", "2x4x4"))
        >>> spectrum = Spectrum(((1.9, 0.1), (2.5, 1.0, 0.4, 0.1), (2.5, 1.0, 0.4, 0.1)), deviation=1.0, clips=256)
        >>> allowance = Allowance(options, (100, 40, 10), num_steps=10, affordable=280)
        >>> str(spectral(allowance, spectrum, lambda calls: [1 - call / calls for call in range(calls)]))
        '1x1x4x4,2x1x2x2'
    """
    modes = [step.modes[0] for step in allowance.options]
    choice = [len(modes) - 1]
    for calls in range(1, SPECTRAL_STEPS + 1):
        found = activation_choice(spectrum, modes, times_of(calls), TOLERANCE)
        if sum(allowance.costs[option] for option in found) > allowance.affordable:
            break
        choice = found
    part = allowance._replace(num_steps=len(choice), plain_calls=frozenset())
    left = part.affordable - sum(part.costs[option] for option in choice)
    for call in reversed(range(len(choice))):
        while choice[call] and part.costs[choice[call] - 1] - part.costs[choice[call]] <= left:
            left -= part.costs[choice[call] - 1] - part.costs[choice[call]]
            choice[call] -= 1
    return part.schedule(choice)


def weak_first(allowance: Allowance, table: Table | None = None) -> Schedule:
    """As many native steps as can be paid, then of the next finer mode, and so on; the cheapest ones come first.

    Source:
        FlexiDiT (arXiv:2502.20126): weak steps first, powerful ones last.

    Example:
        >>> from flexivid.budget.schedule import Step
        >>> from flexivid.patching.shapes import PatchMode
        >>> options = tuple(Step(PatchMode(mode)) for mode in ("1x2x2", "1x4x4", "2x4x4"))
        >>> allowance = Allowance(options, (100, 40, 10), num_steps=10, affordable=400)
        >>> str(weak_first(allowance)), str(three_phase(allowance))
        ('6x2x4x4,1x1x4x4,3x1x2x2', '2x1x2x2,6x2x4x4,1x1x4x4,1x1x2x2')
    """
    return allowance.schedule(_filled(allowance, [], []))


def three_phase(allowance: Allowance, table: Table | None = None) -> Schedule:
    """Native, weak, native: as :func:`weak_first`, but half of the native steps come at the beginning.

    Source:
        SRDiffusion (the large model in the earliest steps) and FlowBlending (in the earliest and the latest).
    """
    for count in range(allowance.num_steps, -1, -1):
        late = [0] * (count // 2)
        early = [0] * (count - len(late))
        middle = [-1] * (allowance.num_steps - count)
        if sum(row[option] for row, option in zip(allowance.rows, early + middle + late, strict=True)) <= (
            allowance.affordable
        ):
            break
    return allowance.schedule(_filled(allowance, early, late))


def fewer_steps(allowance: Allowance, table: Table | None = None) -> Schedule:
    """Native steps alone, as many as can be paid: what a budget has to be better than.

    Raises:
        ValueError: If not even one can be paid.

    Example:
        >>> from flexivid.budget.schedule import Step
        >>> from flexivid.patching.shapes import PatchMode
        >>> options = tuple(Step(PatchMode(mode)) for mode in ("1x2x2", "2x4x4"))
        >>> str(fewer_steps(Allowance(options, (100, 10), num_steps=10, affordable=400)))
        '4x1x2x2'
    """
    count = min(allowance.num_steps, allowance.affordable // allowance.costs[0])
    if count < 1:
        share = allowance.affordable / allowance.costs[0]
        raise ValueError(
            f"got a budget of {share:.2g} native steps for the planner fewer_steps; expected at least one whole step;"
            " raise the budget or choose another planner"
        )
    return Schedule([allowance.options[0]] * count)


def searched(allowance: Allowance, table: Table | None = None) -> Schedule:
    """The schedule of least measured error.

    Raises:
        ValueError: If there is no table, or it lacks an option.
    """
    if not isinstance(table, ErrorTable):
        raise ValueError(
            "got no table of measured errors, which the planners searched and adaptive go by; expected schedules.json"
            " beside the checkpoint; run python -m flexivid.search --goal fidelity first, or choose --planner staged"
        )
    return searched_over([(allowance, table)])


def searched_over(rivals: Sequence[tuple[Allowance, ErrorTable]]) -> Schedule:
    """The schedule of least expected error among several numbers of steps.

    Args:
        rivals: For each number of steps what may be spent, the same for all, and what was measured.
    """
    point = best(merged(expected_front(*rival) for rival in rivals), rivals[0][0].affordable)
    assert point is not None, "an allowance pays for its cheapest option throughout"
    allowance, table = next(rival for rival in rivals if rival[0].num_steps == len(point.choice))
    return searchable(allowance, table).schedule(point.choice)


def searchable(allowance: Allowance, table: ErrorTable) -> Allowance:
    """The allowance with the option to reuse the last output, if the table knows what that costs in error."""
    return allowance.with_reuse() if REUSE in table.options else allowance


def error_front(allowance: Allowance, table: ErrorTable) -> list[Point]:
    """The best choices at every cost, with the sums of their calls' errors; options are those of ``searchable``."""
    whole = searchable(allowance, table)
    return frontier(table.rows(whole.options), whole.rows, max_switches=table.max_switches)


def expected_front(allowance: Allowance, table: ErrorTable) -> list[Point]:
    """The same, with the errors to be expected of them: see ``ErrorTable.expected``."""
    return [point._replace(error=table.expected(point.error)) for point in error_front(allowance, table)]


def best_scored(allowance: Allowance, table: Table | None = None, *, num_calls: int | None = None) -> ScoredPlan:
    """The plan whose samples came closest to real videos, of those that were tried and can be paid.

    Args:
        allowance: Options and what may be spent.
        table: Scored plans.
        num_calls: Only plans of so many calls; ``None`` = of any number.

    Raises:
        ValueError: If none was tried, or none can be paid.
    """
    known = isinstance(table, ScoreTable)
    row = best_row(affordable_rows(table, allowance, num_calls=num_calls)) if known else None  # type: ignore[arg-type]
    if row is None:
        reason = "so small a budget" if known else "this model and these settings"
        raise ValueError(
            f"got no plan scored against real videos for {reason}, which the planner searched_fvd goes by; expected"
            " scores in schedules.json beside the checkpoint; run python -m flexivid.search first, or choose --planner"
            " staged"
        )
    return row


def searched_fvd(allowance: Allowance, table: Table | None = None) -> Schedule:
    """The schedule of :func:`best_scored`, without the solver settings that belong to it."""
    return Schedule.parse(best_scored(allowance, table).steps)


PLANNERS: dict[str, Planner] = {
    "staged": staged,
    "weak_first": weak_first,
    "searched": searched,
    "adaptive": searched,  # what a sample follows until it has changed often enough to be judged by its own changes
    "three_phase": three_phase,
    "searched_fvd": searched_fvd,
    "fewer_steps": fewer_steps,
}
NAMES = (*PLANNERS, "spectral")  # which needs a spectrum and the solver's times beside the allowance


def check_planner(name: str) -> str:
    """Return the name.

    Raises:
        ValueError: If there is no such planner.
    """
    if name not in NAMES:
        raise ValueError(f"got planner {name!r}; expected one of {', '.join(NAMES)}; choose one")
    return name


def _filled(allowance: Allowance, early: Sequence[int], late: Sequence[int]) -> list[int]:
    """A choice between given ones: as many of the finest option at the end as can be paid, then of the next finer."""
    rows, end = allowance.rows, allowance.num_steps - len(late)
    cheapest = len(allowance.options) - 1
    choice = [*early, *[cheapest] * (end - len(early)), *late]
    left = allowance.affordable - sum(row[option] for row, option in zip(rows, choice, strict=True))
    for option in range(cheapest):
        while end > len(early) and rows[end - 1][option] - rows[end - 1][cheapest] <= left:
            end -= 1
            left -= rows[end][option] - rows[end][cheapest]
            choice[end] = option
    return choice
