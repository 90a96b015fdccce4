"""The evaluation of a checkpoint from a request to files: prepare, do a share of the work, finish.

Each step works from the request alone and hands over through files, so processes and machines that share a folder can
do shares of the work in any order; what one of them leaves undone is done by ``finish``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flexivid.budget.schedule import schedule_macs
from flexivid.budget.table import read_tables
from flexivid.data.sources.layout import Collection, Layout
from flexivid.evaluation.clips import ClipSet, clip_settings, data_root, data_section, find_clips
from flexivid.evaluation.features import ClipFeatures
from flexivid.evaluation.rivals import with_rivals
from flexivid.evaluation.samples import Evaluation, Made, Task, blocks_of, evaluate_features, score_budgets
from flexivid.evaluation.store import SampleStore
from flexivid.metrics.extractors.extractor import build_extractor
from flexivid.metrics.protocol import Protocol, reference_features, reference_folder
from flexivid.model import checkpoint
from flexivid.model.shipped import locate
from flexivid.patching.shapes import Size3
from flexivid.sampling.compiling import warm_up
from flexivid.sampling.plan import Plan, plan_for, tables_folder
from flexivid.sampling.settings import label_numbers, labels_for, resized, settings_from

Progress = dict[str, tuple[float, float]]  # what is done of how much, by kind of work
Size = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class Request:
    """What to evaluate, in plain data. ``None`` = as the checkpoint or its training run says.

    Args:
        checkpoint: Run folder, ``.ckpt`` or exported folder.
        output: Folder for the results.
        budgets: Fractions of the full compute, or names of presets.
        schedules: Explicit plans; if there are any, they are taken instead of the budgets.
        metric: Keywords of ``build_extractor``; ``name`` among them.
        sampling: Fields of ``Sampling``.
        size: Frames, height, width.
        labels: Classes by name or number, in turn.
        num_videos: Samples a budget.
        seed: Sample i starts from the noise of seed + i.
        reference: Folder of real videos.
        layout: How its folders are read (see ``flexivid.data.sources.layout``); ``None`` = as in training, or by their
            names.
        split: Which part of it; ``None`` = held-out clips where there are as many as asked for, else those trained on.
        num_reference: Clips of it, at most.
        rate: ``stride`` or ``fps`` of the clips.
        ema: Averaged weights.
        rivals: Also sample native steps alone, as many as each budget pays for.
        held_out: Whether held-out clips are taken where no split is named.
    """

    checkpoint: str
    output: str
    budgets: Sequence[float | str] = (1.0, 0.5, 0.25)
    schedules: Sequence[str] = ()
    metric: dict[str, Any] = field(default_factory=lambda: {"name": "motion"})
    sampling: dict[str, Any] = field(default_factory=dict)
    size: Size = (None, None, None)
    labels: Sequence[str] | None = None
    num_videos: int = 2048
    seed: int = 0
    reference: str | None = None
    split: str | None = None
    layout: Layout | None = None
    num_reference: int | None = None
    rate: dict[str, float] = field(default_factory=dict)
    ema: bool = True
    rivals: bool = True
    held_out: bool = True


class Job(NamedTuple):
    """A request with everything found and loaded.

    Args:
        request: What was asked for.
        task: What to generate.
        protocol: What is compared and how.
        samples: Where finished samples are.
        real: Features of the real clips.
    """

    request: Request
    task: Task
    protocol: Protocol
    samples: SampleStore
    real: ClipFeatures

    def blocks(self, rank: int = 0, world_size: int = 1) -> list[list[int]]:
        """A rank's share of the samples."""
        return blocks_of(len(self.task.labels), self.task.settings.batch_size, rank, world_size)


def run_folder(path: str | Path) -> Path:
    """The folder of the run that a checkpoint belongs to."""
    path = locate(path)
    folder = path if path.is_dir() else path.parent
    return folder.parent if folder.name == "checkpoints" else folder


def prepare(request: Request, device: torch.device) -> Job:
    """Load the model and the extractor, find the real videos.

    Raises:
        FileNotFoundError: If there is no such checkpoint or folder.
        ValueError: If something does not fit.
    """
    model = checkpoint.load(request.checkpoint, ema=request.ema, device=device)
    settings = resized(settings_from(request.sampling).filled(model), *request.size)
    if request.schedules:
        plans = [plan_for(model, settings, 1.0, text) for text in request.schedules]
    else:
        tables = read_tables(tables_folder(request.checkpoint))
        plans = [plan_for(model, settings, budget, tables=tables) for budget in request.budgets]
    _refuse_twins(plans)
    sampled = with_rivals(model, settings, plans, rivals=request.rivals)
    labels = labels_for(model, request.num_videos, label_numbers(model, request.labels))
    extractor = build_extractor(**request.metric, device=device)
    task = Task(model, sampled, settings, labels, extractor, request.seed, request.rivals).check()
    clips = _clips(request, settings.size)
    root = Path(request.output) / "features"
    real = ClipFeatures(extractor, clips, root, batch_size=settings.batch_size)
    return Job(request, task, protocol_of(task, clips), SampleStore(root, task), real)


def work(job: Job, rank: int = 0, world_size: int = 1, *, on_block: Callable[[], None] = lambda: None) -> None:
    """Do a rank's share and leave it in files; what is there is not done again."""
    if not _is_cached(job):
        for _ in job.real.each(job.real.blocks(rank, world_size)):
            on_block()
    blocks, store = job.blocks(rank, world_size), job.samples
    if any(not store.has(plan, block) for block in blocks for plan in range(len(job.task.plans))):
        modes = {mode for plan in job.task.plans for mode in plan.modes}
        warm_up(job.task.model, modes, job.task.settings, max(map(len, blocks)))
    for _ in evaluate_features(job.task, blocks, store=store):
        on_block()


def progress(job: Job) -> Progress:
    """How much of the work of all ranks is in files: real clips, and MACs of samples."""
    samples, task = job.samples, job.task
    macs = [schedule_macs(plan.schedule, task.model.config, task.settings.size) for plan in task.plans]
    done = [
        len(block) * cost for block in job.blocks() for number, cost in enumerate(macs) if samples.has(number, block)
    ]
    num_all = len(job.real.clips)
    num_real = num_all if _is_cached(job) else job.real.num_done
    return {"real clips": (num_real, num_all), "samples": (sum(done), len(task.labels) * sum(macs))}


def finish(job: Job) -> tuple[Evaluation, list[Made]]:
    """Scores from what the ranks have left in files."""
    real = _real_features(job)
    made = list(evaluate_features(job.task, job.blocks(), store=job.samples))
    protocol = job.protocol._replace(num_reference=len(real))
    step = job.task.model.recipe.get("global_step")
    return Evaluation(protocol.label, protocol, score_budgets(job.task, made, real), step), made


def _refuse_twins(plans: Sequence[Plan]) -> None:
    names = [f"{plan.budget:g}" for plan in plans]
    if len(set(names)) < len(names):
        raise ValueError(f"got plans of budgets {', '.join(names)}; expected no two alike; leave one of them out")


def _clips(request: Request, size: Size3) -> ClipSet:
    run = run_folder(request.checkpoint)
    section = data_section(run)
    settings = clip_settings(section, size, **request.rate)
    trained: Layout = "auto" if request.reference else section.get("layout", "auto")
    root = Collection(request.reference or data_root(run, section), request.layout or trained)
    count = request.num_reference or request.num_videos
    split = request.split or (None if request.reference else "train")
    held_out_from = count if request.held_out and request.split is None else None
    return find_clips(root, settings, split=split, num_clips=count, held_out_from=held_out_from)


def protocol_of(task: Task, clips: ClipSet) -> Protocol:
    """What is compared and how, in words and numbers."""
    settings, given = clips.dataset.settings, task.settings
    return Protocol(
        metric=task.extractor.metric_name,
        extractor_fingerprint=task.extractor.fingerprint,
        preprocessing=task.extractor.preprocessing,
        num_frames=given.size[0],
        height=given.size[1],
        width=given.size[2],
        stride=settings.stride,
        fps=clips.fps,
        num_videos=len(task.labels),
        num_reference=len(clips),
        reference=clips.fingerprint,
        reference_split=clips.split,
        seed=task.seed,
        sampling=json.dumps(given._asdict()),
    )


def _is_cached(job: Job) -> bool:
    return (reference_folder() / f"{job.protocol.key()}.safetensors").is_file()


def _real_features(job: Job) -> Tensor:
    if _is_cached(job):
        return reference_features(job.protocol, job.real.all)
    features = job.real.all()  # of fewer clips where some cannot be decoded
    return reference_features(job.protocol._replace(num_reference=len(features)), lambda: features)
