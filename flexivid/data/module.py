"""The data of a training run as a LightningDataModule: folder or manifest in, batches out.

A batch is ``video``, (b, c, t, h, w) uint8, and ``label``, (b,) int64, -1 in a set without classes. Scaling to [-1, 1]
is left to the training module, on its device.

Lightning replaces the sampler of a torch ``DataLoader`` when it runs on several ranks. The loaders here are none, so
that ``trainer.use_distributed_sampler`` does not matter: every rank takes its own share. Clips are planned here and
decoded in other processes, which a file can end without harm. Each rank keeps decoded frames in its own memory.
"""

import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import distributed

from flexivid.data.account import BadFiles, remarks
from flexivid.data.buckets import parse_buckets
from flexivid.data.clips import ClipSettings, Short, Windows, refuse_settings
from flexivid.data.dataset import Address, ClipDataset
from flexivid.data.index import BadVideo
from flexivid.data.loader import ClipLoader
from flexivid.data.pool import DecodePool, num_cores
from flexivid.data.sampler import BucketBatchSampler, StepBatchSampler
from flexivid.data.splits import Splits, keep_in_memory, load_splits, write_bad


class VideoDataModule(LightningDataModule):
    """Clips of a collection of videos.

    ``root/train`` is trained on, or ``root`` if it has no such folder; the folders in it may be classes (see
    ``manifest``). ``root/held_out``, ``root/val`` or ``root/test`` is validated on; without one, one training video in
    twenty is held out, or the end of a single one (see ``footage.hold_out``). Long videos count for several clips.

    Args:
        root: The folder, or what else ``manifest`` reads.
        num_frames: Frames of a clip.
        size: Side of a square clip in pixels, or (height, width); the picture is resized to cover it and cut.
        stride: Take every so-many-th frame of the source.
        batch_size: Clips of a batch on each rank, unless ``set_batch_sizes`` says otherwise.
        num_workers: Processes that decode clips; 0 means one, which is enough while the videos fit into memory.
        cache_gib: Memory for decoded frames, per rank; videos beyond it are decoded clip by clip.
        seed: Decides the order of the clips and all that is drawn.
        short: What to do with videos shorter than a clip: skip, loop or pad them (their last frame stays).
        flip: Mirror half of the training clips left to right.
        max_bad_fraction: Stop, at the start or later, when a larger share of the files cannot be decoded; up to it they
            are skipped, listed, and other clips take their places.
        val_clips: Validate on at most so many clips, spread evenly and always the same.
        fps: Take the frames shown at this rate, whatever the rate of the source; not together with ``stride``.
        windows: Where training clips lie: "random", "uniform", "first" or "all" (see ``ClipSettings``).
        clips_per_video: Clips of each video in an epoch; None: as many as fit.
        crop: Keep the "centre" of a picture of another shape, or a place drawn for each training clip, "random".
        kernel: How pictures are resized: "bicubic", "bilinear", "area" or "lanczos".
        buckets: Shapes of clips, [frames, height, width] each, instead of ``num_frames`` and ``size``: each video takes
            the one that keeps most of it, and each batch is of one shape.
        max_seconds_per_file: Time to decode a clip; a file that takes longer is bad.
        max_gib_per_file: Memory to decode a clip; likewise.
        trust_index: Do not look whether files have changed since an earlier run looked at them.

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
        short: Short = "skip",
        flip: bool = False,
        max_bad_fraction: float = 0.05,
        val_clips: int = 128,
        fps: float | None = None,
        windows: Windows = "random",
        clips_per_video: int | None = None,
        crop: Literal["centre", "random"] = "centre",
        kernel: Literal["bicubic", "bilinear", "area", "lanczos"] = "bicubic",
        buckets: list[list[int]] | None = None,
        max_seconds_per_file: float = 60,
        max_gib_per_file: float = 2,
        trust_index: bool = False,
    ) -> None:
        super().__init__()
        height, width = (size, size) if isinstance(size, int) else size
        self.settings = ClipSettings(
            num_frames, (height, width), stride, seed, fps, windows, clips_per_video, short, flip, crop, kernel
        )
        self.root, self.batch_size, self.num_workers = root, batch_size, num_workers
        self.cache_gib, self.max_bad_fraction, self.val_clips = cache_gib, max_bad_fraction, val_clips
        self.buckets, self.trust_index = parse_buckets(buckets or []), trust_index
        self.max_seconds_per_file, self.max_gib_per_file = max_seconds_per_file, max_gib_per_file
        refuse_settings(self.settings)
        if batch_size < 1:
            raise ValueError(f"got data.batch_size={batch_size}; expected at least 1; raise data.batch_size")
        self.allow_zero_length_dataloader_with_multiple_devices = True  # there may be fewer held-out clips than ranks
        self._batch_size_at: Callable[[int], int] = lambda global_step: batch_size
        self._splits: Splits | None = None
        self._bad: BadFiles | None = None
        self._pool: DecodePool | None = None

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
        """Frames a second of the clips: ``fps``, or the median over the videos, divided by ``stride``."""
        return self.splits.fps

    @property
    def skipped(self) -> dict[str, int]:
        """How many videos are left out, by cause: ``bad`` and ``too_short``."""
        bad = self.splits.bad if self._bad is None else self._bad.found
        return {"bad": len(bad), "too_short": self.splits.num_too_short if self.settings.short == "skip" else 0}

    def set_batch_sizes(self, batch_size_at: Callable[[int], int]) -> None:
        """Choose the batch size of every optimizer step; to be called before training begins.

        Args:
            batch_size_at: Clips per rank of a global step; a pure function, so that a resumed run goes on exactly.
        """
        self._batch_size_at = batch_size_at

    def prepare_data(self) -> None:
        """Look at new files before other ranks do; alone, ``setup`` does."""
        if self._world_size > 1:
            self._load()

    def setup(self, stage: str | None = None) -> None:
        """Find the videos, and decode what fits into memory; only the first call does something.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If there is nothing to train on, or if too many files cannot be decoded.
        """
        if self._splits is not None:
            return
        splits = self._load()
        if self.cache_gib > 0:
            with self._new_pool(num_cores()) as pool:
                room, quiet = int(self.cache_gib * 2**30), self._rank > 0
                splits = keep_in_memory(splits, max_bytes=room, pool=pool, agree=_agree, progress=not quiet)
        self._report(splits)
        self._splits = splits

    def teardown(self, stage: str | None = None) -> None:
        """End the decoding processes; they start again when they are needed."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def train_dataloader(self) -> ClipLoader:
        """Return the training batches, from the trainer's global step on."""
        # fixed for a whole fit: GradientAccumulationScheduler would break the exact resume
        accumulate = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        dataset = self.splits.train
        options: dict[str, Any] = {
            "seed": self.settings.seed,
            "rank": self._rank,
            "world_size": self._world_size,
            "start_step": lambda: accumulate * self._global_step,
            "num_steps": self._num_steps(accumulate),
        }

        def batch_size_at(step: int) -> int:
            return self._batch_size_at(step // accumulate)

        if len(dataset.buckets) > 1:
            return self._loader(dataset, BucketBatchSampler(dataset.clips_by_bucket(), batch_size_at, **options))
        return self._loader(dataset, StepBatchSampler(self.num_clips, batch_size_at, **options))

    def val_dataloader(self) -> ClipLoader | list:
        """Return this rank's share of the held-out clips: none comes twice, none is added to fill a batch.

        A clip that cannot be decoded is left out; no other takes its place.
        """
        dataset = self.splits.val
        if dataset is None:
            return []
        number = min(self.val_clips, len(dataset))
        clips = np.arange(number) * len(dataset) // max(1, number)
        batches: list[list[Address]] = []
        buckets = np.array([dataset.bucket(int(clip)) for clip in clips], dtype=np.int64)
        for bucket in range(len(dataset.buckets)):
            share = [(int(clip), 0) for clip in clips[buckets == bucket][self._rank :: self._world_size]]
            batches += [share[i : i + self.batch_size] for i in range(0, len(share), self.batch_size)]
        return self._loader(dataset, batches, substitutes=False)

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

    def _new_pool(self, num_workers: int) -> DecodePool:
        max_bytes = int(self.max_gib_per_file * 2**30)
        return DecodePool(num_workers, max_seconds=self.max_seconds_per_file, max_bytes=max_bytes)

    def _load(self) -> Splits:
        with self._new_pool(num_cores()) as pool:
            check: Literal["names", "stat"] = "names" if self.trust_index else "stat"
            quiet = self._rank > 0
            return load_splits(
                self.root, self.settings, buckets=self.buckets, check=check, pool=pool, progress=not quiet
            )

    def _loader(
        self, dataset: ClipDataset, batches: StepBatchSampler | list[list[Address]], *, substitutes: bool = True
    ) -> ClipLoader:
        if self._pool is None:
            self._pool = self._new_pool(self.num_workers)
        substitute = dataset.substitute if substitutes else lambda clip, number: None
        return ClipLoader(dataset, batches, pool=self._pool, on_bad=self._on_bad, substitute=substitute)

    def _report(self, splits: Splits) -> None:
        """Warn of everything that is left out or slow."""
        folder = None if self.trainer is None else self.trainer.log_dir  # every rank has to ask
        bad = BadFiles(self.root, num_files=splits.num_files, max_fraction=self.max_bad_fraction, folder=folder)
        bad.add(*splits.bad, write=False)
        if splits.bad:
            if folder is not None and self._rank == 0:
                write_bad(splits.bad, folder)
            rank_zero_warn(bad.message())
        for remark in remarks(splits, self.root, cache_gib=self.cache_gib, num_workers=self.num_workers):
            rank_zero_warn(remark)
        self._bad = bad

    def _on_bad(self, path: str, reason: str) -> None:
        """Take note of a file that fails during the run, on whatever rank."""
        assert self._bad is not None
        if path not in self._bad.found:
            self._bad.add(BadVideo(path, reason))
            warnings.warn(f"{self._bad.message()}; the last one now, during the run", stacklevel=2)


def _agree(failed: list[BadVideo]) -> list[BadVideo]:
    """Return the files that fail on any rank, in the same order on all."""
    lists = [failed]
    if distributed.is_available() and distributed.is_initialized():
        lists = [[] for _ in range(distributed.get_world_size())]
        distributed.all_gather_object(lists, failed)
    return list({bad.path: bad for bads in lists for bad in bads}.values())
