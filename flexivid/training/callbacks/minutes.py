"""A limit on the minutes of a run that shortens its plan instead of cutting it off."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from flexivid.training.module import FlexiDiffusion


class FitMinutes(Callback):
    """Shortens the run so that it ends within a number of minutes, learning rate and phases with it.

    Unlike ``max_time``, which cuts a run off wherever its learning rate is then. The speed is looked at three times,
    and the plan never grows. Validation and samples count as they come.

    Args:
        minutes: From the first step to the last.
    """

    def __init__(self, minutes: float) -> None:
        if not minutes > 0:
            raise ValueError(f"got minutes={minutes}; expected more than 0; change FitMinutes.minutes")
        self.minutes, self.look_every = minutes, 8
        self._looks = [0.04, 0.15, 0.4]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; after a resume the minutes are those of the rest."""
        self._started, self._first = time.perf_counter(), trainer.global_step
        assert isinstance(pl_module, FlexiDiffusion)
        self._limit(trainer, pl_module.total_steps)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """At a few points of the run, fit the number of steps to the time."""
        assert isinstance(pl_module, FlexiDiffusion)
        if not self._looks or trainer.global_step % self.look_every:
            return
        seconds = float(trainer.strategy.broadcast(time.perf_counter() - self._started))  # one clock for all ranks
        if seconds < self._looks[0] * self.minutes * 60:
            return
        self._looks.pop(0)
        done = trainer.global_step - self._first
        possible = self._first + int(done * self.minutes * 60 / seconds)
        if possible < 0.98 * pl_module.total_steps:
            total = max(possible, trainer.global_step + 64)
            rank_zero_info(f"{seconds / max(1, done):.2f} s a step: {total} steps fit into {self.minutes:g} minutes")
            pl_module.shorten(total, from_step=trainer.global_step + 32)  # batches that workers hold are unchanged
            self._limit(trainer, total)

    @staticmethod
    def _limit(trainer: Trainer, total_steps: int) -> None:
        trainer.fit_loop.epoch_loop.max_steps = total_steps
