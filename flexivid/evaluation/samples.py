"""Quality against compute: features of videos generated at every budget, and their scores.

Knows generation and metrics, but no folders of videos and no processes. Each block of samples is made under all plans
before the next block, so an evaluation that is cut short has the same samples at every budget. Videos are rounded to
8 bits before anything looks at them, as in a file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flexivid.evaluation.features import BlockFolder, BlockMemory, check_frames, extract
from flexivid.evaluation.result import BudgetScores
from flexivid.evaluation.rivals import FEWER_STEPS, find_plan, native_plan, rival_plan
from flexivid.media.pixels import to_bytes, to_unit
from flexivid.metrics.bootstrap import paired_difference
from flexivid.metrics.extractors.extractor import Extractor
from flexivid.metrics.fidelity import Fidelity, likeness
from flexivid.metrics.scores import score
from flexivid.model.checkpoint import fingerprint
from flexivid.model.flexidit import FlexiDiT
from flexivid.runtime.finite import NotFiniteSampleError
from flexivid.sampling.conditions import Conditions
from flexivid.sampling.generate import generate_batches, sample_macs
from flexivid.sampling.plan import Plan
from flexivid.sampling.settings import Settings, video_size

NUM_SHOWN = 8  # samples whose frames are kept, for people to look at


class Task(NamedTuple):
    """What to generate and how to measure it, the same on every rank."""

    model: FlexiDiT  # in eval mode
    plans: tuple[Plan, ...]  # one for each budget, then the native ones beside them, see ``rivals.with_rivals``
    settings: Settings  # from ``Sampling(...).filled(model)``
    conditions: Conditions  # what each sample should show
    extractor: Extractor  # turns videos into features
    seed: int = 0  # sample i starts from the noise of seed + i
    rivals: bool = True  # whether scores of native steps alone stand beside those of each plan

    def check(self) -> Task:
        """Return itself; ``ValueError`` if there are too few videos, or too few frames for the extractor."""
        check_count(len(self.conditions))
        check_frames(self.extractor, video_size(self.model, self.settings).t)
        return self

    @property
    def rows(self) -> list[int]:
        """Numbers of the plans that have a row of their own: those of the budgets."""
        return [number for number, plan in enumerate(self.plans) if plan.planner != FEWER_STEPS]

    @property
    def full(self) -> int | None:
        """Number of the full-compute plan, which others are compared with; ``None`` if there is none."""
        return find_plan(self.plans, native_plan(self.model, self.settings))

    def rival(self, number: int) -> int | None:
        """Number of the plan of native steps alone that costs as much as a plan; ``None`` if it is that plan itself."""
        plan = rival_plan(self.model, self.settings, self.plans[number].budget)
        rival = find_plan(self.plans, plan) if self.rivals else None
        return None if rival == number else rival


def check_count(num_videos: int) -> None:
    """Refuse fewer samples than a distance needs."""
    if num_videos < 2:
        raise ValueError(f"got {num_videos} videos; expected at least 2 for a distance; raise num_videos")


class SampleBlock(NamedTuple):
    """What is kept of a block of samples under one plan."""

    plan: int  # number of the plan
    indices: Tensor  # global indices, int64 (b,)
    features: Tensor  # float32 (b, d)
    fidelity: Tensor  # PSNR, SSIM and distance of the features of each sample, float64 (b, 3); NaN for full compute
    seconds: float  # time to generate the block
    macs: int  # MACs of the block
    frames: Tensor  # uint8 (k, t, h, w, 3) of the samples with an index below ``NUM_SHOWN``


class SampleStore:
    """The blocks of a task. Those of each plan lie in a folder of their own, so that a budget can be added later.

    That is in ``root``, usually ``evaluation/features`` of a run; ``None`` = memory.
    """

    def __init__(self, root: str | Path | None, task: Task) -> None:
        self._labels, self._prompts = task.conditions.labels, task.conditions.prompt_digests()
        self._plans: Sequence[BlockFolder | BlockMemory] = [BlockMemory() for _ in task.plans]
        if root is not None:
            self._plans = [BlockFolder(root, key) for key in _keys(task)]

    def has(self, plan: int, indices: Sequence[int]) -> bool:
        """Whether a block is likely to be there, without opening it."""
        return self._plans[plan].has(indices)

    def read(self, plan: int, indices: Sequence[int]) -> SampleBlock | None:
        """The block, if it is there and of the same labels and prompts."""
        tensors = self._plans[plan].read(indices)
        if tensors is None or not torch.equal(tensors["labels"], self._labels[list(indices)]):
            return None
        if self._prompts is not None and not torch.equal(tensors["prompts"], self._prompts[list(indices)]):
            return None
        values = {name: tensors[name] for name in ("indices", "features", "fidelity", "frames")}
        return SampleBlock(plan, seconds=float(tensors["seconds"]), macs=int(tensors["macs"]), **values)

    def write(self, block: SampleBlock) -> None:
        """Add a block."""
        tensors = {name: getattr(block, name) for name in ("features", "fidelity", "frames")}
        tensors |= {"seconds": torch.tensor(block.seconds, dtype=torch.float64), "macs": torch.tensor(block.macs)}
        tensors["labels"] = self._labels[block.indices]
        if self._prompts is not None:
            tensors["prompts"] = self._prompts[block.indices]
        self._plans[block.plan].write(block.indices.tolist(), tensors)

    def share(self) -> None:
        """Give every rank the blocks of all; all ranks must call it."""
        for blocks in self._plans:
            blocks.share()


def _keys(task: Task) -> list[dict[str, Any]]:
    """Everything that the samples of each plan depend on."""
    common = {
        "checkpoint": fingerprint(task.model),
        "recipe": task.model.recipe.to_dict(),
        "settings": task.settings._asdict(),
        "seed": task.seed,
        "extractor": task.extractor.fingerprint,
        **task.conditions.describe(),
        "full": None if task.full is None else str(task.plans[task.full].schedule),
    }
    return [{**common, "plan": _plan_key(plan)} for plan in task.plans]


def _plan_key(plan: Plan) -> list[Any]:
    if plan.adaptive is None:
        return [str(plan.schedule), *sorted(plan.sampling.items())]
    adaptive = plan.adaptive
    changes = [None if change is None else change.tolist() for change in adaptive.changes]
    return [str(adaptive), str(adaptive.allowance), adaptive.errors.tolist(), changes]


def evaluate_features(
    task: Task, blocks: Sequence[Sequence[int]], *, store: SampleStore | None = None
) -> Iterator[SampleBlock]:
    """Yield a rank's blocks of samples under every plan, the full-compute one first; new ones go to the store.

    ``NotFiniteSampleError`` if a sample is not finite.
    """
    full = task.full
    order = sorted(range(len(task.plans)), key=lambda number: (number != full, number))
    for indices in blocks:
        reference: _Videos | None = None  # at full compute; the store has no videos
        for number in order:
            block = store.read(number, indices) if store else None
            if block is None:
                if reference is None and full is not None:
                    reference = _generate(task, full, indices)
                videos = reference if number == full else _generate(task, number, indices)
                assert videos is not None
                block = _measure(videos, number, indices, None if number == full else reference)
                if store:
                    store.write(block)
            yield block


class _Videos(NamedTuple):
    """Videos of a block, uint8 (b, 3, t, h, w), their features, and what they cost."""

    pixels: Tensor
    features: Tensor
    seconds: float
    macs: int


def _generate(task: Task, number: int, indices: Sequence[int]) -> _Videos:
    plan, started = task.plans[number], time.perf_counter()
    settings = plan.settings(task.settings)._replace(batch_size=len(indices))
    shown = {"conditions": task.conditions, "seed": task.seed}
    batches = generate_batches(task.model, plan.followed, settings, indices=indices, **shown)  # type: ignore[arg-type]
    try:
        videos = torch.cat([videos for _, videos in batches])
    except NotFiniteSampleError as error:
        raise NotFiniteSampleError(error.sample, f"at budget {plan.budget:g}") from error
    seconds = time.perf_counter() - started
    macs = sum(sample_macs(task.model, settings, plan.followed, i) for i in indices)
    pixels = to_bytes(videos)
    return _Videos(pixels, extract(task.extractor, pixels), seconds, macs)


def _measure(videos: _Videos, number: int, indices: Sequence[int], full: _Videos | None) -> SampleBlock:
    fidelity = torch.full((len(indices), len(Fidelity._fields)), math.nan, dtype=torch.float64)
    if full is not None:
        fidelity[:, :2] = likeness(to_unit(videos.pixels), to_unit(full.pixels))
        fidelity[:, 2] = (videos.features - full.features).double().norm(dim=1)
    shown = videos.pixels[[i < NUM_SHOWN for i in indices]].permute(0, 2, 3, 4, 1).contiguous()
    return SampleBlock(number, torch.tensor(indices), videos.features, fidelity, videos.seconds, videos.macs, shown)


def score_budgets(task: Task, blocks: Sequence[SampleBlock], real: Tensor) -> tuple[BudgetScores, ...]:
    """Scores of the plan of every budget, beside those of native steps alone for the same compute.

    Blocks are those of all ranks, in any order; ``real`` are features of real videos, (m, d).
    """
    blocks = sorted(blocks, key=lambda block: int(block.indices[0]))
    parts = [[block for block in blocks if block.plan == number] for number in range(len(task.plans))]
    features = [torch.cat([block.features for block in part]) for part in parts]
    scored = [_row(task, *row, real) for row in zip(task.plans, parts, features, strict=True)]
    rows = []
    for number in task.rows:
        row, rival = scored[number], task.rival(number)
        if rival is not None:
            difference = paired_difference(features[number], features[rival], real, seed=task.seed)
            row = row._replace(rival=scored[rival], difference=difference)
        rows.append(row)
    return tuple(rows)


def _row(task: Task, plan: Plan, blocks: Sequence[SampleBlock], features: Tensor, real: Tensor) -> BudgetScores:
    fidelity = torch.cat([block.fidelity for block in blocks]).mean(0)
    return BudgetScores(
        plan.budget,
        str(plan.followed),
        round(sum(block.macs for block in blocks) / len(features)),
        sum(block.seconds for block in blocks) / len(features),
        score(features, real, seed=task.seed),
        None if fidelity.isnan().all() else Fidelity(*fidelity.tolist()),
    )
