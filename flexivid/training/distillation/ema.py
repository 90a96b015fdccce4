"""Averages the adapter weights during a distillation, and writes them as an adapter folder."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from flexivid.pretrained.adapter import save_adapter
from flexivid.pretrained.flexify import adapter_parameters, flexi_of
from flexivid.runtime.finite import require_finite_weights
from flexivid.training.callbacks.folder import run_folder
from flexivid.training.distillation.module import FlexiDistillation


class AdapterEMA(Callback):
    """Exponential moving average of the adapter weights; at the end it replaces them and is saved to ``adapter/``.

    The frozen weights are never copied. The decay rises at first: min(decay, (1 + n) / (10 + n)) at step n.

    Args:
        decay: Of one step.
    """

    def __init__(self, decay: float = 0.9999) -> None:
        self.decay, self.count, self.average = decay, 0, list[Tensor]()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the weights, or from the averages of the checkpoint."""
        weights = self._weights(pl_module)
        if not self.average:
            self.average = [weight.detach().clone() for weight in weights]
        self.average = [old.to(new.device) for old, new in zip(self.average, weights, strict=True)]
        self._seen = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the averages once for each optimizer step that was not skipped."""
        assert isinstance(pl_module, FlexiDistillation)
        if trainer.global_step == self._seen:
            return
        self._seen = trainer.global_step
        if pl_module.is_skipped:
            return
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        get_ema_multi_avg_fn(decay)(self.average, self._weights(pl_module), self.count)

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the averages into the network, and write the adapter."""
        if self.count == 0:
            return
        for weight, average in zip(self._weights(pl_module), self.average, strict=True):
            weight.copy_(average)
        folder = run_folder(trainer) / "adapter"
        assert isinstance(pl_module, FlexiDistillation)
        require_finite_weights(flexi_of(pl_module.network).state_dict(), f"an adapter for {folder}")
        if trainer.is_global_zero or pl_module.is_sharded:
            save_adapter(pl_module.network, folder, write=trainer.is_global_zero)
        rank_zero_info(f"adapter written to {folder}")

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the averages if the run goes back to a checkpoint during training."""
        if self.average and self.state_key in checkpoint.get("callbacks", {}):
            devices = [average.device for average in self.average]
            self.load_state_dict(checkpoint["callbacks"][self.state_key])
            self.average = [average.to(device) for average, device in zip(self.average, devices, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count, self.average = state_dict["count"], state_dict["average"]

    @staticmethod
    def _weights(pl_module: LightningModule) -> list[torch.nn.Parameter]:
        assert isinstance(pl_module, FlexiDistillation)
        return adapter_parameters(pl_module.network)
