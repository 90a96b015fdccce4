"""Schedules held against real videos: what an error cannot tell, where full compute is not what is best.

A short training leaves the native mode behind weak ones, which see more clips in the time. Then the distance to native
samples is the wrong goal, and the Frechet distance to real videos a better one; but it is known for samples only, not
for single calls. So candidates are sampled: every option alone at every number of steps, what the errors suggest for
each budget, and weak modes first, with native steps and without. All start from the same noises.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flexivid.budget.planners import error_front, weak_first
from flexivid.budget.schedule import Schedule, affordable_cost
from flexivid.budget.search import winners
from flexivid.budget.table import ErrorTable, Scored
from flexivid.budget.units import Allowance
from flexivid.latents.codec import to_bytes
from flexivid.metrics.features import Extractor
from flexivid.metrics.scores import score
from flexivid.model.flexidit import FlexiDiT
from flexivid.pipeline.calibration import DIGITS, SEED, OnCalls
from flexivid.pipeline.evaluation import extract
from flexivid.pipeline.evaluation_run import Request, prepare, run_folder
from flexivid.pipeline.generate import generate_batches
from flexivid.pipeline.sampling import Settings, fraction_of

NUM_REAL = 512  # real clips, at most

Choices = list[tuple[int, ...]]  # options by number, one a call


class Judge(NamedTuple):
    """What samples are held against.

    Args:
        extractor: Turns videos into features.
        real: Features of real clips, (m, d).
        labels: Classes of the samples, int64 (n,).
        metric: The distance in one word, with what it depends on.
    """

    extractor: Extractor
    real: Tensor
    labels: Tensor
    metric: str


def find_judge(
    checkpoint: str | Path, num_videos: int, *, reference: str | None, ema: bool, device: torch.device
) -> Judge:
    """The motion network, and clips of the videos that a run was trained on, or of others.

    Args:
        checkpoint: Run folder, ``.ckpt`` or exported folder.
        num_videos: Samples a schedule.
        reference: Folder of real videos; ``None`` = those of the run.
        ema: Averaged weights.
        device: Where to compute.

    Raises:
        FileNotFoundError: If there are no such videos.
        ValueError: If they do not fit.
    """
    output = run_folder(checkpoint) / "evaluation"
    common: dict[str, Any] = {"num_videos": num_videos, "num_reference": NUM_REAL, "reference": reference, "ema": ema}
    request = Request(str(checkpoint), str(output), [1.0], sampling={"planner": "weak_first"}, **common)
    job = prepare(request, device)
    return Judge(job.task.extractor, job.real.all(), job.task.labels, job.protocol.label)


def candidates(
    model: FlexiDiT, every: Sequence[Settings], tables: Sequence[ErrorTable], budgets: Sequence[float]
) -> list[Choices]:
    """What is worth sampling, for each table.

    Args:
        model: The network.
        every: Settings of each table; they differ in the number of steps only.
        tables: From ``relate``.
        budgets: Fractions of native compute with the most steps.
    """
    wholes = [fraction_of(model, settings, 1.0) for settings in every]
    full, most = max((whole.full, whole.num_steps) for whole in wholes)
    found = []
    for whole, table in zip(wholes, tables, strict=True):
        choices = [(option,) * whole.num_steps for option in range(len(whole.options))]
        front = error_front(whole, table)
        limits = [affordable_cost(budget, full) for budget in budgets]
        choices += [point.choice for point in winners(front, limits)]
        for limit in limits if whole.num_steps == most else ():
            choices += _weak_first(whole, limit)
        found.append(list(dict.fromkeys(choices)))
    return found


def num_sample_steps(choices: Sequence[Choices], num_videos: int) -> int:
    """Steps that scoring takes, all samples together.

    Example:
        >>> num_sample_steps([[(0, 0), (1, 1)], [(0,)]], 10)
        50
    """
    return num_videos * sum(len(choice) for own in choices for choice in own)


def score_schedules(
    model: FlexiDiT,
    settings: Settings,
    table: ErrorTable,
    choices: Choices,
    judge: Judge,
    *,
    on_calls: OnCalls = lambda count: None,
) -> ErrorTable:
    """The table, with the distance of each choice to real videos.

    Args:
        model: The network.
        settings: Of the table.
        table: What the choices mean; scores that it has are replaced.
        choices: From :func:`candidates`.
        judge: From :func:`find_judge`.
        on_calls: Called with the number of sample steps just done.

    Raises:
        ValueError: If a distance is not finite.
    """
    whole, scored = fraction_of(model, settings, 1.0), []
    for choice in choices:
        made = generate_batches(
            model,
            whole.schedule(choice),
            settings,
            labels=judge.labels,
            seed=SEED,
            on_step=lambda count, step: on_calls(count),
        )
        features = torch.cat([extract(judge.extractor, to_bytes(videos)) for _, videos in made])
        found = score(features, judge.real)
        steps = str(Schedule(whole.options[option] for option in choice))
        scored.append(Scored(steps, *(round(value, DIGITS) for value in (found.fvd, found.low, found.high))))
    by = {"metric": judge.metric, "num_videos": len(judge.labels), "num_real": len(judge.real), "seed": SEED}
    return table._replace(scored=tuple(scored), scored_by=by).check()


def _weak_first(whole: Allowance, affordable: int) -> Choices:
    """Weak modes first, with native steps and without, where that much pays for them."""
    choices = []
    for first in range(min(2, len(whole.options))):
        plain = whole.plain_costs[first:]
        part = whole._replace(
            options=whole.options[first:], costs=whole.costs[first:], plain_costs=plain, affordable=affordable
        )
        if sum(row[-1] for row in part.rows) <= affordable:
            steps = weak_first(part)
            options = range(len(whole.options))
            choices.append(
                tuple(next(i for i in options if whole.step(call, i) == step) for call, step in enumerate(steps))
            )
    return choices
