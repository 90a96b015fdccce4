"""A short search at the end of training: the step floor, and plans for the usual budgets, stored with the model.

All ranks sample their share. Failures are warnings, because the model has been written by then; only samples that are
not finite are an error.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from flexivid.budget.scores import ScoreTable
from flexivid.budget.table import FILE, write_tables
from flexivid.calibration.plan_search import SHORT, search_with
from flexivid.calibration.scoring import NUM_REAL, Judge, Scorer, step_floor
from flexivid.calibration.searched import score_lines
from flexivid.evaluation.features import blocks_of
from flexivid.evaluation.ranks import Ranks, read_together
from flexivid.evaluation.rivals import native_plan
from flexivid.evaluation.run import job_of
from flexivid.evaluation.samples import Task
from flexivid.metrics.extractors.extractor import build_extractor, for_frames
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.formats import CONFIG, WEIGHTS, write_config
from flexivid.runtime.distributed import FailedRankError, gathered, on_all_ranks
from flexivid.runtime.errors import check_settings
from flexivid.runtime.finite import NotFiniteError
from flexivid.sampling.plan import Plan
from flexivid.sampling.settings import Sampling, Settings, video_size
from flexivid.training.callbacks.folder import refuse_raw_weights, run_folder
from flexivid.training.callbacks.plans_and_clips import (
    clip_features,
    sample_conditions,
    sampled_network,
    training_clips,
)
from flexivid.training.module import FlexiDiffusion

FEWEST_STEPS = 4  # of full compute: with fewer native steps, budgets could hardly be distinguished
REAL_BATCH = 16  # real clips in one call of the motion network
FEWEST_VIDEOS = 24  # of a plan, even if there is no time for so many
ENOUGH_STEPS = 25  # native steps that the floor is compared with; 50 would take half of the time
FLOOR_SHARE = 0.4  # share of the time for the step floor
FLOOR_STEPS, FLOOR_PLANS = 46, 7  # native steps and features that a video takes, for a floor of about 6
SEARCH_PLANS, SEARCH_SHARE = 29, 0.42  # samples for each video of the last round, and their share of full cost


class FindPlans(Callback):
    """Measures the step floor and searches plans when training ends. List it after the EMA and ``ExportModel``.

    The step floor is the fewest native steps whose Frechet distance to real videos is within the interval of 25 steps.
    It becomes the model's number of steps, so that budgets are fractions of what full compute needs to be. Then plans
    with large patches are scored against clips of the training set, and ``schedules.json`` keeps them for
    ``flexivid.sample``. ``python -m flexivid.search`` does the same with more videos and more plans.

    Args:
        max_seconds: About how long it may take; decides the number of videos.
        num_videos: Videos of each plan, at most.
        steps: Whether the model's number of steps follows the step floor.
    """

    def __init__(self, max_seconds: float = 120, num_videos: int = 128, steps: bool = True) -> None:
        check_settings(
            "FindPlans",
            ("max_seconds", max_seconds, max_seconds > 0, "more than 0"),
            ("num_videos", num_videos, num_videos >= 2, "at least 2"),
        )
        self.max_seconds, self.num_videos, self.steps = max_seconds, num_videos, steps

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        refuse_raw_weights(trainer, self)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, FlexiDiffusion)
        if trainer.global_step == 0:
            return
        try:
            with sampled_network(pl_module) as network:
                self._find(trainer, pl_module, network)
        except NotFiniteError:
            raise  # the network has diverged, which is not a failure of the search
        except (FailedRankError, ValueError) as error:
            rank_zero_warn(f"no plans were searched: {error}. Search later by python -m flexivid.search")

    def _find(self, trainer: Trainer, module: FlexiDiffusion, network: FlexiDiT) -> None:
        folder = run_folder(trainer)
        judge = self._judge(trainer, network)
        settings = Sampling().filled(network)._replace(text_tokens=judge.conditions.text_tokens)
        scorer = SharedScorer(network, settings, judge, trainer.global_rank, trainer.world_size)
        step, features = self._seconds(scorer)
        count = self._count(self.max_seconds * FLOOR_SHARE, FLOOR_STEPS * step + FLOOR_PLANS * features)
        floor = step_floor(scorer, count, many=ENOUGH_STEPS)
        full = max(FEWEST_STEPS, floor) if self.steps else settings.num_inference_steps
        module.sampling = replace(module.sampling, num_inference_steps=full)
        network.recipe = module.recipe()
        scorer.settings = Sampling().filled(network)._replace(text_tokens=judge.conditions.text_tokens)
        seconds = SEARCH_PLANS * (SEARCH_SHARE * full * step + features)
        table = search_with(scorer, SHORT, self._count(self.max_seconds * (1 - FLOOR_SHARE), seconds), floor)
        module.step_floor = table.step_floor
        network.recipe = module.recipe()
        on_all_ranks(lambda: _write(trainer, network, folder, table))
        rank_zero_info("\n".join(score_lines(network, scorer.settings, table)))

    def _judge(self, trainer: Trainer, network: FlexiDiT) -> Judge:
        """The motion network, and clips of the training set on all ranks."""
        settings, device = Sampling().filled(network), trainer.strategy.root_device
        num_frames = on_all_ranks(lambda: video_size(network, settings).t)
        extractor = on_all_ranks(lambda: for_frames(build_extractor("motion", device=device), num_frames))
        clips = on_all_ranks(lambda: training_clips(trainer, NUM_REAL))
        conditions = on_all_ranks(lambda: sample_conditions(network, self.num_videos, lambda: clips))
        task = on_all_ranks(Task(network, (), settings, conditions, extractor).check)
        features = clip_features(trainer, extractor, clips, REAL_BATCH)
        real = read_together(job_of(task, features), Ranks(trainer.global_rank, trainer.world_size))
        return Judge(extractor, real, conditions, extractor.metric_name)

    def _seconds(self, scorer: SharedScorer) -> tuple[float, float]:
        """Time of a native step of one video, and of its features; the same on every rank."""
        count, seconds = min(FEWEST_VIDEOS, self.num_videos), []
        for steps in (2, 1, 3):  # the first one warms up
            started = time.perf_counter()
            scorer.features(native_plan(scorer.model, scorer.settings, steps), count)
            seconds.append(max(gathered(time.perf_counter() - started)) / count)
        step = max(0.0, seconds[2] - seconds[1]) / 2
        return step, max(1e-6, seconds[1] - step)

    def _count(self, seconds: float, each: float) -> int:
        return max(min(FEWEST_VIDEOS, self.num_videos), min(self.num_videos, int(seconds / each)))


class SharedScorer(Scorer):
    """A scorer that shares the samples of each plan among all ranks; settings and judge are the same on every rank."""

    def __init__(self, model: FlexiDiT, settings: Settings, judge: Judge, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(model, settings, judge)
        self.rank, self.world_size = rank, world_size

    def make(self, plan: Plan, indices: Any) -> Tensor:
        """Features of the samples of all ranks, in the order of the indices."""
        make = super().make
        blocks = blocks_of(len(indices), self.settings.batch_size, self.rank, self.world_size)
        share = on_all_ranks(lambda: [(block[0], make(plan, [indices[i] for i in block])) for block in blocks])
        parts = sorted((part for share in gathered(share) for part in share), key=lambda part: part[0])
        return torch.cat([features for _, features in parts])


def _write(trainer: Trainer, network: FlexiDiT, folder: Path, table: ScoreTable) -> None:
    """Write the scores to the run folder, and the new number of steps if the model is there; on the first rank."""
    if not trainer.is_global_zero:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_tables(folder / FILE, [table])
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
        write_config(folder, network.config, network.recipe)
