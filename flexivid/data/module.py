"""The data of a training run as a LightningDataModule: folder or manifest in, batches out.

A batch is ``video``, (b, c, t, h, w) uint8; ``label``, (b,) int64, -1 without classes; and ``caption``, b strings, in a
set with captions. Scaling to [-1, 1] is left to the training module, on its device. An encoded folder (see
``encoded.folder``) gives ``latent`` in the place of ``video``, and ``text_features`` with ``text_mask`` if its captions
were encoded: no video is decoded, and neither an autoencoder nor a text encoder loaded.

Lightning replaces the sampler of a torch ``DataLoader`` when it runs on several ranks. The loaders here are none, so
that ``trainer.use_distributed_sampler`` does not matter: every rank takes its own share. Clips are planned here and
decoded in other processes, which a file can end without harm. Each rank keeps decoded frames in its own memory.
"""

import warnings
from collections.abc import Callable
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn

from flexivid.data.bad_files import BadFiles, agree, remarks
from flexivid.data.clips.buckets import parse_buckets
from flexivid.data.clips.dataset import Address, ClipDataset
from flexivid.data.clips.loader import ClipLoader
from flexivid.data.clips.sampler import PictureSteps, StepBatchSampler, fixed_batches
from flexivid.data.clips.trainer_state import Run
from flexivid.data.clips.windows import ClipSettings, Short, Windows
from flexivid.data.decoding.backends import Choice
from flexivid.data.description import Description
from flexivid.data.encoded.clips import EncodedClips, EncodedLoader, open_if_encoded
from flexivid.data.encoded.folder import HELD_OUT, TRAIN, stored_settings
from flexivid.data.index.build import BadVideo
from flexivid.data.pictures import MixedLoader, held_out_pictures, mixed_loader, picture_module
from flexivid.data.sources.layout import Collection, Layout, collection_of
from flexivid.data.splits import Splits, keep_in_memory, load_splits, write_bad
from flexivid.data.workers.pool import DecodePool, num_cores
from flexivid.runtime.distributed import gathered
from flexivid.runtime.start import seed_or_global


class VideoDataModule(Description, LightningDataModule):
    """Clips of a collection of videos.

    ``root/train`` is trained on, or ``root`` if it has no such folder; the folders in it may be classes (see
    ``manifest``). ``root/held_out``, ``root/val`` or ``root/test`` is validated on, each by any of its usual names (see
    ``lists.classes``); without one, one training video in twenty is held out, or the end of a single one (see
    ``splits.hold_out``). Long videos count for several clips.

    Args:
        root: The folder, or what else ``manifest`` reads; ``~`` and variables are expanded (see ``files.paths``). Or
            what ``flexivid.dataset encode`` wrote: settings of clips that have their defaults are then those of the
            folder, and others are refused.
        num_frames: Frames of a clip.
        size: Side of a square clip in pixels, or (height, width); the picture is resized to cover it and cut.
        stride: Take every so-many-th frame of the source.
        batch_size: Clips of a batch on each rank, unless ``set_batch_sizes`` says otherwise.
        num_workers: Processes that decode clips; 0 means one, which is enough while the videos fit into memory.
        cache_gib: Memory for decoded frames, per rank, read before training; videos beyond it are decoded clip by clip.
            None: 4 if all videos can be read in about a minute, else 0.
        seed: Decides the order of the clips and all that is drawn; None: that of ``--seed_everything``.
        short: What to do with videos shorter than a clip: skip, loop or pad them (their last frame stays).
        flip: Mirror half of the training clips left to right.
        max_bad_fraction: Stop, at the start or later, when a larger share of the files cannot be decoded, on all ranks
            together; up to it they are skipped, listed, and other clips take their places.
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
        decoder: "pyav", "decord" or "torchcodec", for which files that it does not decode exactly are bad; or "auto".
        latents: Refused: the setting of an earlier version. Latents are read by ``root``.
        square_pixels: Show pictures as video players do where the file says that its pixels are not square (DVDs, much
            of television, anamorphic lenses); False takes rows and columns as they are stored, which look distorted.
        layout: What the folders of ``root`` are: "splits" (parts, as train and val), "classes", "flat" (folders mean
            nothing), or "auto": by their names, and an error where these can be read in two ways.
        pictures: Take each file of a picture as a video of one frame, for ``num_frames`` of 1 or with ``buckets``.
        picture_root: Pictures to train on among the videos, by ``picture_share`` of the steps (see ``pictures``).

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
        cache_gib: float | None = None,
        seed: int | None = None,
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
        decoder: Choice = "auto",
        latents: str | None = None,
        square_pixels: bool = True,
        layout: Layout = "auto",
        pictures: bool = False,
        picture_root: str | None = None,
        picture_share: float = 0.2,
    ) -> None:
        super().__init__()
        height, width = (size, size) if isinstance(size, int) else size
        seed = seed_or_global(seed)
        self.settings = ClipSettings(
            *(num_frames, (height, width), stride, seed, fps, windows, clips_per_video, short, flip, crop, kernel),
            square_pixels=square_pixels,
            decoder=decoder,
        )
        self.collection = collection_of(Collection(root, layout, pictures))
        self.root, self.batch_size, self.num_workers = self.collection.root, batch_size, num_workers
        self.cache_gib, self.max_bad_fraction, self.val_clips = cache_gib, max_bad_fraction, val_clips
        self.buckets, self.trust_index = parse_buckets(buckets or []), trust_index
        self.max_seconds_per_file, self.max_gib_per_file = max_seconds_per_file, max_gib_per_file
        self.decoder = decoder
        self.encoded = open_if_encoded(self.root)
        self.check(latents)
        if self.encoded is not None:
            self.settings = stored_settings(self.root, self.encoded.encoded, self.settings)
        self._batch_size_at: Callable[[int], int] = lambda global_step: batch_size
        self._died: dict[str, str] = {}  # files that killed their decoders in training batches, and how
        self._parts: dict[str, EncodedClips | None] = {}
        self._pool: DecodePool | None = None
        self.picture_steps = PictureSteps(self.settings.seed, picture_share if picture_root else 0.0)
        self.picture_data = picture_module(self, picture_root) if picture_root else None
        self.subfolder = ""  # of the run's folder, for the lists of these data

    def set_batch_sizes(self, batch_size_at: Callable[[int], int]) -> None:
        """Choose the batch size of every optimizer step; to be called before training begins.

        Args:
            batch_size_at: Clips per rank of a global step; a pure function, so that a resumed run goes on exactly.
        """
        self._batch_size_at = batch_size_at

    def prepare_data(self) -> None:
        """Look at new files before other ranks do; alone, ``setup`` does."""
        if self._run.world_size > 1 and not self.encoded:
            self._load()
        if self.picture_data is not None:
            self.picture_data.trainer = self.trainer
            self.picture_data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Find the videos, and decode what fits into memory; only the first call does something.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If there is nothing to train on, or if too many files cannot be decoded.
        """
        if self._splits is not None or self._parts:
            return
        if self.encoded is not None:
            self._parts = {name: self.encoded.part(name, seed=self.settings.seed) for name in (TRAIN, HELD_OUT)}
            if self.encoded.num_missing:
                rank_zero_warn(f"got {self.encoded.num_missing} clips without a latent; they are replaced or left out")
            return
        splits = self._load()
        with self._new_pool(num_cores()) as pool:
            room = None if self.cache_gib is None else int(self.cache_gib * 2**30)
            splits = keep_in_memory(splits, pool=pool, max_bytes=room, agree=agree, progress=self._run.rank == 0)
        self._report(splits)
        self._splits = splits

    def state_dict(self) -> dict[str, Any]:
        """Return which files killed their decoders on each rank: no clip of theirs is tried again after a resume."""
        return {"died": gathered(dict(self._died))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what ``state_dict`` returned; another number of ranks takes all of them together."""
        if self.encoded:  # nothing is decoded
            return
        everyones, rank = state["died"], self._run.rank
        same = len(everyones) == self._run.world_size
        for died in everyones[rank : rank + 1] if same else everyones:
            self._died.update(died)
        for path, reason in self._died.items():
            self._on_bad(path, reason)

    def teardown(self, stage: str | None = None) -> None:
        """End the decoding processes, which start again when they are needed, and the account of bad files."""
        if self._bad is not None and stage in ("fit", "validate"):
            self._bad.end(is_first=self._run.rank == 0)
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        if self.picture_data is not None:
            self.picture_data.teardown(stage)

    def train_dataloader(self) -> ClipLoader | EncodedLoader | MixedLoader:
        """Return the training batches, from the trainer's global step on."""
        if self.picture_data is None:
            return self.train_loader(None)
        return mixed_loader(self, self.picture_data, self._batch_size_at)

    def train_loader(self, takes: Callable[[int], bool] | None) -> ClipLoader | EncodedLoader:
        """Return the training batches of the global steps that ``takes`` says; None: of all."""
        dataset = self._dataset(TRAIN)
        assert dataset is not None
        options: dict[str, Any] = {"seed": self.settings.seed, "epoch_size": self.batch_size, "takes": takes}
        batches = self._run.batches(dataset.clips_by_bucket(), self._batch_size_at, **options)
        return self._loader(dataset, batches, is_train=True)

    def val_dataloader(self) -> ClipLoader | EncodedLoader | list:
        """Return this rank's share of the held-out clips, and where pictures are held out too, a second loader."""
        loader = self.val_loader()
        if loader is None:
            return []
        stills = held_out_pictures(self, self.picture_data) if self.picture_data else []
        return [loader, *stills] if stills else loader

    def val_loader(self) -> ClipLoader | EncodedLoader | None:
        """Return this rank's share of the held-out clips: none comes twice, none is added to fill a batch.

        Where there are fewer than ranks, each takes all. A clip that cannot be decoded is left out, and only replaced
        where the rank would have no clip, for which the others would wait. None: no clips are held out.
        """
        dataset = self._dataset(HELD_OUT)
        if dataset is None:
            return None
        number = min(self.val_clips, len(dataset))
        clips = [i * len(dataset) // number for i in range(number)]
        by_bucket = [[clip for clip in clips if dataset.bucket(clip) == i] for i in range(len(dataset.buckets))]
        rank, world_size = self._run.rank, self._run.world_size
        batches = fixed_batches(by_bucket, self.batch_size, rank=rank, world_size=world_size)
        return self._loader(dataset, batches, is_train=False)

    @property
    def _run(self) -> Run:
        return Run(self.trainer, self.subfolder)

    def _new_pool(self, num_workers: int) -> DecodePool:
        max_bytes = int(self.max_gib_per_file * 2**30)
        return DecodePool(num_workers, max_seconds=self.max_seconds_per_file, max_bytes=max_bytes)

    def _load(self) -> Splits:
        with self._new_pool(num_cores()) as pool:
            check: Literal["names", "stat"] = "names" if self.trust_index else "stat"
            options: dict[str, Any] = {"buckets": self.buckets, "check": check, "progress": self._run.rank == 0}
            return load_splits(self.manifests, self.settings, pool=pool, **options)

    def _dataset(self, part: str) -> ClipDataset | EncodedClips | None:
        if self._parts:
            return self._parts[part]
        return self.splits.train if part == TRAIN else self.splits.val

    def _loader(
        self, dataset: ClipDataset | EncodedClips, batches: StepBatchSampler | list[list[Address]], *, is_train: bool
    ) -> ClipLoader | EncodedLoader:
        """Training clips that fail are replaced by others, those for validation are left out."""
        if isinstance(dataset, EncodedClips):
            return EncodedLoader(dataset, batches if is_train else dataset.without_missing(batches))
        if self._pool is None:
            self._pool = self._new_pool(self.num_workers)
        assert self._bad is not None
        options: dict[str, Any] = {"substitute": dataset.substitute, "replace": is_train}
        options |= {"on_batch": self._bad.count_batch, "died": self._died} if is_train else {}
        return ClipLoader(dataset, batches, pool=self._pool, on_bad=self._on_bad, **options)

    def _report(self, splits: Splits) -> None:
        """Warn of everything that is left out or slow."""
        number, folder = splits.num_files, self._run.folder
        self._bad = BadFiles(self.root, num_files=number, max_fraction=self.max_bad_fraction, folder=folder)
        self._bad.add(*splits.bad, write=False)
        if splits.bad:
            if folder is not None and self._run.rank == 0:
                write_bad(splits.bad, folder)
            rank_zero_warn(self._bad.message())
        for remark in remarks(splits, self.root, cache_gib=self.cache_gib, num_workers=self.num_workers):
            rank_zero_warn(remark)

    def _on_bad(self, path: str, reason: str) -> None:
        """Count a file that fails during the run, on whatever rank, and warn if it is new."""
        assert self._bad is not None
        if self._bad.report(BadVideo(path, reason)):
            warnings.warn(f"{self._bad.message()}; the last one now, during the run", stacklevel=2)
