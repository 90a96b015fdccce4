"""Scores plans by the distance of their samples to real videos. Errors against full compute cannot tell what beats it.

Single calls have no distance to real videos, so whole plans are sampled, all from the same noises and classes. Few
samples show that most plans lose: the leaders go on to the next round (successive halving), and only the last ones are
scored on all videos. Plans and rounds are in ``plan_search``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flexivid.budget.schedule import Schedule, Step
from flexivid.budget.scores import ScoredPlan, ScoreTable
from flexivid.evaluation.features import extract
from flexivid.evaluation.rivals import native_plan
from flexivid.evaluation.run import Request, prepare
from flexivid.media.pixels import to_bytes
from flexivid.metrics.extractors.extractor import Extractor
from flexivid.metrics.frechet import Gaussian, distance
from flexivid.metrics.scores import Scores, score
from flexivid.model.checkpoint import fingerprint
from flexivid.model.flexidit import FlexiDiT
from flexivid.sampling.conditions import Conditions
from flexivid.sampling.generate import generate_batches
from flexivid.sampling.plan import Plan, plan_of, runnable, table_settings
from flexivid.sampling.settings import Settings, options_for

SEED = 1_000_000  # far from the seeds people sample with
NUM_REAL = 512  # real clips, at most
DIGITS = 6  # of a stored number
MANY_STEPS = 50  # native steps that the step floor is compared with
FLOOR_STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 30, 40)  # numbers of native steps that it may be

OnSamples = Callable[[int], Any]  # (number of new samples)


class Judge(NamedTuple):
    """The real videos that samples are compared with, and how."""

    extractor: Extractor  # turns videos into features
    real: Tensor  # features of real clips, (m, d)
    conditions: Conditions  # what the samples should show
    metric: str  # name of the distance, such as ``fvd[motion]``


def find_judge(request: Request, device: torch.device) -> Judge:
    """A judge by the motion network, with the real clips and the prompts that a request names.

    Held-out clips are for evaluations: a plan must not be tested on those that chose it. ``FileNotFoundError`` if there
    are no such videos; ``ValueError`` if they do not fit.
    """
    plans: dict[str, Any] = {"budgets": [1.0], "sampling": {"planner": "weak_first"}, "rivals": False}
    job = prepare(replace(request, **plans, num_reference=NUM_REAL, held_out=False), device)
    return Judge(job.task.extractor, job.real.all(), job.task.conditions, job.task.extractor.metric_name)


class Scorer:
    """Samples plans and scores them. It stores the features of all samples, so none is made twice."""

    def __init__(
        self, model: FlexiDiT, settings: Settings, judge: Judge, on_samples: OnSamples = lambda count: None
    ) -> None:
        self.model, self.settings, self.judge, self._on_samples = model, settings, judge, on_samples
        self._features: dict[str, Tensor] = {}

    def features(self, plan: Plan, count: int) -> Tensor:
        """Features of a plan's first samples, (count, d)."""
        features = self._features.get(_name(plan), torch.empty(0, self.judge.real.shape[1]))
        if len(features) < count:
            features = torch.cat([features, self.make(plan, range(len(features), count))])
            self._features[_name(plan)] = features
        return features[:count]

    def make(self, plan: Plan, indices: Sequence[int]) -> Tensor:
        """Make samples of a plan: features of these global indices, (len(indices), d)."""
        settings, conditions = plan.settings(self.settings), self.judge.conditions
        batches = generate_batches(
            self.model, plan.followed, settings, conditions=conditions, seed=SEED, indices=indices
        )
        features = [torch.empty(0, self.judge.real.shape[1])]
        for _, videos in batches:
            features.append(extract(self.judge.extractor, to_bytes(videos)))
            self._on_samples(len(videos))
        return torch.cat(features)

    def num_samples(self, plan: Plan) -> int:
        """Samples of a plan so far."""
        return len(self._features.get(_name(plan), ()))

    def distance(self, plan: Plan, count: int) -> float:
        """Frechet distance of the first samples to the real videos."""
        return distance(Gaussian.of(self.features(plan, count).double()), Gaussian.of(self.judge.real.double()))

    def score(self, plan: Plan, count: int) -> Scores:
        """The same with its interval and the other measures."""
        with warnings.catch_warnings():  # of too few videos: plans are compared with equally many
            warnings.filterwarnings("ignore", "got .* videos; expected at least", UserWarning)
            return score(self.features(plan, count), self.judge.real)

    def row(self, plan: Plan, count: int) -> ScoredPlan:
        """A plan with its score, as it is stored."""
        scores = self.score(plan, count)
        value, low, high = (round(number, DIGITS) for number in (scores.fvd, scores.low, scores.high))
        return ScoredPlan(str(plan.schedule), dict(plan.sampling), value, low, high, count)


def _name(plan: Plan) -> str:
    return f"{plan.schedule} {sorted(plan.sampling.items())}"


def plan_from(
    steps: Sequence[Step], model: FlexiDiT, settings: Settings, sampling: dict[str, Any] | None = None
) -> Plan:
    """A plan of these steps, as the solver can run it."""
    schedule = runnable(Schedule(steps), model, settings._replace(**(sampling or {})))
    return plan_of(schedule, model, settings)._replace(sampling=sampling or {})


def step_floor(scorer: Scorer, count: int, grow: OnSamples = lambda count: None, *, many: int | None = None) -> int:
    """The fewest native steps whose distance to real videos is within the interval of many, by default 50.

    So many videos show no gain from more steps, so full compute should be about as many. ``grow`` is told numbers of
    samples to come.
    """
    many = many or MANY_STEPS
    highest = scorer.score(native_plan(scorer.model, scorer.settings, many), count).high
    for steps in FLOOR_STEPS:
        grow(count)
        if scorer.distance(native_plan(scorer.model, scorer.settings, steps), count) <= highest:
            return steps
    return many


def raised_floor(floor: int, rows: Sequence[ScoredPlan], native: Step) -> int:
    """The step floor where ``rows``, of more videos than it was measured with, show a gain from more native steps.

    Then it is the fewest native steps of these rows within the interval of the most. A floor between those and the next
    fewer ones stays: of it the rows say nothing.
    """
    plain = [(Schedule.parse(row.steps), row) for row in rows if not row.sampling]
    natives = {len(steps): row for steps, row in plain if set(steps) == {native}}
    highest = natives[max(natives)].high if natives else math.inf
    enough = min((steps for steps, row in natives.items() if row.fvd <= highest), default=floor)
    too_few = max((steps for steps in natives if steps < enough), default=0)
    return floor if floor > too_few else enough


def halve(
    plans: Sequence[Plan], costs: Sequence[int], limits: Sequence[float], distances: Sequence[float]
) -> list[Plan]:
    """The better half of the plans between each limit of the costs and the next lower one, at least two of them.

    Plans above the highest limit are dropped; of distances, lower is better.
    """
    leaders: list[Plan] = []
    edges = [0.0, *sorted(limits)]
    for low, high in pairwise(edges):
        rows = zip(distances, plans, costs, strict=True)
        group = sorted(((away, plan) for away, plan, cost in rows if low < cost <= high), key=lambda row: row[0])
        leaders += [plan for _, plan in group[: max(2, -(-len(group) // 2))]]
    return leaders


def score_table(scorer: Scorer, rows: Sequence[ScoredPlan], floor: int | None = None) -> ScoreTable:
    """All scores, as they are stored beside the model; refuses a distance that is not finite."""
    judge = scorer.judge
    by = {"metric": judge.metric, "num_real": len(judge.real), "seed": SEED}
    settings, native = table_settings(scorer.settings), options_for(scorer.model, scorer.settings)[0]
    floor = floor and raised_floor(floor, rows, native)
    return ScoreTable(fingerprint(scorer.model), settings, tuple(rows), by, floor).check()
