"""What happens beside the steps: speed, a limit on minutes, the exported model, the progress bar."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities import rank_zero_info

from flexivid.pipeline.checkpoint import save
from flexivid.training.module import FlexiDiffusion


class Speed(Callback):
    """Logs samples a second, TFLOP/s, MFU where the device's peak is known, and the share of time spent on data.

    Args:
        every_n_steps: Steps that one value is the mean of.
    """

    def __init__(self, every_n_steps: int = 20) -> None:
        self.every_n_steps = every_n_steps
        self._started = self._idle_since = 0.0
        self._reset()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._reset()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The batch is there: what has passed since the last step was waiting."""
        self._waited += time.perf_counter() - self._idle_since

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count, and log every so many steps."""
        assert isinstance(pl_module, FlexiDiffusion)
        self._steps += 1
        self._samples += len(batch["video"]) * trainer.world_size
        step_macs = pl_module.step_macs(max(0, trainer.global_step - 1))
        self._flops += 2 * step_macs * trainer.world_size / max(1, trainer.accumulate_grad_batches)
        now = time.perf_counter()
        if self._steps == self.every_n_steps:
            seconds = now - self._started
            rate = self._flops / seconds
            values = {
                "perf/samples_per_second": self._samples / seconds,
                "perf/tflops": rate / 1e12,
                "perf/data_wait_fraction": self._waited / seconds,
            }
            peak = get_available_flops(pl_module.device, torch.bfloat16) if pl_module.device.type == "cuda" else None
            if peak:
                values["perf/mfu"] = rate / (peak * trainer.world_size)
            pl_module.log_dict(values)
            self._reset()
        self._idle_since = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation and samples are not training time."""
        self._reset()

    def _reset(self) -> None:
        self._steps, self._samples, self._flops, self._waited = 0, 0, 0.0, 0.0
        self._started = self._idle_since = time.perf_counter()


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


class ExportModel(Callback):
    """Writes ``config.json`` and ``model.safetensors`` into the run folder at the end. List it after the EMA."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Averaged weights are in the module by now."""
        assert isinstance(pl_module, FlexiDiffusion)
        folder = run_folder(trainer)
        if trainer.is_global_zero and trainer.global_step > 0:
            rank_zero_info(f"model written to {save(folder, pl_module.network, pl_module.recipe())}")


class FlexiProgressBar(RichProgressBar):
    """Lightning's rich bar, naming the current mode beside the loss."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Short names, the mode first."""
        assert isinstance(pl_module, FlexiDiffusion)
        logged = super().get_metrics(trainer, pl_module)
        short = {
            name.replace("train/", "").replace("loss_mode/", ""): logged[name] for name in logged if name != "v_num"
        }
        mode = pl_module.mode_at(max(0, trainer.global_step - 1))
        return {"mode": f"{mode!s:<6}", **short}


def run_folder(trainer: Trainer) -> Path:
    """Where a run keeps everything: the logger's folder, or the trainer's. All ranks have to ask."""
    return Path(trainer.log_dir or trainer.default_root_dir)
