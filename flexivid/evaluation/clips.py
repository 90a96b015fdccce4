"""The clips that a distance is measured on: which windows, which split, which pixels.

Windows are those of validation: spread evenly, never mirrored, cropped around the centre. Each video has as many as fit
without overlap, so that a second of footage counts the same in a short video and in a film.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from flexivid.data.clips.buckets import Bucket, parse_buckets
from flexivid.data.clips.dataset import ClipDataset
from flexivid.data.clips.windows import ClipSettings, refuse_settings
from flexivid.data.decoding.probe import VideoError
from flexivid.data.decoding.reader import ClipRequest
from flexivid.data.index.build import BadVideo
from flexivid.data.index.videos import Videos
from flexivid.data.lists.text import read_text
from flexivid.data.sources.manifest import Listed, Manifests, read_manifests
from flexivid.data.splits import explain_nothing, index_collection, load_splits
from flexivid.data.storage.changes import fingerprints
from flexivid.data.workers.pool import DecodePool, num_cores, outcomes
from flexivid.model.shipped import is_shipped
from flexivid.runtime.paths import is_remote, resolve

SPLITS = ("train", "held_out", "all")
Trained = tuple[ClipSettings, Sequence[Bucket]]  # how a training cut out its clips


@dataclass(frozen=True)
class ClipSet:
    """Clips of a collection, numbered from 0."""

    root: str  # the folder or manifest
    split: str  # ``train``, ``held_out``, or ``all`` where nothing is held out
    dataset: ClipDataset  # plans clips
    numbers: np.ndarray  # the clips of it that belong to the set, int64 (n,)
    bad: tuple[BadVideo, ...]  # files that cannot be decoded
    trained: Videos | None = None  # those trained on, beside which these are held out

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits: the files' contents (size and both ends), the frames taken of each, and their size."""
        requests = [self.plan(number) for number in range(len(self))]
        digest = hashlib.sha256(fingerprints([request.path for request in requests], contents=True).tobytes())
        for request in requests:
            digest.update(f"{request.indices.tolist()} {request.size} {request.kernel}".encode())
        videos = self.dataset.videos
        for row in {self.dataset.row(int(clip)): None for clip in self.numbers} if videos.has_displays else ():
            if videos.display(row):
                digest.update(f"{row} {videos.display(row)} {videos.widths[row]}x{videos.heights[row]}".encode())
        return digest.hexdigest()[:16]

    @property
    def fps(self) -> float:
        """Frames a second: that of the settings, or else the median over the videos; 8 where unknown."""
        return self.dataset.fps or 8.0

    def caption(self, number: int) -> str:
        """Words for a clip; empty without captions."""
        return self.dataset.caption(int(self.numbers[number]))

    def seen(self, captions: Sequence[str]) -> str:
        """How many of the captions were trained on too, in words; empty where nothing is held out or has captions."""
        if self.trained is None or not self.trained.has_captions:
            return ""
        trained = {words for row in range(len(self.trained)) for words in self.trained.captions(row)}
        return f"{len(trained & {*captions})} of {len({*captions})} held-out captions are among those trained on"

    def label(self, number: int) -> int:
        """Class of a clip; -1 without classes."""
        return self.dataset.label(int(self.numbers[number]))

    def plan(self, number: int) -> ClipRequest:
        """The frames of a clip to decode."""
        return self.dataset.plan((int(self.numbers[number]), 0))

    def __str__(self) -> str:
        skipped = [f"{len(self.bad)} files that cannot be decoded"] * bool(self.bad)
        short = len(self.dataset.too_short) if self.dataset.settings.short == "skip" else 0
        skipped += [f"{short} videos shorter than a clip"] * bool(short)
        return (
            f"{self.root} ({self.split}): {len(self.numbers)} of {len(self.dataset)} clips of"
            f" {len(self.dataset.videos)} videos" + (f"; left out: {', '.join(skipped)}" if skipped else "")
        )


def clip_settings(section: Mapping[str, Any], size: tuple[int, int, int], **changes: Any) -> ClipSettings:
    """Settings of clips for an evaluation: those of the training, but with evenly spread, unmirrored windows.

    Stride, fps, kernel and the like are those in ``section``, the ``data`` section of a run's config, unless one of the
    ``changes`` is not ``None``. ``size`` is frames, height, width. ``ValueError`` if settings contradict each other.

    Example:
        >>> settings = clip_settings({"stride": 2, "flip": True, "root": "videos"}, (8, 32, 32), fps=None)
        >>> settings.stride, settings.flip, settings.windows
        (2, False, 'uniform')
    """
    changes = {key: value for key, value in changes.items() if value is not None}
    names = {"stride", "fps", "clips_per_video", "short", "kernel", "square_pixels", "decoder"}
    if changes.keys() & {"stride", "fps"}:  # one rate replaces the other
        names -= {"stride", "fps"}
    trained = {key: value for key, value in section.items() if key in names}
    settings = ClipSettings(num_frames=size[0], size=(size[1], size[2]), windows="uniform")
    settings = settings._replace(**{**trained, **changes})
    refuse_settings(settings)
    return settings


def trained_clips(section: Mapping[str, Any], settings: ClipSettings) -> Trained:
    """How a training cut out its clips, by the ``data`` section of its config; what this does not say is as here."""
    stated = {"stride": 1, "fps": None, **section}
    changes = {name: stated[name] for name in ("num_frames", "stride", "fps", "short") if name in stated}
    return settings._replace(**changes), parse_buckets(section.get("buckets") or ())


def data_section(run: Path) -> dict[str, Any]:
    """The ``data`` section of ``config.yaml`` in a run's folder; empty if there is none."""
    try:
        section = (yaml.safe_load(read_text(run / "config.yaml")) or {}).get("data") or {}
    except OSError:
        return {}
    return dict(section.get("init_args", section))


def data_root(run: Path, section: Mapping[str, Any]) -> str:
    """The folder of the videos that a run was trained on, seen from here or from a folder above the run.

    ``ValueError`` if the run does not name it, or it is gone.
    """
    root = section.get("root")
    if is_shipped(run):
        raise ValueError(
            f"got no --reference for the shipped model {run.name}, whose training videos are not shipped; expected real"
            f" videos; make them as {run / 'card.md'} says, or name a folder with --reference"
        )
    if not root:
        raise ValueError(
            f"got no reference for {run}, which has no config.yaml with data.root; expected real videos; name a folder"
            " with --reference"
        )
    root = resolve(root)
    if is_remote(root):
        return root
    candidates = [Path(root), *(parent / root for parent in run.resolve().parents)]
    folder = next((candidate for candidate in candidates if candidate.exists()), None)
    if folder is None:
        raise ValueError(
            f"got data.root={root} in {run / 'config.yaml'}, which does not exist; expected the videos trained on; name"
            " their folder with --reference"
        )
    return str(folder)


def find_clips(
    root: Listed,
    settings: ClipSettings,
    *,
    split: str | None = None,
    num_clips: int | None = None,
    held_out_from: int | None = None,
    trained: Trained | None = None,
) -> ClipSet:
    """The clips of a collection, listed already or not, or at most ``num_clips`` of them spread evenly over it.

    The split is ``train`` or ``held_out`` as in training, or ``all``; ``None`` = ``train`` where there is a held-out
    part, else ``all``. Held-out clips are taken instead of training ones where there are at least ``held_out_from``:
    distances to clips that were trained on say little about new ones. A file that is listed several times, with another
    caption each, counts once. ``trained`` is how clips of a training were cut out of the collection, which decides what
    it held out; ``None`` = as here. ``ValueError`` if there are fewer than two clips.
    """
    manifests = read_manifests(root)
    split = split or ("all" if manifests.held_out is None else "train")
    with DecodePool(num_cores()) as pool:
        split, dataset, bad, videos = _dataset(manifests, settings, split, held_out_from, trained, pool)
    if len(dataset) < 2:
        raise ValueError(
            f"got {len(dataset)} clips in {root} ({split}); expected at least 2 for a distance; name a larger folder"
        )
    count = min(num_clips or len(dataset), len(dataset))
    return ClipSet(str(root), split, dataset, np.arange(count) * len(dataset) // count, bad, videos)


def _dataset(
    root: Manifests,
    settings: ClipSettings,
    split: str,
    held_out_from: int | None,
    trained: Trained | None,
    pool: DecodePool,
) -> tuple[str, ClipDataset, tuple[BadVideo, ...], Videos | None]:
    """The split that is taken, its clips, files that cannot be decoded, and the videos beside held-out ones."""
    if split not in SPLITS:
        raise ValueError(f"got split {split!r}; expected one of {', '.join(SPLITS)}; choose one")
    if split == "all":
        if root.held_out is not None:
            raise ValueError(f"got split all of {root}, which has a held-out part; expected train or held_out; choose")
        index, _ = index_collection(root, pool=pool, decoder=settings.decoder, square_pixels=settings.square_pixels)
        dataset = _one_row_a_file(ClipDataset(index.videos, settings))
        if len(dataset) == 0:
            raise ValueError(explain_nothing(str(root), index, settings, prefix=""))
        return split, dataset, index.bad, None
    splits = load_splits(root, settings, trained=trained, pool=pool)
    val = None if splits.val is None else _one_row_a_file(splits.val)
    enough = held_out_from is not None and val is not None and len(val) >= held_out_from
    if split == "train" and not enough:
        return split, _one_row_a_file(splits.train), splits.bad, None
    if val is None:
        raise ValueError(f"got split held_out of {root}, which has too few videos for one; expected train; change it")
    return "held_out", val, splits.bad, splits.train.videos


def _one_row_a_file(dataset: ClipDataset) -> ClipDataset:
    """Only the first row of each file: equal clips would stand for several videos."""
    _, rows = np.unique(dataset.videos.files(), return_index=True)
    return dataset if len(rows) == len(dataset.videos) else ClipDataset(dataset.videos.select(rows), dataset.settings)


def read_ends(clips: ClipSet) -> Iterator[tuple[int, Tensor]]:
    """Decode the first and the last frame of each clip: its number, and (3, 2, h, w) uint8.

    A clip that cannot be decoded is left out, with a warning.
    """
    plans = ((number, clips.plan(number)) for number in range(len(clips)))
    requests = ((number, plan._replace(indices=plan.indices[[0, -1]])) for number, plan in plans)
    with DecodePool(num_cores()) as pool:
        for number, frames in outcomes(requests, pool):
            if isinstance(frames, VideoError):
                warnings.warn(f"{frames}; no sample is given its frames", stacklevel=2)
            else:
                yield number, torch.from_numpy(np.array(frames)).permute(3, 0, 1, 2)


def read_blocks(
    clips: ClipSet, blocks: Sequence[Sequence[int]], *, num_workers: int | None = None
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yield blocks of clips, named by their numbers, with their videos, uint8 (b, 3, t, h, w), decoded a few ahead.

    A clip that cannot be decoded is left out, with a warning.
    """
    requests = ((i, clips.plan(i)) for block in blocks for i in block)
    with DecodePool(num_workers or num_cores()) as pool:
        results = outcomes(requests, pool)
        for block in blocks:
            decoded = [next(results)[1] for _ in block]
            for error in (each for each in decoded if isinstance(each, VideoError)):
                warnings.warn(f"{error}; its clip is left out of the reference", stacklevel=2)
            frames = [torch.from_numpy(np.array(each)) for each in decoded if not isinstance(each, VideoError)]
            shape = (0, *clips.dataset.buckets[0], 3)
            videos = torch.stack(frames) if frames else torch.empty(shape, dtype=torch.uint8)
            yield block, videos.permute(0, 4, 1, 2, 3)
