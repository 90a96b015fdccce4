"""The search for the plans closest to real videos: step floor, candidates, rounds, variations around the leaders.

Every plan has large patches first and fine ones last. Candidates differ in their modes and in the share of the budget
that goes to the first stage; solver, spacing of times and guidance are varied around the leaders only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from flexivid.budget.allowance import Allowance
from flexivid.budget.planners import early_scale
from flexivid.budget.schedule import REUSE, Step, affordable_cost
from flexivid.budget.scores import ScoreTable
from flexivid.calibration.scoring import Judge, Scorer, halve, plan_from, score_table, step_floor
from flexivid.diffusion.solver import solvers_of
from flexivid.metrics.bootstrap import paired_difference
from flexivid.model.flexidit import FlexiDiT
from flexivid.sampling.plan import Plan, allowance_of, plan_for
from flexivid.sampling.settings import Settings, full_macs

SHARES = (0.15, 0.3, 0.5)  # of a budget that goes to the first stage
MOST_STEPS = 24  # of a stage in one weak mode
SHIFTS = (0.5, 2.0)  # times the sampler's
GUIDANCE = (0.75, 1.25)  # times the sampler's, where it has any
WEAK_GUIDANCE = (0.0, 0.5, 1.5)  # the same of the weak steps alone; 0 = these steps without guidance, one call each
SEARCHED_BUDGETS = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05)


class Effort(NamedTuple):
    """How thorough a search is."""

    budgets: Sequence[float] = SEARCHED_BUDGETS  # upper ends of the price ranges, as fractions of all-native compute
    rounds: Sequence[float] = (0.125, 0.25, 0.5, 1.0)  # shares of the videos that rounds of successive halving see
    shares: Sequence[float] = SHARES  # of a budget that candidates spend on their first stage
    vary: bool = True  # whether solver, spacing of times, guidance and reuse are tried around the leaders
    measure_floor: bool = True  # whether the step floor is measured


THOROUGH = Effort()
SHORT_BUDGETS = (1.0, 0.5, 0.3, 0.25, 0.2, 0.1)
SHORT = Effort(SHORT_BUDGETS, rounds=(0.25, 1.0), shares=(0.3,), vary=False, measure_floor=False)
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
    defaults = _defaults(model, settings, effort.budgets)
    plans = first_candidates(model, settings, effort.budgets, shares=effort.shares)
    natives = [plan for plan in plans if {step.mode for step in plan.schedule} == {model.config.native}]
    rounds = [min(count, max(FEWEST_VIDEOS, round(share * count))) for share in effort.rounds]
    for number, videos in enumerate(rounds[:-1]):
        plans = _round(scorer, plans, limits, videos, grow)
        if effort.vary and number == len(rounds) - 2:
            leaders = _leaders(scorer, plans, limits, videos)
            others = [varied for leader in leaders for varied in variations(model, settings, leader)]
            plans = _round(scorer, [*plans, *others], limits, videos, grow)
    for plan in (*natives, *defaults.values()):  # plans have to be better than these: score them all
        if plan not in plans:
            plans.append(plan)
    _announce(scorer, plans, rounds[-1], grow)
    rows = [
        scorer.row(plan, rounds[-1])._replace(ahead=_is_ahead(scorer, plan, cost, rounds[-1], defaults))
        for plan, cost in zip(plans, _costs(scorer, plans), strict=True)
    ]
    return score_table(scorer, rows, floor)


def _is_ahead(scorer: Scorer, plan: Plan, cost: int, videos: int, defaults: Mapping[int, Plan]) -> bool:
    """Whether a plan is the default of its price range, or clearly nearer to real videos than that one."""
    default = next((defaults[limit] for limit in sorted(defaults) if cost <= limit), None)
    if default is None or plan in defaults.values():
        return True
    samples, rivals = (scorer.features(each, videos) for each in (plan, default))
    return paired_difference(samples, rivals, scorer.judge.real).verdict == "better"


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


def _defaults(model: FlexiDiT, settings: Settings, budgets: Iterable[float]) -> dict[int, Plan]:
    """The plan that each budget has without a search, by the MACs it pays for; none where it pays for no step."""
    allowance, full = allowance_of(model, settings, keep_steps=False), full_macs(model, settings)
    unsearched, plans = settings._replace(planner="staged"), {}
    for budget in budgets:
        if allowance.at(budget).affordable >= allowance.costs[-1]:
            plan = plan_for(model, unsearched, budget)
            plans[affordable_cost(budget, full)] = plan_from(plan.schedule, model, settings, dict(plan.sampling))
    return plans


def first_candidates(
    model: FlexiDiT, settings: Settings, budgets: Iterable[float], *, shares: Sequence[float] = SHARES
) -> list[Plan]:
    """Plans for every budget: each weak mode alone and before native steps, two weak modes, native steps, the default.

    The cheapest mode before another is tried with guidance for it alone, too, and more of it. ``shares`` of a budget go
    to the first stage.
    """
    full = allowance_of(model, settings, keep_steps=False)
    budgets, early = list(budgets), {"guidance_scale": early_scale(settings.guidance_scale)}
    plans = {str(plan.schedule): plan for plan in _defaults(model, settings, budgets).values()}
    for budget in budgets:
        allowance = full.at(budget)
        guided = [steps for steps in (*_mixtures(allowance, shares), *_two_stages(allowance, shares, 1)) if steps]
        first = [steps for late in (0, 1) for steps in _two_stages(allowance.guided_first(), shares, late)]
        new = [plan_from(steps, model, settings) for steps in guided]
        new += [plan_from(steps, model, settings, early) for steps in first if settings.guidance_scale != 1]
        for plan in new:
            plans.setdefault(str(plan.schedule), plan)
    return list(plans.values())


def _mixtures(allowance: Allowance, shares: Sequence[float]) -> Iterable[list[Step]]:
    """Sequences of steps that an allowance pays for: in one mode, or a weak one before the native one."""
    native, limit = allowance.costs[0], allowance.affordable
    yield [allowance.options[0]] * (limit // native)
    for step, cost in zip(allowance.options[1:], allowance.costs[1:], strict=True):
        yield [step] * min(MOST_STEPS, limit // cost)
        for share in shares:
            weak = min(MOST_STEPS, round(share * limit / cost))
            late = (limit - weak * cost) // native
            if weak > 0 and late > 0:
                weak = min(MOST_STEPS, (limit - late * native) // cost)
                yield [step] * weak + [allowance.options[0]] * late


def _two_stages(allowance: Allowance, shares: Sequence[float], late: int) -> Iterable[list[Step]]:
    """The cheapest option before the one of index ``late``, as many steps as an allowance pays for."""
    limit = allowance.affordable
    for share in shares if len(allowance.options) > 2 else ():
        early = max(1, round(share * limit / allowance.costs[-1]))
        count = (limit - early * allowance.costs[-1]) // allowance.costs[late]
        if 0 < count <= MOST_STEPS and early <= MOST_STEPS:
            yield [allowance.options[-1]] * early + [allowance.options[late]] * count


def variations(model: FlexiDiT, settings: Settings, plan: Plan) -> list[Plan]:
    """A leader with another solver, spacing of times or guidance, or with outputs reused; never at a higher cost."""
    sampling, process = dict(plan.sampling), model.recipe.process
    skipped = {settings.solver, "heun", "ddpm"}  # two calls a step; noise of its own in every step
    changes: list[dict[str, Any]] = [{"solver": name} for name in solvers_of(process) if name not in skipped]
    if process.path == "flow":  # the only one whose times can be shifted
        changes += [{"shift": factor * settings.shift} for factor in SHIFTS]
    if settings.guidance_scale > 1:
        scale = sampling.get("guidance_scale", settings.guidance_scale)
        changes += [{"guidance_scale": max(1.0, 1 + factor * (scale - 1))} for factor in GUIDANCE]
    varied = [plan._replace(sampling={**sampling, **new}) for new in changes]
    varied += _with_weak_guidance(model, settings, plan)
    return varied + _with_reuse(model, settings, plan)


def _with_weak_guidance(model: FlexiDiT, settings: Settings, plan: Plan) -> list[Plan]:
    """Variations of the guidance scale in weak steps; at scale 1 these need no second call."""
    native, sampling = model.config.native, dict(plan.sampling)
    scale = sampling.get("guidance_scale", settings.guidance_scale)
    guided = {step.mode for step in plan.schedule if step.guide_mode is not None}
    if scale == 1 or not guided - {native} or "weak_guidance_scale" in sampling:
        return []
    plain = [step if step.mode in (native, None) else step.plain for step in plan.schedule]
    scales = [1 + factor * (scale - 1) for factor in WEAK_GUIDANCE]
    return [
        plan_from(plain if weak == 1 else plan.schedule, model, settings, {**sampling, "weak_guidance_scale": weak})
        for weak in scales
    ]


def _with_reuse(model: FlexiDiT, settings: Settings, plan: Plan) -> list[Plan]:
    """The plan with twice as many times in the last stage, every second one without a call of the network."""
    native = model.config.native
    late = [step for step in plan.schedule if step.mode == native]
    first = [step for step in plan.schedule if step.mode != native]
    if not late or REUSE in plan.schedule or settings.solver == "heun":
        return []
    between = [part for step in late for part in (step, REUSE)]
    varied = plan_from([*first, *between], model, settings, dict(plan.sampling))
    costs = [settings.schedule_macs(model.config, steps) for steps in (varied.schedule, plan.schedule)]
    return [varied] if costs[0] <= costs[1] else []
