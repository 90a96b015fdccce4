"""Speed of training: samples and operations a second, and the share of time spent waiting for data."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch import Callback, LightningModule, Trainer

from flexivid.training.module import FlexiDiffusion


class Speed(Callback):
    """Logs samples a second, TFLOP/s, MFU where the device's peak is known, and the share of time spent on data.

    Lightning's ``ThroughputMonitor`` gives the same rates (to 1 %), but waits for the device at every step, does not
    know the share spent on data, and mixes steps from before and after a validation.

    Args:
        every_n_steps: Steps that one value is the mean of.
    """

    def __init__(self, every_n_steps: int = 20) -> None:
        self.every_n_steps = every_n_steps
        self._started = self._idle_since = 0.0
        self._reset()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the time since the last step, which was spent waiting for this batch, and the work that it will be."""
        assert isinstance(pl_module, FlexiDiffusion)
        self._waited += time.perf_counter() - self._idle_since
        self._flops += 2 * pl_module.step_macs(trainer.global_step) * trainer.world_size

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._steps += 1
        self._samples += len(batch["label"]) * trainer.world_size
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
        """Restart the clock, so that validation and sampling do not count as training time."""
        self._reset()

    def _reset(self) -> None:
        self._steps, self._samples, self._flops, self._waited = 0, 0, 0.0, 0.0
        self._started = self._idle_since = time.perf_counter()
