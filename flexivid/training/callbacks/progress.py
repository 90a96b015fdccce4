"""The progress bar."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

PAUSE = 0.25  # seconds between looks at the losses: each makes the processor wait for the device


class FlexiProgressBar(RichProgressBar):
    """Lightning's rich bar, naming the current mode beside the loss. It ends where the run ends.

    Lightning takes the length that a run has when it starts; ``FitMinutes``, ``max_steps`` and ``max_time`` may end it
    earlier.
    """

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
        logged = super().get_metrics(trainer, pl_module)
        short = {
            name.replace("train/", "").replace("loss_mode/", ""): logged[name] for name in logged if name != "v_num"
        }
        mode = pl_module.mode_at(max(0, trainer.global_step - 1))  # type: ignore[operator]
        return {"mode": f"{mode!s:<6}", **short}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Name the epoch; without a last one Lightning counts to -2."""
        super().on_train_epoch_start(trainer, pl_module)
        if self.progress is not None and self.train_progress_bar_id is not None and trainer.max_epochs == -1:
            style = f"[{self.theme.description}]" if self.theme.description else ""
            self.progress.update(self.train_progress_bar_id, description=f"{style}Epoch {trainer.current_epoch}")
            self._set_total(trainer, 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The length may have changed."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._set_total(trainer, batch_idx + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What ended well is done, however early."""
        if self.progress is not None and self.train_progress_bar_id is not None:
            self.progress.update(self.train_progress_bar_id, total=self.train_progress_bar.completed)
        super().on_train_end(trainer, pl_module)

    def _set_total(self, trainer: Trainer, num_done: int) -> None:
        """Batches of this epoch: its own, or as many as the steps of the run take."""
        if self.progress is None or self.train_progress_bar_id is None:
            return
        total = trainer.num_training_batches
        if trainer.max_steps != -1:
            apart = trainer.accumulate_grad_batches
            rest = (trainer.max_steps - trainer.global_step) * apart - num_done % apart
            total = min(total, num_done + max(0, rest))
        if total != self.train_progress_bar.total:
            self.progress.update(self.train_progress_bar_id, total=total)
