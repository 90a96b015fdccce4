"""An evaluation of the network in training by all ranks together, each with whole batches of the same videos.

Each part of the work that can fail runs inside ``on_all_ranks``, and ranks speak to each other only between the parts:
none waits for one that has failed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from flexivid.data.module import VideoDataModule
from flexivid.data.workers.pool import num_cores
from flexivid.evaluation.clips import ClipSet, clip_settings, find_clips, read_blocks
from flexivid.evaluation.rivals import with_rivals
from flexivid.evaluation.run import protocol_of
from flexivid.evaluation.samples import Evaluation, Made, Task, blocks_of, evaluate_features, extract, score_budgets
from flexivid.metrics.extractors.extractor import Extractor
from flexivid.metrics.protocol import Protocol, reference_features, reference_folder
from flexivid.model.flexidit import FlexiDiT
from flexivid.runtime.distributed import FailedRankError, gathered, on_all_ranks
from flexivid.sampling.generate import warm_up
from flexivid.sampling.settings import labels_for, settings_from
from flexivid.training.callbacks.possible_plans import possible_plans

Blocks = list[list[int]]


class Question(NamedTuple):
    """What is evaluated, see ``FVDVsBudget``."""

    budgets: Sequence[float]
    num_videos: int
    sampling: dict[str, Any]
    seed: int
    reference: Literal["auto", "train", "val"]
    max_seconds: float | None
    rivals: bool = True
    tables: Path | None = None  # folder that may hold what was measured of the network


class Shares:
    """Evaluates, and keeps what does not change from one evaluation to the next.

    Args:
        question: What is evaluated.
        extractor: On this rank's device.
        rank: Of this process, likewise ``world_size``.
    """

    def __init__(self, question: Question, extractor: Extractor, *, rank: int = 0, world_size: int = 1) -> None:
        self.question, self.extractor = question, extractor
        self.rank, self.world_size = rank, world_size
        self._num_videos: int | None = None  # decided in the first evaluation
        self._clips: ClipSet | None = None
        self._real: Tensor | None = None

    def evaluate(self, network: FlexiDiT, data: Any) -> tuple[Evaluation, list[Made]]:
        """Score all budgets; to be called on every rank.

        Args:
            network: In eval mode, with its recipe.
            data: The data module that it is trained with.

        Returns:
            Scores, the same on every rank, and the batches of all ranks that they are of.

        Raises:
            FailedRankError: On every rank, if anything fails on one.
        """
        started = time.perf_counter()
        task, clips = on_all_ranks(lambda: self._find(network, data))
        self.real_of(task, clips)
        made = self._make(task, started)
        task = task._replace(labels=task.labels[: self._num_videos])
        real = self.real_of(task, clips)
        protocol = protocol_of(task, clips)._replace(num_reference=len(real))
        rows = gathered(on_all_ranks(lambda: score_budgets(task, made, real) if self.rank == 0 else ()))[0]
        return Evaluation(protocol.label, protocol, rows, network.recipe["global_step"]), made

    def real(self, network: FlexiDiT, data: Any) -> Tensor:
        """Features of the real videos, (m, d); to be called on every rank."""
        return self.real_of(*on_all_ranks(lambda: self._find(network, data)))

    def real_of(self, task: Task, clips: ClipSet) -> Tensor:
        """The same, read once."""
        if self._real is None:
            self._real = self._read(clips, protocol_of(task, clips))
        return self._real

    def _find(self, network: FlexiDiT, data: Any) -> tuple[Task, ClipSet]:
        question = self.question
        settings = settings_from(question.sampling).filled(network)
        budgets = possible_plans(network, settings, question.budgets, question.tables)
        plans = with_rivals(network, settings, budgets, rivals=question.rivals)
        labels = labels_for(network, question.num_videos, None)
        task = Task(network, plans, settings, labels, self.extractor, question.seed, question.rivals).check()
        self._clips = self._clips or _real_clips(data, question)
        return task, self._clips

    def _read(self, clips: ClipSet, protocol: Protocol) -> Tensor:
        """Features of the real videos, (m, d), from the cache or from all ranks."""
        file = reference_folder() / f"{protocol.key()}.safetensors"
        try:
            if gathered(on_all_ranks(file.is_file))[0]:
                return reference_features(protocol, lambda: self._share_out(clips))
            features = self._share_out(clips)
            protocol = protocol._replace(num_reference=len(features))  # fewer where some cannot be decoded
            return reference_features(protocol, lambda: features)
        except ValueError as error:  # of the features, which are the same on every rank
            raise FailedRankError(str(error)) from error

    def _share_out(self, clips: ClipSet) -> Tensor:
        blocks = blocks_of(len(clips), self.question.sampling["batch_size"], self.rank, self.world_size)
        own = on_all_ranks(lambda: list(self._features(clips, blocks)))
        parts = [part for share in gathered(own) for part in share]
        return torch.cat([features for _, features in sorted(parts, key=lambda part: part[0])])

    def _features(self, clips: ClipSet, blocks: Blocks) -> Iterator[tuple[int, Tensor]]:
        """First number of each block, and its features."""
        if blocks:
            for block, videos in read_blocks(clips, blocks, num_workers=max(1, num_cores() // self.world_size)):
                if len(videos):
                    yield block[0], extract(self.extractor, videos)

    def _make(self, task: Task, started: float) -> list[Made]:
        """Generate what there is time for."""
        number, size = self._num_videos or len(task.labels), task.settings.batch_size
        blocks = blocks_of(number, size, self.rank, self.world_size)
        modes = {mode for plan in task.plans for mode in plan.modes}
        on_all_ranks(lambda: warm_up(task.model, modes, task.settings, min(size, number)))
        begun = time.perf_counter()
        made = on_all_ranks(lambda: list(evaluate_features(task, blocks[:1])))
        if self._num_videos is None:
            self._num_videos = self._affordable(number, size, time.perf_counter() - started, begun - started)
        rest = [block for block in blocks[1:] if block[0] < self._num_videos]
        made += on_all_ranks(lambda: list(evaluate_features(task, rest)))
        return sorted((one for share in gathered(made) for one in share), key=lambda one: int(one.indices[0]))

    def _affordable(self, number: int, batch_size: int, passed: float, before: float) -> int:
        """How many videos there is time for, the same on every rank.

        Args:
            number: Videos wanted.
            batch_size: Videos of a batch.
            passed: Seconds since the evaluation began; every rank has made one batch.
            before: Seconds until that batch.
        """
        passed, seconds = max(gathered((passed, passed - before)))
        at_once, limit = batch_size * self.world_size, self.question.max_seconds
        if limit is not None:
            number = min(number, at_once * (1 + max(0, int((limit - passed) / seconds))))
        left = seconds * (-(-number // at_once) - 1)
        fewer = "" if number == self.question.num_videos else f", for {limit:g} seconds are not enough for more"
        assert self._clips is not None
        against = f"{len(self._clips)} clips ({self._clips.split})"
        rank_zero_info(f"FVD of {number} videos at each budget against {against}{fewer}; {left:.0f} seconds to go")
        return number


def _real_clips(data: Any, question: Question) -> ClipSet:
    """Fixed clips of the held-out videos or of those trained on, as the evaluation of a finished run takes them."""
    if not isinstance(data, VideoDataModule):
        raise ValueError(f"got data of type {type(data).__name__}; expected VideoDataModule; leave FVDVsBudget out")
    given = data.settings
    settings = clip_settings(given._asdict(), (given.num_frames, *given.size))
    split, count = "held_out" if question.reference == "val" else "train", question.num_videos
    held_out_from = count if question.reference == "auto" else None
    return find_clips(data.manifests, settings, split=split, num_clips=count, held_out_from=held_out_from)
