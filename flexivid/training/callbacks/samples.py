"""Samples while training: the same noises and labels at every budget, to TensorBoard as video and to disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from flexivid.evaluation.features import blocks_of
from flexivid.media.write import to_frames, write_grid
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.recipe import Recipe
from flexivid.runtime.distributed import gathered, on_all_ranks
from flexivid.sampling.conditions import Conditions, conditions_for
from flexivid.sampling.generate import generate_batches
from flexivid.sampling.plan import Plan
from flexivid.sampling.settings import Sampling
from flexivid.training.callbacks.folder import is_waiting, refuse_raw_weights, run_folder
from flexivid.training.callbacks.plans_and_clips import (
    possible_plans,
    sample_conditions,
    sampled_network,
    training_clips,
)
from flexivid.training.callbacks.tensorboard import log_samples
from flexivid.training.module import FlexiDiffusion

BATCH_SIZE = 4  # small, so that several ranks have something to do
NUM_SHOWN = 10


class SampleVideos(Callback):
    """Samples at each budget with every validation, and at the end.

    Averaged weights are used: list it after the EMA. Each rank makes its share of the videos. Noise and label depend on
    the video's number alone, and batches do not depend on the ranks, so the files are the same on any number of ranks.
    They go to ``samples/`` in the run folder. A network that reads text is shown captions that it was trained on.

    Args:
        budgets: Fractions of the full compute; one that the network cannot meet is left out with a warning.
        num_videos: Videos a budget.
        num_inference_steps: Solver steps; ``None`` = the recipe's.
        seed: Video i starts from the noise of seed + i.
    """

    def __init__(
        self,
        budgets: Sequence[float] = (1.0, 0.5, 0.25),
        num_videos: int = 10,
        num_inference_steps: int | None = None,
        seed: int = 0,
    ) -> None:
        self.budgets, self.num_videos, self.seed = list(budgets), num_videos, seed
        self.num_inference_steps = num_inference_steps
        self._conditions: Conditions | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        refuse_raw_weights(trainer, self)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sample now: the EMA callback has put in the averaged weights until validation ends."""
        assert isinstance(pl_module, FlexiDiffusion)
        if not trainer.sanity_checking and not is_waiting(pl_module):
            self._sample(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step > 0:
            grid = self._sample(trainer, pl_module)
            if grid is not None:
                rank_zero_info(f"samples at budgets {', '.join(map(str, self.budgets))}: {grid}")

    def _sample(self, trainer: Trainer, pl_module: LightningModule) -> Path | None:
        assert isinstance(pl_module, FlexiDiffusion)
        with sampled_network(pl_module) as network:
            rows = self._rows(trainer, network)
        folder = run_folder(trainer) / "samples"
        return self._write(trainer, folder, rows, network.recipe) if trainer.is_global_zero else None

    def _rows(self, trainer: Trainer, network: FlexiDiT) -> list[tuple[Plan, list[np.ndarray]]]:
        """Plans, and the samples of all ranks under each."""
        settings = Sampling(num_inference_steps=self.num_inference_steps, batch_size=BATCH_SIZE).filled(network)
        conditions = self._conditions = self._conditions or self._conditions_of(trainer, network)
        settings = settings._replace(text_tokens=conditions.text_tokens)
        blocks = blocks_of(len(conditions), BATCH_SIZE, trainer.global_rank, trainer.world_size)
        share = [index for block in blocks for index in block]
        rows = []
        try:
            plans = possible_plans(network, settings, self.budgets, run_folder(trainer))
        except ValueError as error:
            rank_zero_warn(f"no samples: {error}")
            plans = []
        for plan in plans:
            batches = generate_batches(
                network, plan.schedule, plan.settings(settings), conditions=conditions, seed=self.seed, indices=share
            )
            frames_of_rank = on_all_ranks(partial(_frames_of, batches))
            merged = {i: frames for each in gathered(frames_of_rank) for i, frames in each.items()}
            rows.append((plan, [merged[i] for i in sorted(merged)]))
        return rows

    def _conditions_of(self, trainer: Trainer, network: FlexiDiT) -> Conditions:
        """Classes and captions of clips; without them the null text, with a warning."""
        try:
            return sample_conditions(network, self.num_videos, lambda: training_clips(trainer, self.num_videos))
        except ValueError as error:
            rank_zero_warn(f"samples are of the null text: {error}")
            return conditions_for(network, self.num_videos)

    def _write(
        self, trainer: Trainer, folder: Path, rows: list[tuple[Plan, list[np.ndarray]]], recipe: Recipe
    ) -> Path | None:
        step, fps = recipe.global_step or 0, recipe.fps
        folder.mkdir(parents=True, exist_ok=True)
        titled = [(f"budget {plan.budget:g}   {plan.schedule}", videos[:NUM_SHOWN]) for plan, videos in rows]
        if not titled:
            return None
        prompts = self._conditions.prompts[:NUM_SHOWN] if self._conditions else ()
        _, picture = write_grid(folder / f"step_{step:06d}", titled, fps, prompts)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for plan, videos in rows:
                    log_samples(logger, plan.budget, videos, fps=fps, step=step)
        return picture


def _frames_of(batches: Iterable[tuple[list[int], Tensor]]) -> dict[int, np.ndarray]:
    return {i: to_frames(video) for indices, videos in batches for i, video in zip(indices, videos, strict=True)}
