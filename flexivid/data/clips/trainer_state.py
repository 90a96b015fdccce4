"""What the data must know of a training run: which rank this is, where the run stands, and so which clips come next.

Takes any object with the attributes of a Lightning trainer, or None where there is no run; imports no Lightning.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from flexivid.data.clips.sampler import BucketBatchSampler, StepBatchSampler


class Run(NamedTuple):
    """What the data must know of a trainer (None outside of a run); their files are in a ``subfolder`` of its folder.

    >>> run = Run(None)
    >>> run.rank, run.world_size, run.num_steps(10, batch_size=4)
    (0, 1, 3)
    """

    trainer: Any | None
    subfolder: str = ""

    @property
    def rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    @property
    def world_size(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def accumulate(self) -> int:
        """Batches of an optimizer step."""
        # fixed for a whole fit: GradientAccumulationScheduler would break the exact resume
        return 1 if self.trainer is None else self.trainer.accumulate_grad_batches

    @property
    def global_step(self) -> int:
        """Optimizer steps done."""
        overfit = getattr(self.trainer, "overfit_batches", 0) > 0  # which means the same batches again and again
        return 0 if self.trainer is None or overfit else self.trainer.global_step

    @property
    def folder(self) -> str | None:
        """The folder of the run; all ranks must ask for it, since Lightning sends it from the first to the others."""
        folder = None if self.trainer is None else self.trainer.log_dir
        return os.path.join(folder, self.subfolder) if folder and self.subfolder else folder

    def num_steps(self, num_clips: int, *, batch_size: int) -> int:
        """Return the batches of a Lightning epoch: the whole run if its steps are set, else one pass over the clips.

        The pass is computed from ``batch_size``, the clips of a batch on each rank, whatever the batches of single
        steps are: an epoch must be as long after a resume as before.
        """
        trainer = self.trainer
        if trainer is not None and trainer.max_steps > 0 and trainer.max_epochs in (None, -1):
            interval = trainer.val_check_interval  # Lightning refuses one longer than the epoch
            return max(trainer.max_steps * self.accumulate, interval if isinstance(interval, int) else 0)
        return -(-num_clips // (batch_size * self.world_size * self.accumulate)) * self.accumulate

    def batches(
        self,
        clips_by_bucket: Sequence[np.ndarray],
        batch_size_at: Callable[[int], int],
        *,
        seed: int,
        epoch_size: int,
        takes: Callable[[int], bool] | None = None,
    ) -> StepBatchSampler:
        """Return the training batches of this rank, from the next global step on; each is of clips of one bucket.

        ``epoch_size`` is the clips per rank of a batch, from which the length of a Lightning epoch is computed.
        ``batch_size_at`` and ``takes`` are functions of a global step (see ``StepBatchSampler``).
        """
        number, accumulate = sum(map(len, clips_by_bucket)), self.accumulate
        options: dict[str, Any] = {
            "seed": seed,
            "rank": self.rank,
            "world_size": self.world_size,
            "start_step": lambda: accumulate * self.global_step,
            "num_steps": self.num_steps(number, batch_size=epoch_size),
            "takes": None if takes is None else lambda step: takes(step // accumulate),
        }

        def batch_size_of(step: int) -> int:
            return batch_size_at(step // accumulate)

        if len(clips_by_bucket) > 1:
            return BucketBatchSampler(clips_by_bucket, batch_size_of, **options)
        return StepBatchSampler(number, batch_size_of, **options)


class FollowsRun:
    """A loader whose place follows from the global step; Lightning warns of loaders without these two methods."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""
