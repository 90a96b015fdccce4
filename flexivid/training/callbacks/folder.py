"""Where a run keeps its files, and which weights callbacks see."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging


def run_folder(trainer: Trainer) -> Path:
    """Where a run keeps everything: the logger's folder, or the trainer's. All ranks have to ask.

    Example:
        >>> str(run_folder(Trainer(logger=False, accelerator="cpu", default_root_dir="runs")))
        'runs'
    """
    return Path(trainer.log_dir or trainer.default_root_dir)


def refuse_raw_weights(trainer: Trainer, callback: Callback) -> None:
    """Refuse an order of callbacks in which raw weights would be sampled.

    Raises:
        ValueError: If the average comes after the callback.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    late = [other for other in callbacks[callbacks.index(callback) :] if isinstance(other, WeightAveraging)]
    if late:
        raise ValueError(
            f"got {type(callback).__name__} before {type(late[0]).__name__}; expected it after, or it samples raw"
            " weights; change the order of trainer.callbacks"
        )
