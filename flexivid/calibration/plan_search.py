"""The search for the plans closest to real videos: step floor, candidates, rounds, variations around the leaders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from flexivid.budget.schedule import affordable_cost
from flexivid.budget.scores import ScoreTable
from flexivid.calibration.candidates import SHARES, first_candidates, variations
from flexivid.calibration.scoring import Judge, Scorer, halve, score_table, step_floor
from flexivid.model.flexidit import FlexiDiT
from flexivid.sampling.plan import Plan
from flexivid.sampling.settings import Settings, full_macs

SEARCHED_BUDGETS = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05)


class Effort(NamedTuple):
    """How thorough a search is."""

    budgets: Sequence[float] = SEARCHED_BUDGETS  # upper ends of the price ranges, as fractions of all-native compute
    rounds: Sequence[float] = (0.125, 0.25, 0.5, 1.0)  # shares of the videos that rounds of successive halving see
    shares: Sequence[float] = SHARES  # of a budget that candidates spend on their first stage
    vary: bool = True  # whether solver, spacing of times, guidance and reuse are tried around the leaders
    measure_floor: bool = True  # whether the step floor is measured


THOROUGH = Effort()
SHORT = Effort(budgets=(1.0, 0.5, 0.25, 0.1), rounds=(0.25, 1.0), shares=(0.3,), vary=False, measure_floor=False)
FLOOR_VIDEOS = 128  # that the step floor is measured on, at most
FEWEST_VIDEOS = 16  # of a round


def search_plans(
    model: FlexiDiT,
    settings: Settings,
    judge: Judge,
    *,
    effort: Effort = THOROUGH,
    grow: Callable[[int], object] = lambda count: None,
    on_samples: Callable[[int], object] = lambda count: None,
) -> ScoreTable:
    """Score plans of every price against real videos.

    Full compute has as many steps as the settings. In the last round, plans have as many samples as the judge has
    conditions. ``grow`` is told numbers of samples to come, ``on_samples`` of those just made.
    """
    scorer = Scorer(model, settings, judge, on_samples)
    floor = None
    if effort.measure_floor:
        videos = min(FLOOR_VIDEOS, len(judge.conditions))
        grow(videos)  # how many numbers of steps will be tried is not known
        floor = step_floor(scorer, videos, grow)
    return search_with(scorer, effort, len(judge.conditions), floor, grow=grow)


def search_with(
    scorer: Scorer,
    effort: Effort,
    count: int,
    floor: int | None = None,
    *,
    grow: Callable[[int], object] = lambda count: None,
) -> ScoreTable:
    """Search by a scorer, which may have made samples before, with ``count`` videos of each plan in the last round.

    The step floor, if it was measured, is stored in the table. ``grow`` is told numbers of samples to come.
    """
    model, settings = scorer.model, scorer.settings
    full = full_macs(model, settings)
    limits = [affordable_cost(budget, full) for budget in effort.budgets]
    plans = first_candidates(model, settings, effort.budgets, shares=effort.shares)
    natives = [plan for plan in plans if {step.mode for step in plan.schedule} == {model.config.native}]
    rounds = [min(count, max(FEWEST_VIDEOS, round(share * count))) for share in effort.rounds]
    for number, videos in enumerate(rounds[:-1]):
        plans = _round(scorer, plans, limits, videos, grow)
        if effort.vary and number == len(rounds) - 2:
            leaders = _leaders(scorer, plans, limits, videos)
            others = [varied for leader in leaders for varied in variations(model, settings, leader)]
            plans = _round(scorer, [*plans, *others], limits, videos, grow)
    plans += [plan for plan in natives if plan not in plans]  # plans have to be better than these: score them all
    _announce(scorer, plans, rounds[-1], grow)
    return score_table(scorer, [scorer.row(plan, rounds[-1]) for plan in plans], floor)


def _round(
    scorer: Scorer, plans: Sequence[Plan], limits: Sequence[int], videos: int, grow: Callable[[int], object]
) -> list[Plan]:
    """Score all plans on so many videos, and return the better half of each price range."""
    _announce(scorer, plans, videos, grow)
    return halve(plans, _costs(scorer, plans), limits, [scorer.distance(plan, videos) for plan in plans])


def _announce(scorer: Scorer, plans: Sequence[Plan], videos: int, grow: Callable[[int], object]) -> None:
    different = {str((plan.schedule, plan.sampling)): plan for plan in plans}  # equal plans share their samples
    grow(sum(max(0, videos - scorer.num_samples(plan)) for plan in different.values()))


def _leaders(scorer: Scorer, plans: Sequence[Plan], limits: Sequence[int], videos: int) -> list[Plan]:
    """The best plan that each limit pays for, each once."""
    rows = [(scorer.distance(plan, videos), number) for number, plan in enumerate(plans)]
    costs, best = _costs(scorer, plans), []
    for limit in limits:
        best += [min((row for row in rows if costs[row[1]] <= limit), default=(0.0, -1))[1]]
    return [plans[number] for number in dict.fromkeys(best) if number >= 0]


def _costs(scorer: Scorer, plans: Sequence[Plan]) -> list[int]:
    """MACs of one video of each plan."""
    return [scorer.settings.schedule_macs(scorer.model.config, plan.schedule) for plan in plans]
