"""The trained model as files that ``flexivid.load`` and others read."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from flexivid.model.checkpoint import save
from flexivid.training.callbacks.folder import run_folder
from flexivid.training.module import FlexiDiffusion


class ExportModel(Callback):
    """Writes ``config.json`` and ``model.safetensors`` into the run folder at the end. List it after the EMA."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the weights, which the EMA callback has replaced by their average."""
        assert isinstance(pl_module, FlexiDiffusion)
        folder = run_folder(trainer)
        if trainer.is_global_zero and trainer.global_step > 0:
            rank_zero_info(f"model written to {save(pl_module.network, folder, recipe=pl_module.recipe())}")
