"""The progress bar."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

PAUSE = 0.25  # seconds between reading losses, which makes the processor wait for the device


class FlexiProgressBar(RichProgressBar):
    """Lightning's rich bar with the current mode, if there are modes, beside the loss; full when the run ends.

    Lightning's own bar has the length of the run at its start; ``FitMinutes``, ``max_steps`` and ``max_time`` may end
    the run earlier.
    """

    _shown: dict[str, Any] | None = None
    _read_at = 0.0

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Metrics by short names, the mode first; read anew after ``PAUSE``."""
        now = time.monotonic()
        if self._shown is None or now - self._read_at >= PAUSE:
            self._shown, self._read_at = self._read(trainer, pl_module), now
        return self._shown

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last values stay on the screen."""
        self._shown = None
        super().on_train_epoch_end(trainer, pl_module)

    def _read(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        logged = super().get_metrics(trainer, pl_module)
        short = {
            name.replace("train/", "").replace("loss_mode/", ""): logged[name] for name in logged if name != "v_num"
        }
        if not hasattr(pl_module, "mode_at"):  # an autoencoder
            return short
        mode = pl_module.mode_at(max(0, trainer.global_step - 1))  # type: ignore[operator]
        return {"mode": f"{mode!s:<6}", **short}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._name_epoch(trainer)
        self._set_total(trainer, 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Set the length, which may have changed."""
        is_without_bar = self.train_progress_bar_id is None  # a run that resumes within an epoch
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if is_without_bar:
            self._name_epoch(trainer)
        self._set_total(trainer, batch_idx + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fill the bar, even if the run ends early."""
        if self.progress is not None and self.train_progress_bar_id is not None:
            self.progress.update(self.train_progress_bar_id, total=self.train_progress_bar.completed)
        super().on_train_end(trainer, pl_module)

    def _name_epoch(self, trainer: Trainer) -> None:
        """Name the epoch alone where there is no last one; Lightning would write "Epoch 0/-2"."""
        if self.progress is not None and self.train_progress_bar_id is not None and trainer.max_epochs == -1:
            style = f"[{self.theme.description}]" if self.theme.description else ""
            self.progress.update(self.train_progress_bar_id, description=f"{style}Epoch {trainer.current_epoch}")

    def _set_total(self, trainer: Trainer, num_done: int) -> None:
        """Set the length to the batches of the epoch, or to those that the rest of the run takes if they are fewer."""
        if self.progress is None or self.train_progress_bar_id is None:
            return
        total = trainer.num_training_batches
        if trainer.max_steps != -1:
            batches_per_step = trainer.accumulate_grad_batches
            rest = (trainer.max_steps - trainer.global_step) * batches_per_step - num_done % batches_per_step
            total = min(total, num_done + max(0, rest))
        if total != self.train_progress_bar.total:
            self.progress.update(self.train_progress_bar_id, total=total)
