"""The progress bar."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from flexivid.training.module import FlexiDiffusion


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
