"""An evaluation: prepare it from a request, make blocks of features, score them.

Blocks go to a store. If that is a folder, processes and machines that see it can make shares of the blocks in any
order; ``finish`` makes those that are missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flexivid.budget.table import read_tables
from flexivid.data.encoded.decode import real_clips_of
from flexivid.data.encoded.folder import is_encoded
from flexivid.data.sources.layout import Collection, Layout
from flexivid.evaluation.clips import ClipSet, clip_settings, data_root, data_section, find_clips, trained_clips
from flexivid.evaluation.features import ClipFeatures, blocks_of
from flexivid.evaluation.prompts import clip_frames, evaluation_conditions
from flexivid.evaluation.result import Evaluation
from flexivid.evaluation.rivals import with_rivals
from flexivid.evaluation.samples import SampleBlock, SampleStore, Task, check_count, evaluate_features, score_budgets
from flexivid.metrics.extractors.extractor import build_extractor, for_frames
from flexivid.metrics.protocol import Protocol, reference_features, reference_file
from flexivid.model import checkpoint
from flexivid.model.shipped import locate
from flexivid.patching.shapes import Size3
from flexivid.sampling.compiling import warm_up
from flexivid.sampling.encoders import use_sources
from flexivid.sampling.plan import Plan, plan_for, tables_folder
from flexivid.sampling.settings import label_numbers, resized, settings_from, video_size

Progress = dict[str, tuple[float, float]]  # amount that is done, and total, by kind of work
Size = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class Request:
    """An evaluation of a checkpoint in plain data. ``None`` = the value of the checkpoint or of its training run."""

    checkpoint: str  # run folder, ``.ckpt`` or exported folder
    output: str  # folder for the results
    budgets: Sequence[float | str] = (1.0, 0.5, 0.25)  # fractions of the full compute, or names of presets
    schedules: Sequence[str] = ()  # explicit plans, which replace the budgets if there are any
    metric: dict[str, Any] = field(default_factory=lambda: {"name": "motion"})  # keywords of ``build_extractor``
    sampling: dict[str, Any] = field(default_factory=dict)  # fields of ``Sampling``
    size: Size = (None, None, None)  # frames, height, width
    labels: Sequence[str] | None = None  # classes by name or number, in turn
    prompts_file: str | None = None  # a file with a prompt a line, instead of the captions of the real videos
    given_frames: str | None = None  # of a real clip, to each sample: ``first``, ``last`` or ``both``; ``None`` = none
    codec: str | None = None  # folder of the codec, instead of where the model's recipe says. Likewise ``text_encoder``
    text_encoder: str | None = None
    num_videos: int = 2048  # samples a budget
    seed: int = 0  # sample i starts from the noise of seed + i
    reference: str | None = None  # folder of real videos
    split: str | None = None  # part of it; ``None`` = held-out clips where there are enough, else those trained on
    layout: Layout | None = None  # how its folders are read (see ``data.sources.layout``); ``None`` = as in training
    num_reference: int | None = None  # clips of it, at most
    rate: dict[str, float] = field(default_factory=dict)  # ``stride`` or ``fps`` of the clips
    ema: bool = True  # averaged weights
    rivals: bool = True  # also sample native steps alone, as many as each budget pays for
    held_out: bool = True  # whether held-out clips may be taken where no split is named


class Job(NamedTuple):
    """An evaluation with everything loaded."""

    task: Task  # what to generate
    protocol: Protocol  # what is compared and how
    samples: SampleStore  # the finished samples
    real: ClipFeatures  # features of the real clips

    def blocks(self, rank: int = 0, world_size: int = 1) -> list[list[int]]:
        """A rank's share of the samples."""
        return blocks_of(len(self.task.conditions), self.task.settings.batch_size, rank, world_size)

    def first(self, num_videos: int) -> Job:
        """The same evaluation of the first videos only."""
        fewer = self.task.conditions.take(range(min(num_videos, len(self.task.conditions))))
        task = self.task._replace(conditions=fewer)
        return self._replace(task=task, protocol=_protocol(task, self.real))


def job_of(task: Task, real: ClipFeatures, root: Path | None = None) -> Job:
    """Put together an evaluation, which keeps its samples in a folder, or else in memory."""
    return Job(task, _protocol(task, real), SampleStore(root, task), real)


def _protocol(task: Task, real: ClipFeatures) -> Protocol:
    sampling = json.dumps({**task.settings._asdict(), **task.conditions.protocol()})
    size = video_size(task.model, task.settings)
    return real.protocol(size, len(task.conditions), seed=task.seed, sampling=sampling)


def run_folder(path: str | Path) -> Path:
    """The folder of the run that a checkpoint belongs to."""
    path = locate(path)
    folder = path if path.is_dir() else path.parent
    return folder.parent if folder.name == "checkpoints" else folder


def prepare(request: Request, device: torch.device) -> Job:
    """Load the model and the extractor, find the real videos; ``ValueError`` if something does not fit."""
    model = checkpoint.load(request.checkpoint, ema=request.ema, device=device)
    use_sources(model, request.codec, request.text_encoder)
    settings = resized(model, settings_from(request.sampling).filled(model), *request.size)
    check_count(request.num_videos)
    size, labels = video_size(model, settings), label_numbers(model, request.labels)
    clips = _clips(request, size)
    frames = clip_frames(model, settings, clips, request.given_frames) if request.given_frames else None
    shown: dict[str, Any] = {"labels": labels, "prompts_file": request.prompts_file, "frames": frames}
    conditions = evaluation_conditions(model, request.num_videos, clips, **shown)
    settings = settings._replace(text_tokens=conditions.text_tokens)
    if request.schedules:
        plans = [plan_for(model, settings, 1.0, text) for text in request.schedules]
    else:
        tables = read_tables(tables_folder(request.checkpoint))
        plans = [plan_for(model, settings, budget, tables=tables) for budget in request.budgets]
    _refuse_twins(plans)
    sampled = with_rivals(model, settings, plans, rivals=request.rivals)
    extractor = for_frames(build_extractor(**request.metric, device=device), size.t)
    task = Task(model, sampled, settings, conditions, extractor, request.seed, request.rivals).check()
    root = Path(request.output) / "features"
    real = ClipFeatures(extractor, clips, root, batch_size=settings.batch_size)
    return job_of(task, real, root)


def work(job: Job, rank: int = 0, world_size: int = 1, *, on_block: Callable[[], None] = lambda: None) -> None:
    """Make a rank's share of all blocks; those in the stores are not made again."""
    if not reference_file(job.protocol).is_file():
        for _ in job.real.each(job.real.blocks(rank, world_size)):
            on_block()
    blocks = job.blocks(rank, world_size)
    warm_up_for(job, blocks)
    make_samples(job, blocks, on_block=on_block)


def warm_up_for(job: Job, blocks: Sequence[Sequence[int]]) -> None:
    """Call the model once in every mode if there are blocks to make: setting up must not count as sampling time."""
    plans = job.task.plans
    if any(not job.samples.has(number, block) for block in blocks for number in range(len(plans))):
        modes = {mode for plan in plans for mode in plan.modes}
        warm_up(job.task.model, modes, job.task.settings, max(map(len, blocks)))


def make_samples(job: Job, blocks: Sequence[Sequence[int]], *, on_block: Callable[[], None] = lambda: None) -> None:
    """Generate those blocks of samples that are not in the store, under all plans."""
    for _ in evaluate_features(job.task, blocks, store=job.samples):
        on_block()


def progress(job: Job) -> Progress:
    """How much of the work of all ranks is in the stores: real clips, and MACs of samples."""
    samples, task = job.samples, job.task
    macs = [task.settings.schedule_macs(task.model.config, plan.schedule) for plan in task.plans]
    done = [
        len(block) * cost for block in job.blocks() for number, cost in enumerate(macs) if samples.has(number, block)
    ]
    num_clips = len(job.real.clips)
    num_real = num_clips if reference_file(job.protocol).is_file() else job.real.num_done
    return {"real clips": (num_real, num_clips), "samples": (sum(done), len(task.conditions) * sum(macs))}


def real_features(job: Job, make: Callable[[], Any] = lambda: None) -> Tensor:
    """Features of the real clips, (m, d), from the cache of references or from blocks. All ranks must call it.

    If they are not in the cache, ``make`` is called first, which fills the store with the blocks of all ranks.
    """

    def compute() -> Tensor:
        make()
        return job.real.all()

    return reference_features(job.protocol, compute, may_be_fewer=True)


def finish(job: Job, real: Tensor | None = None) -> tuple[Evaluation, list[SampleBlock]]:
    """Scores of what is in the stores, against features of the real clips, (m, d); what is missing is made here."""
    real = real_features(job) if real is None else real
    blocks = list(evaluate_features(job.task, job.blocks(), store=job.samples))
    protocol = job.protocol._replace(num_reference=len(real))
    rows, step = score_budgets(job.task, blocks, real), job.task.model.recipe.global_step
    return Evaluation(protocol.label, protocol, rows, step, job.task.conditions.seen), blocks


def _refuse_twins(plans: Sequence[Plan]) -> None:
    names = [f"{plan.budget:g}" for plan in plans]
    if len(set(names)) < len(names):
        raise ValueError(f"got plans of budgets {', '.join(names)}; expected no two alike; leave one of them out")


def _clips(request: Request, size: Size3) -> ClipSet:
    run = run_folder(request.checkpoint)
    section = data_section(run)
    root, note = request.reference or data_root(run, section), ""
    if request.reference:  # other videos, whose folders and files are whatever they are
        section = {**section, "layout": "auto", "decoder": "auto", "pictures": size.t == 1}
    collection = Collection(root, section.get("layout", "auto"), section.get("pictures", False))
    if is_encoded(root):
        real = real_clips_of(root)
        section, note, collection = real.settings._asdict(), real.note, real.collection
    settings = clip_settings(section, size, **request.rate)
    trained = None if request.reference else trained_clips(section, settings)
    count = request.num_reference or request.num_videos
    split = "all" if note else request.split or (None if request.reference else "train")
    held_out_from = count if request.held_out and request.split is None else None
    collection = collection._replace(layout=request.layout or collection.layout)
    clips = find_clips(collection, settings, split=split, num_clips=count, held_out_from=held_out_from, trained=trained)
    return replace(clips, split=note) if note else clips
