"""A limit on the minutes of a run, which reduces its number of steps instead of cutting it off."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from flexivid.runtime.errors import check_settings
from flexivid.training.module import FlexiDiffusion

FEW = 0.25  # of the steps asked for


class FitMinutes(Callback):
    """Reduces the number of steps so that the run ends within some minutes, and fits learning rate and phases to it.

    ``max_time`` would cut a run off in the middle of its learning rate schedule. The speed is measured four times; a
    run that was slow at first gets steps back, never more than ``max_steps``. Validation and samples count as
    training.

    Args:
        minutes: From the first step to the last.
    """

    def __init__(self, minutes: float) -> None:
        check_settings("FitMinutes", ("minutes", minutes, minutes > 0, "more than 0"))
        self.minutes, self.check_every = minutes, 8
        self._measure_at = [0.04, 0.15, 0.4, 0.65]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; after a resume the limit is for the rest of the run."""
        assert isinstance(pl_module, FlexiDiffusion)
        self._started, self._last, self._asked = time.perf_counter(), (0.0, trainer.global_step), pl_module.asked_steps
        trainer.fit_loop.epoch_loop.max_steps = pl_module.total_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """At four points of the run, fit the number of steps to the time."""
        assert isinstance(pl_module, FlexiDiffusion)
        step = trainer.global_step
        if not self._measure_at or step % self.check_every or step == self._last[1]:
            return
        seconds = float(trainer.strategy.broadcast(time.perf_counter() - self._started))  # one clock for all ranks
        if seconds < self._measure_at[0] * self.minutes * 60:
            return
        self._measure_at.pop(0)
        a_step = (seconds - self._last[0]) / max(1, step - self._last[1])  # since the last one: starts are slow
        self._last = seconds, step
        least = min(step + 64, pl_module.total_steps)
        total = min(self._asked, max(least, step + int((self.minutes * 60 - seconds) / a_step)))
        if abs(total / pl_module.total_steps - 1) > 0.02:
            few = "; a smaller network learns more in so few: conf/model" if total < FEW * self._asked else ""
            rank_zero_info(f"{a_step:.2f} s a step: {total} steps fit into {self.minutes:g} minutes{few}")
            pl_module.replan(total, from_step=step + 32)  # batches that workers hold are unchanged
            trainer.fit_loop.epoch_loop.max_steps = total
