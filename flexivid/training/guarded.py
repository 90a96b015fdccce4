"""GuardedModule, the base of both LightningModules. It skips and counts bad steps, takes a diverging run back to its
last good checkpoint and then stops it, and makes a resumed run use its present settings.

Each step waits once for the device, before the optimizer. A loss that is not finite makes the whole gradient not
finite, so that averaging gradients informs all ranks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.distributed.tensor import DTensor

from flexivid.runtime.finite import NotFiniteError
from flexivid.training.bad_steps import DivergedError, StepRecord, Verdict
from flexivid.training.last_good import KEY, keep_proven, to_rewind_to
from flexivid.training.optimizer import OptimizerSettings
from flexivid.training.resume import renew_optimizers, require_steps_left, require_time_left

TINY = 1e-6  # lower bound of the loss of predicting zero, which is 0 where all targets are
MOST_WARNINGS = 10  # after so many bad steps only every hundredth is reported


class GuardedModule(LightningModule):
    """Skips bad steps and stops diverging runs; ``optimizer_settings.bad_steps`` says how many are too many."""

    def __init__(self, optimizer_settings: OptimizerSettings) -> None:
        super().__init__()
        self.optimizer_settings, self.record = optimizer_settings, StepRecord()
        self.bad_steps = optimizer_settings.bad_steps.check()
        self.is_skipped = False  # whether the latest step was, for callbacks that average weights
        self.grad_norm = torch.zeros(())  # of the latest step, before clipping
        self.zero_loss: Tensor | None = None  # loss of predicting zero on the latest batch
        self._loss_pairs: list[tuple[Tensor, Tensor]] = []  # of the batches of a step
        self._verdict: Verdict | None = None  # of a step until its batch ends
        self._is_bad = False
        self._precision_state: dict[str, Any] | None = None
        self._is_unproven = False  # whether a checkpoint was written and no good step has followed
        self._fresh_groups: list[list[dict[str, Any]]] = []

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Make the whole gradient not finite if the loss is; finite losses are multiplied by exactly 1."""
        value = loss.detach()
        self._loss_pairs.append((value, value if self.zero_loss is None else self.zero_loss))
        super().backward(loss * (1 + 0 * value), *args, **kwargs)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Skip the step on all ranks, if the loss or the gradient is not finite on one of them."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._verdict = verdict = self._judge([p.grad for p in parameters if p.grad is not None])
        self.is_skipped = not verdict.is_finite
        if self.is_skipped:
            for parameter in parameters:
                parameter.grad = None  # an optimizer changes neither parameters without gradients nor their state
        if self._is_overflow(verdict):
            self._verdict = None  # GradScaler tries scales and skips such steps itself
            return
        if math.isinf(verdict.loss):  # not because of the scale, which must stay
            self._precision_state = copy.deepcopy(self.trainer.precision_plugin.state_dict())
        self._is_bad = not self.record.add(verdict, self.bad_steps)
        if not self._is_bad and self._is_unproven and self.trainer.is_global_zero:
            for folder in self._folders():
                keep_proven(folder)
        self._is_unproven = self._is_unproven and self._is_bad

    def _judge(self, gradients: list[Tensor]) -> Verdict:
        """Loss and gradient of the step; the only transfer from the device in a step."""
        norm = torch.nn.utils.get_total_norm(gradients)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self.grad_norm = norm
        losses, zero_losses = (torch.stack(values).float() for values in zip(*self._loss_pairs, strict=True))
        self._loss_pairs = []
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        loss = losses.sum() / scaler.get_scale() if scaler is not None else losses.sum()
        numbers = torch.stack([loss, norm.float().to(loss.device), loss / zero_losses.mean().clamp_min(TINY)])
        worst = torch.nan_to_num(numbers, nan=math.inf, posinf=math.inf, neginf=math.inf)  # a maximum may ignore NaN
        worst = self.trainer.strategy.reduce(worst, reduce_op="max")
        return Verdict(*worst.tolist())

    def _is_overflow(self, verdict: Verdict) -> bool:
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        is_of_gradient = math.isinf(verdict.gradient) and math.isfinite(verdict.loss)
        return scaler is not None and is_of_gradient and scaler.get_scale() > 1

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Show the count, and go back or stop where too many steps were bad."""
        if self._precision_state is not None:
            self.trainer.precision_plugin.load_state_dict(self._precision_state)
            self._precision_state = None
        if self.record.bad:
            self.log("train/bad_steps", float(self.record.bad), prog_bar=True)
        verdict, self._verdict = self._verdict, None
        if verdict is None or not self._is_bad:
            return
        self.forget_bad_step()
        self._report(verdict, batch)
        if self.record.is_too_much(self.bad_steps):
            self._stop(f"{self.record.bad} bad steps among {self.record.bad + self.record.good}")
        if self.record.is_streak(self.bad_steps):
            self._go_back()

    def forget_bad_step(self) -> None:
        """Remove what a bad step left in the module beside the weights; subclasses override it."""

    def _report(self, verdict: Verdict, batch: Any) -> None:
        if self.record.bad > MOST_WARNINGS and self.record.bad % 100:
            return
        times = f"the loss is {verdict.ratio:.3g} times that of predicting nothing"
        outcome = times if verdict.is_finite else "it was skipped"
        entries = batch.items() if isinstance(batch, dict) else ()
        wrong = [k for k, v in entries if isinstance(v, Tensor) and v.is_floating_point() and not v.isfinite().all()]
        cause = f"; its batch holds values that are not finite in {', '.join(wrong)}" if wrong else ""
        rank_zero_warn(
            f"step {self.global_step - 1} is bad: loss {_shown(verdict.loss)}, gradient {_shown(verdict.gradient)};"
            f" {outcome} ({self.record.in_a_row} in a row, {self.record.bad} in all){cause}"
        )

    def _go_back(self) -> None:
        """Restore weights, averages and optimizer state from the last good checkpoint; steps and data continue."""
        count, trainer = f"{self.record.in_a_row} bad steps in a row", self.trainer
        if self.record.rewinds >= self.bad_steps.rewinds:
            self._stop(f"{count}{', again after going back' if self.record.rewinds else ''}")
        file = self._last_good()
        if file is None:
            self._stop(count)
        rank_zero_warn(f"got {count}: going back to the weights of {file}")
        checkpoint = trainer.strategy.load_checkpoint(file, weights_only=True)  # type: ignore[arg-type]
        trainer.strategy.load_model_state_dict(checkpoint, strict=self.strict_loading)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            callback.on_load_checkpoint(trainer, self, checkpoint)
        trainer.strategy.load_optimizer_state_dict(checkpoint)
        renew_optimizers(trainer, self._fresh_groups)
        self.record.rewinds, self.record.in_a_row = self.record.rewinds + 1, 0
        self._is_unproven = False  # the newest file belongs to the discarded steps

    def _last_good(self) -> Path | None:
        """The checkpoint to go back to, the same on every rank."""
        file = to_rewind_to(self._folders()) if self.trainer.is_global_zero else None
        return self.trainer.strategy.broadcast(file)

    def _folders(self) -> list[Path]:
        callbacks: list[Any] = self.trainer.checkpoint_callbacks
        return [Path(callback.dirpath) for callback in callbacks if getattr(callback, "dirpath", None)]

    def _stop(self, reason: str) -> None:
        file = self._last_good()
        state = f"the last good checkpoint is {file}" if file else "there is no good checkpoint"
        raise DivergedError(
            f"got {reason} until step {self.global_step}; expected finite losses and gradients that fall; lower"
            f" model.optimizer.learning_rate, or look at the clips of these steps; {state}"
        )

    def on_fit_start(self) -> None:
        """Remember the present settings before a checkpoint overwrites them; exclude skipped steps from averages."""
        require_time_left(self.trainer)
        self._fresh_groups = [
            [{k: copy.copy(v) for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
            for optimizer in self.trainer.optimizers
        ]
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging):
                callback.should_update = self._unless_skipped(callback.should_update)  # type: ignore[method-assign]

    def _unless_skipped(self, should_update: Callable[..., bool]) -> Callable[..., bool]:
        def decide(step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
            return not (step_idx is not None and self.is_skipped) and should_update(step_idx, epoch_idx)

        return decide

    def on_train_start(self) -> None:
        """Use the present settings, not those of the checkpoint."""
        renew_optimizers(self.trainer, self._fresh_groups)

    def on_train_epoch_end(self) -> None:
        """Stop before anything is exported if the run ends among bad steps."""
        trainer, loop = self.trainer, self.trainer.fit_loop
        by_steps = 0 <= loop.epoch_loop.max_steps <= trainer.global_step
        by_epochs = loop.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= (loop.max_epochs or 0)
        if (by_steps or by_epochs or trainer.should_stop) and self.record.ends_badly(self.bad_steps):
            useless = f"predictions that are worse than none (loss {self.record.recent:.3g} times that of nothing)"
            self._stop(useless if self.record.is_useless else f"{self.record.in_a_row} bad steps in a row at the end")

    def on_validation_epoch_end(self) -> None:
        """Warn of losses that are not finite; in ``validate``, where losses are all that is computed, raise."""
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items() if "val/" in name}
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            remedy = "look at the held-out clips, or take another checkpoint"
            message = f"got {bad[0]} = {metrics[bad[0]]}; expected numbers; {remedy}"
            if self.trainer.state.fn == "validate":
                raise NotFiniteError(message)
            rank_zero_warn(message)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = asdict(self.record)
        self._is_unproven = self.record.in_a_row == 0

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counters; refuse a run that has passed its limits already."""
        require_steps_left(checkpoint, self._trainer)
        self.record = StepRecord(**checkpoint.get(KEY, {}))


def _shown(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "not finite"
