"""Quality against compute: features of videos generated at every budget, and the scores they come to.

Knows generation and metrics, and neither folders of videos nor processes. Each block of samples is made under all plans
before the next block, so a run that is cut short has the same samples at every budget. Blocks are the same however many
ranks share them, so a feature is the same bit for bit. Videos are rounded to 8 bits before anything looks at them, as
in a file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from flexivid.budget.schedule import schedule_macs
from flexivid.evaluation.result import BudgetScores, Evaluation
from flexivid.evaluation.rivals import FEWER_STEPS, find_plan, native_plan, rival_plan
from flexivid.media.pixels import to_bytes, to_unit
from flexivid.metrics.extractors.extractor import Extractor
from flexivid.metrics.fidelity import Fidelity, fidelity
from flexivid.metrics.paired import paired_difference
from flexivid.metrics.scores import score
from flexivid.model.flexidit import FlexiDiT
from flexivid.runtime.finite import NotFiniteSampleError
from flexivid.sampling.generate import OnStep, generate_batches, schedule_of
from flexivid.sampling.plan import Plan
from flexivid.sampling.settings import Settings

__all__ = ["BudgetScores", "Evaluation", "Made", "Task", "blocks_of", "evaluate_features", "extract", "score_budgets"]

NUM_SHOWN = 8  # samples whose frames are kept, for people to look at


class Task(NamedTuple):
    """What to generate and how to look at it, the same on every rank.

    Args:
        model: In eval mode.
        plans: One for each budget, then the native ones beside them, see ``rivals.with_rivals``.
        settings: From ``Sampling(...).filled(model)``.
        labels: Class of each sample, int64 (n,).
        extractor: Turns videos into features.
        seed: Sample i starts from the noise of seed + i.
        rivals: Whether scores of native steps alone stand beside those of each plan.
    """

    model: FlexiDiT
    plans: tuple[Plan, ...]
    settings: Settings
    labels: Tensor
    extractor: Extractor
    seed: int = 0
    rivals: bool = True

    def check(self) -> Task:
        """Return itself.

        Raises:
            ValueError: If there are too few videos, or too few frames for the extractor.
        """
        if len(self.labels) < 2:
            raise ValueError(f"got {len(self.labels)} videos; expected at least 2 for a distance; raise num_videos")
        check_frames(self.extractor, self.settings.size[0])
        return self

    @property
    def rows(self) -> list[int]:
        """Numbers of the plans that have a row of their own: those of the budgets."""
        return [number for number, plan in enumerate(self.plans) if plan.planner != FEWER_STEPS]

    @property
    def full(self) -> int | None:
        """Number of the plan that others are held against: all steps, and native; ``None`` if there is none."""
        return find_plan(self.plans, native_plan(self.model, self.settings))

    def rival(self, number: int) -> int | None:
        """Number of the plan of native steps alone that costs as much as a plan; ``None`` if it is that plan itself."""
        plan = rival_plan(self.model, self.settings, self.plans[number].budget)
        found = find_plan(self.plans, plan) if self.rivals else None
        return None if found == number else found


class Made(NamedTuple):
    """What is kept of a block of samples under one plan.

    Args:
        plan: Number of the plan.
        indices: Global indices, int64 (b,).
        features: float32 (b, d).
        fidelity: PSNR, SSIM and distance of the features of each sample, float64 (b, 3); NaN for full compute itself.
        seconds: Time to generate the block.
        macs: MACs of the block.
        frames: uint8 (k, t, h, w, 3) of the samples with an index below ``NUM_SHOWN``.
    """

    plan: int
    indices: Tensor
    features: Tensor
    fidelity: Tensor
    seconds: float
    macs: int
    frames: Tensor


class Store(Protocol):
    """Where blocks are kept, so that none is made twice."""

    def read(self, plan: int, indices: Sequence[int]) -> Made | None:
        """The block, if it is there."""

    def write(self, made: Made) -> None:
        """Keep a block."""


def check_frames(extractor: Extractor, num_frames: int) -> None:
    """Refuse videos too short for an extractor.

    Raises:
        ValueError: If they are.
    """
    if num_frames < extractor.min_frames:
        raise ValueError(
            f"got videos of {num_frames} frames; expected at least {extractor.min_frames} for metric {extractor.name};"
            " raise num_frames or choose another metric, e.g. motion"
        )


def blocks_of(num_videos: int, batch_size: int, rank: int = 0, world_size: int = 1) -> list[list[int]]:
    """A rank's share: whole blocks of neighbouring global indices, in turn.

    What is in a block depends on ``num_videos`` and ``batch_size`` alone, so that kernels give the same on any number
    of ranks. With fewer blocks than ranks some are idle: lower ``batch_size``.

    Example:
        >>> blocks_of(7, 2), blocks_of(7, 2, rank=1, world_size=2)
        ([[0, 1], [2, 3], [4, 5], [6]], [[2, 3], [6]])
    """
    firsts = range(rank * batch_size, num_videos, world_size * batch_size)
    return [list(range(first, min(first + batch_size, num_videos))) for first in firsts]


def evaluate_features(
    task: Task, blocks: Sequence[Sequence[int]], *, store: Store | None = None, on_step: OnStep | None = None
) -> Iterator[Made]:
    """Generate blocks of samples under every plan and keep their features.

    Args:
        task: What to do.
        blocks: A rank's share, from :func:`blocks_of`.
        store: Blocks that are there are not made again, new ones are added.
        on_step: Called after each call of the network.

    Yields:
        A block under one plan; all plans of a block, the full-compute one first, before the next block.

    Raises:
        NotFiniteSampleError: If a sample is not finite.
    """
    full = task.full
    order = sorted(range(len(task.plans)), key=lambda number: (number != full, number))
    for block in blocks:
        reference: _Films | None = None  # at full compute; the store keeps no videos
        for number in order:
            made = store.read(number, block) if store else None
            if made is None:
                if reference is None and full is not None:
                    reference = _generated(task, full, block, on_step)
                films = reference if number == full else _generated(task, number, block, on_step)
                assert films is not None
                made = _look(films, number, block, None if number == full else reference)
                if store:
                    store.write(made)
            yield made


class _Films(NamedTuple):
    """Videos of a block, uint8 (b, 3, t, h, w), their features, and what they cost."""

    videos: Tensor
    features: Tensor
    seconds: float
    macs: int


def _generated(task: Task, number: int, block: Sequence[int], on_step: OnStep | None) -> _Films:
    plan, started = task.plans[number], time.perf_counter()
    settings = plan.settings(task.settings)._replace(batch_size=len(block))
    made = generate_batches(
        task.model, plan.followed, settings, labels=task.labels, seed=task.seed, indices=block, on_step=on_step
    )
    try:
        videos = torch.cat([videos for _, videos in made])
    except NotFiniteSampleError as error:
        raise NotFiniteSampleError(error.sample, f"at budget {plan.budget:g}") from error
    seconds = time.perf_counter() - started
    schedules = [schedule_of(plan.followed, i) for i in block]
    macs = sum(schedule_macs(schedule, task.model.config, task.settings.size) for schedule in schedules)
    rounded = to_bytes(videos)
    return _Films(rounded, extract(task.extractor, rounded), seconds, macs)


def _look(films: _Films, number: int, block: Sequence[int], full: _Films | None) -> Made:
    likeness = torch.full((len(block), len(Fidelity._fields)), math.nan, dtype=torch.float64)
    if full is not None:
        pairs = zip(to_unit(films.videos).split(1), to_unit(full.videos).split(1), strict=True)
        likeness = torch.tensor([fidelity(video, other) for video, other in pairs], dtype=torch.float64)
        likeness[:, -1] = (films.features - full.features).double().norm(dim=1)
    shown = films.videos[[i < NUM_SHOWN for i in block]].permute(0, 2, 3, 4, 1).contiguous()
    return Made(number, torch.tensor(block), films.features, likeness, films.seconds, films.macs, shown)


@torch.no_grad()
def extract(extractor: Extractor, videos: Tensor) -> Tensor:
    """Features of uint8 videos (b, 3, t, h, w): float32 (b, d), on the CPU."""
    state = chain(extractor.parameters(), extractor.buffers())
    device = next((tensor.device for tensor in state), torch.device("cpu"))
    return extractor(to_unit(videos.to(device))).float().cpu()


def score_budgets(task: Task, made: Sequence[Made], real: Tensor) -> tuple[BudgetScores, ...]:
    """Scores of the plan of every budget, with those of native steps alone for the same compute beside them.

    Args:
        task: What was done.
        made: The blocks of all ranks, in any order.
        real: Features of real videos, (m, d).

    Returns:
        One for each budget, in their order.
    """
    blocks = sorted(made, key=lambda one: int(one.indices[0]))
    parts = [[one for one in blocks if one.plan == number] for number in range(len(task.plans))]
    features = [torch.cat([one.features for one in part]) for part in parts]
    scored = [_row(task, number, part, real) for number, part in enumerate(parts)]
    rows = []
    for number in task.rows:
        row, rival = scored[number], task.rival(number)
        if rival is not None:
            difference = paired_difference(features[number], features[rival], real, seed=task.seed)
            row = row._replace(rival=scored[rival], difference=difference)
        rows.append(row)
    return tuple(rows)


def _row(task: Task, number: int, made: Sequence[Made], real: Tensor) -> BudgetScores:
    plan = task.plans[number]
    features = torch.cat([one.features for one in made])
    likeness = torch.cat([one.fidelity for one in made]).mean(0)
    return BudgetScores(
        plan.budget,
        str(plan.followed),
        round(sum(one.macs for one in made) / len(features)),
        sum(one.seconds for one in made) / len(features),
        score(features, real, seed=task.seed),
        None if likeness.isnan().all() else Fidelity(*likeness.tolist()),
    )
