"""The folder of a run, and checks of the weights that callbacks sample."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_warn

from flexivid.training.guarded import GuardedModule


def run_folder(trainer: Trainer) -> Path:
    """The folder of a run: the logger's, or the trainer's. All ranks must call it."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def is_waiting(module: GuardedModule) -> bool:
    """Whether the latest steps were bad, so that sampling is pointless until the run recovers or stops; warns if so."""
    count = module.record.in_a_row
    if count:
        rank_zero_warn(f"no samples while steps are bad ({count} in a row)")
    return count > 0


def refuse_raw_weights(trainer: Trainer, callback: Callback) -> None:
    """Refuse to sample raw weights: an average that comes after the callback is a ``ValueError``."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    late = [each for each in callbacks[callbacks.index(callback) :] if isinstance(each, WeightAveraging)]
    if late:
        raise ValueError(
            f"got {type(callback).__name__} before {type(late[0]).__name__}; expected it after, or it samples raw"
            " weights; change the order of trainer.callbacks"
        )
