"""The data of a training run as a LightningDataModule: folder in, batches out.

A batch is ``video``, (b, c, t, h, w) uint8, and ``label``, (b,) int64, -1 in a set without classes. Scaling to [-1, 1]
is left to the training module, on its device.

Lightning replaces the sampler of a torch ``DataLoader`` when it runs on several ranks. The loaders here are plain
iterables around one, which Lightning leaves alone, so that ``trainer.use_distributed_sampler`` does not matter: every
rank takes its own share. Each rank decodes the whole set into its own memory.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from flexivid.data.clips import span_of
from flexivid.data.dataset import ClipDataset, ClipSettings
from flexivid.data.footage import BadVideo
from flexivid.data.sampler import Position, StepBatchSampler
from flexivid.data.splits import Splits, load_splits, name_some, write_bad


class Batches:
    """A loader that Lightning takes as it is. Iterating again starts it anew.

    >>> len(Batches(DataLoader(range(10), batch_size=4)))
    3
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        yield from self.loader  # lazily: Lightning also calls iter() just to look, which must not start workers

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: where to go on follows from the global step. Lightning warns of loaders without this."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the nothing that ``state_dict`` returns."""


class VideoDataModule(LightningDataModule):
    """Clips of a folder of videos.

    ``root/train`` is trained on, or ``root`` if it has no such folder; the folders in it may be classes (see
    ``manifest``). ``root/held_out``, ``root/val`` or ``root/test`` is validated on; without one, one training video in
    twenty is held out, or the end of a single one (see ``footage.hold_out``). Long videos count for several clips.

    Args:
        root: The folder.
        num_frames: Frames of a clip.
        size: Side of a square clip in pixels, or (height, width); the picture is resized to cover it and cut.
        stride: Take every so-many-th frame of the source.
        batch_size: Clips of a batch on each rank, unless ``set_batch_sizes`` says otherwise.
        num_workers: Loader processes; 0 is best while the videos fit into memory.
        cache_gib: Memory for decoded frames, per rank; videos beyond it are decoded clip by clip.
        seed: Decides the order of the clips and where they start.
        short: What to do with videos shorter than a clip: skip them, or loop them.
        flip: Mirror half of the training clips left to right.
        max_bad_fraction: Stop if a larger share of the files cannot be decoded; up to it they are skipped and listed.
        val_clips: Validate on at most so many clips, spread evenly and always the same.

    >>> VideoDataModule("videos", size=48).settings.size
    (48, 48)
    """

    def __init__(  # noqa: PLR0913
        self,
        root: str,
        num_frames: int = 8,
        size: int | tuple[int, int] = 32,
        stride: int = 1,
        batch_size: int = 32,
        num_workers: int = 0,
        cache_gib: float = 4,
        seed: int = 0,
        short: Literal["skip", "loop"] = "skip",
        flip: bool = False,
        max_bad_fraction: float = 0.05,
        val_clips: int = 128,
    ) -> None:
        super().__init__()
        height, width = (size, size) if isinstance(size, int) else size
        self.settings = ClipSettings(num_frames, (height, width), stride, seed, loop=short == "loop", flip=flip)
        self.root, self.batch_size, self.num_workers = root, batch_size, num_workers
        self.cache_gib, self.max_bad_fraction, self.val_clips = cache_gib, max_bad_fraction, val_clips
        for name, value in {"num_frames": num_frames, "stride": stride, "batch_size": batch_size}.items():
            if value < 1:
                raise ValueError(f"got data.{name}={value}; expected at least 1; raise data.{name}")
        if min(height, width) < 1:
            raise ValueError(f"got data.size={size}; expected pixels, at least 1; raise data.size")
        self.allow_zero_length_dataloader_with_multiple_devices = True  # there may be fewer held-out clips than ranks
        self._batch_size_at: Callable[[int], int] = lambda global_step: batch_size
        self._splits: Splits | None = None

    @property
    def splits(self) -> Splits:
        """The clips, and an account of what is left out; there after ``setup``."""
        if self._splits is None:
            raise RuntimeError("got no data yet; expected setup() to have run; call setup() first")
        return self._splits

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their labels; empty without class folders."""
        return self.splits.class_names

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 without class folders."""
        return len(self.class_names)

    @property
    def num_clips(self) -> int:
        """Training clips of an epoch."""
        return len(self.splits.train)

    @property
    def fps(self) -> float:
        """Frames a second of the clips: the median over the videos, divided by ``stride``."""
        return self.splits.fps

    @property
    def skipped(self) -> dict[str, int]:
        """How many videos are left out, by cause: ``bad`` and ``too_short``."""
        return {"bad": len(self.splits.bad), "too_short": len(self.splits.too_short)}

    def set_batch_sizes(self, batch_size_at: Callable[[int], int]) -> None:
        """Choose the batch size of every optimizer step; to be called before training begins.

        Args:
            batch_size_at: Clips per rank of a global step; a pure function, so that a resumed run goes on exactly.
        """
        self._batch_size_at = batch_size_at

    def setup(self, stage: str | None = None) -> None:
        """Find and decode the videos; only the first call does something.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If there is nothing to train on, or if too many files cannot be decoded.
        """
        if self._splits is not None:
            return
        max_bytes = int(self.cache_gib * 2**30)
        splits = load_splits(self.root, self.settings, max_bytes=max_bytes, progress=self._rank == 0)
        self._report(splits)
        self._splits = splits

    def train_dataloader(self) -> Batches:
        """Return the training batches, from the trainer's global step on."""
        # fixed for a whole fit: GradientAccumulationScheduler would break the exact resume
        accumulate = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        sampler = StepBatchSampler(
            self.num_clips,
            lambda step: self._batch_size_at(step // accumulate),
            seed=self.settings.seed,
            rank=self._rank,
            world_size=self._world_size,
            start_step=lambda: accumulate * self._global_step,
            num_steps=self._num_steps(accumulate),
        )
        return self._loader(self.splits.train, sampler)

    def val_dataloader(self) -> Batches | list:
        """Return this rank's share of the held-out clips: none comes twice, none is added to fill a batch."""
        dataset = self.splits.val
        if dataset is None:
            return []
        number = min(self.val_clips, len(dataset))
        clips = np.arange(number) * len(dataset) // max(1, number)
        share = [(int(clip), 0) for clip in clips[self._rank :: self._world_size]]
        return self._loader(dataset, [share[i : i + self.batch_size] for i in range(0, len(share), self.batch_size)])

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    @property
    def _world_size(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def _global_step(self) -> int:
        overfit = getattr(self.trainer, "overfit_batches", 0) > 0  # which means the same batches again and again
        return 0 if self.trainer is None or overfit else self.trainer.global_step

    def _num_steps(self, accumulate: int) -> int:
        """Return the batches of a Lightning epoch: the whole run if its steps are set, else one pass over the clips.

        The pass is reckoned with ``batch_size``, whatever ``set_batch_sizes`` says: an epoch must be as long after a
        resume as before.
        """
        trainer = self.trainer
        if trainer is not None and trainer.max_steps > 0 and trainer.max_epochs in (None, -1):
            interval = trainer.val_check_interval  # Lightning refuses one longer than the epoch
            return max(trainer.max_steps * accumulate, interval if isinstance(interval, int) else 0)
        return -(-self.num_clips // (self.batch_size * self._world_size * accumulate)) * accumulate

    def _loader(self, dataset: ClipDataset, batches: StepBatchSampler | list[list[Position]]) -> Batches:
        workers: dict[str, Any] = {"num_workers": self.num_workers, "persistent_workers": self.num_workers > 0}
        if self.num_workers > 0 and "fork" in multiprocessing.get_all_start_methods():
            workers["multiprocessing_context"] = "fork"  # so that workers share the decoded frames
        return Batches(DataLoader(dataset, batch_sampler=batches, pin_memory=torch.cuda.is_available(), **workers))

    def _report(self, splits: Splits) -> None:
        """Warn of everything that is left out or slow."""
        if splits.bad:
            self._report_bad(splits.bad, len(splits.videos) + len(splits.too_short))
        if splits.too_short:
            span = span_of(self.settings.num_frames, stride=self.settings.stride)
            rank_zero_warn(
                f"got {len(splits.too_short)} videos shorter than the {span} frames of a clip, such as "
                f"{splits.too_short[0]}; they are skipped; set data.short=loop to use them"
            )
        outside = sum(video.frames is None for video in splits.videos)
        if outside:
            rank_zero_warn(
                f"got {outside} videos that do not fit into data.cache_gib={self.cache_gib}; they are decoded clip by "
                f"clip, which is slow; raise data.cache_gib or data.num_workers"
            )
        if splits.val is None or len(splits.val) == 0:
            rank_zero_warn(f"got too little footage in {self.root} to hold any out; there is no validation")

    def _report_bad(self, bad: tuple[BadVideo, ...], num_good: int) -> None:
        share = f"got {len(bad)} of {len(bad) + num_good} files in {self.root} that cannot be decoded"
        if len(bad) > self.max_bad_fraction * (len(bad) + num_good):
            raise ValueError(
                f"{share} ({name_some(bad)}); expected a share of at most {self.max_bad_fraction}; "
                f"repair or remove them, or raise data.max_bad_fraction"
            )
        log_dir = None if self.trainer is None else self.trainer.log_dir  # every rank has to ask
        if log_dir is not None and self._rank == 0:
            write_bad(bad, log_dir)
        listed = "" if log_dir is None else f", all listed in {log_dir}/bad_videos.jsonl"
        rank_zero_warn(f"{share} and are skipped{listed}: {name_some(bad)}")
