"""The progress bar."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from flexivid.training.module import FlexiDiffusion

PAUSE = 0.25  # seconds between looks at the losses: each makes the processor wait for the device


class FlexiProgressBar(RichProgressBar):
    """Lightning's rich bar, naming the current mode beside the loss."""

    _shown: dict[str, Any] | None = None
    _looked = 0.0

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Short names, the mode first; those of a moment ago within ``PAUSE``."""
        now = time.monotonic()
        if self._shown is None or now - self._looked >= PAUSE:
            self._shown, self._looked = self._look(trainer, pl_module), now
        return self._shown

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last values stay on the screen."""
        self._shown = None
        super().on_train_epoch_end(trainer, pl_module)

    def _look(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        assert isinstance(pl_module, FlexiDiffusion)
        logged = super().get_metrics(trainer, pl_module)
        short = {
            name.replace("train/", "").replace("loss_mode/", ""): logged[name] for name in logged if name != "v_num"
        }
        mode = pl_module.mode_at(max(0, trainer.global_step - 1))
        return {"mode": f"{mode!s:<6}", **short}
