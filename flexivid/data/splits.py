"""From a folder or manifest to clips to train on and clips to validate on, and an account of what is left out.

Imports no Lightning: the data module and the programs that look at data sets share this.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flexivid.data.clips.buckets import Bucket
from flexivid.data.clips.dataset import ClipDataset
from flexivid.data.clips.frame_cache import FrameCache, fill, seconds_to_read
from flexivid.data.clips.windows import ClipSettings, span_of, step_of
from flexivid.data.decoding.backends import refuse_decoder
from flexivid.data.index.build import BadVideo, Check, VideoIndex, build_index, index_path
from flexivid.data.index.videos import Videos
from flexivid.data.sources.manifest import Listed, Manifest, read_manifests
from flexivid.data.workers.pool import DecodePool, num_cores, probe_many
from flexivid.runtime.printable import printable

QUICK_SECONDS = 60.0  # of decoding on one core: what is read before training unless told otherwise
QUICK_BYTES = 4 << 30
NUM_NAMED = 10  # files that a message names; a list on disk has them all


class Splits(NamedTuple):
    """Clips to train on and to validate on."""

    train: ClipDataset
    val: ClipDataset | None  # fixed windows of other videos; None where there is too little footage for both
    class_names: tuple[str, ...]
    bad: tuple[BadVideo, ...]  # files that cannot be decoded
    too_short: tuple[str, ...] = ()  # videos shorter than a clip: the first few, by path
    num_too_short: int = 0  # how many these are

    @property
    def datasets(self) -> tuple[ClipDataset, ...]:
        """Both, or the one there is."""
        return (self.train,) if self.val is None else (self.train, self.val)

    @property
    def num_files(self) -> int:
        """Files found, good, too short and bad ones."""
        skipped = 0 if self.train.settings.short != "skip" else self.num_too_short
        numbers = [int(dataset.videos.files().max(initial=-1)) + 1 for dataset in self.datasets]
        is_cut = numbers == [1, 1] and len({dataset.videos.path(0) for dataset in self.datasets}) == 1
        return (1 if is_cut else sum(numbers)) + skipped + len({video.path for video in self.bad})


def load_splits(
    root: Listed,
    settings: ClipSettings,
    *,
    buckets: Sequence[Bucket] = (),
    trained: tuple[ClipSettings, Sequence[Bucket]] | None = None,
    check: Check = "stat",
    pool: DecodePool | None = None,
    progress: bool = True,
) -> Splits:
    """Find the videos of a folder or manifest and what is known of each; nothing is decoded but what is new.

    Args:
        root: The collection, listed already (``Manifests``) or not, with or without training and held-out folders (see
            ``layout``). Without held-out videos, some of the training ones are held out (see ``hold_out``).
        settings: How clips are cut out of them; ``buckets`` are shapes in place of the one in it.
        trained: Both as in an earlier run, whose held-out videos are held out again: which videos are too short, and so
            left out, depends on them. None: these.
        check: How to tell that a file has changed since it was looked at (see ``index.build_index``).
        pool: Looks at new files; without one a pool is made for it.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is nothing to train on, or no such decoder.

    >>> load_splits("nowhere", ClipSettings())
    Traceback (most recent call last):
    ...
    FileNotFoundError: got nowhere, which does not exist; expected a folder of videos; correct the path
    """
    refuse_decoder(settings.decoder, kernel=settings.kernel)
    options: dict[str, Any] = {"decoder": settings.decoder, "check": check, "square_pixels": settings.square_pixels}
    index, held_out_index = index_collection(root, pool=pool, progress=progress, **options)
    everything = ClipDataset(index.videos, settings, buckets=buckets)
    if len(everything) == 0:
        raise ValueError(explain_nothing(str(root), index, settings))
    fixed = settings._replace(windows="uniform", flip=False, crop="centre")
    if held_out_index is not None:
        held_out = ClipDataset(held_out_index.videos, fixed, buckets=buckets)
        return _account(
            everything, held_out, [everything, held_out], index._replace(bad=index.bad + held_out_index.bad)
        )
    before = everything if trained is None else ClipDataset(index.videos, trained[0], buckets=trained[1])
    before = before if len(before) else everything
    usable = index.videos if before.counts.all() else index.videos.select(np.flatnonzero(before.counts))
    parts = hold_out(usable, min_frames=int(np.max(_span(usable.select(np.array([0])), before.settings))))
    train = ClipDataset(parts[0], settings, buckets=buckets)
    val = None if parts[1] is None else ClipDataset(parts[1], fixed, buckets=buckets)
    return _account(train, val, [everything], index)


def hold_out(videos: Videos, *, min_frames: int) -> tuple[Videos, Videos | None]:
    """Part videos into some to train on and some to validate on, without a frame in both.

    Of several files, one in twenty is held out, at least one, spread evenly over the list and so over the classes; all
    rows of a file, as lists with several captions have them, go together. A single file is cut: its last tenth is held
    out, or one clip, which spans ``min_frames``, if that is more. If it is too short for both, nothing is held out, and
    the second result is None.

    >>> film = Videos.of(["film.mp4"], num_frames=250)
    >>> [(part.first.tolist(), part.num_frames.tolist()) for part in hold_out(film, min_frames=15)]
    [([0], [225]), ([225], [25])]
    >>> videos = Videos.of([f"{i}.mp4" for i in range(60)], num_frames=250)
    >>> [len(part) for part in hold_out(videos, min_frames=15)]
    [57, 3]
    """
    files = videos.files()
    if (num_files := int(files.max()) + 1) > 1:
        number = max(1, round(num_files / 20))
        chosen = np.zeros(num_files, dtype=bool)
        chosen[(2 * np.arange(number) + 1) * num_files // (2 * number)] = True
        return videos.select(np.flatnonzero(~chosen[files])), videos.select(np.flatnonzero(chosen[files]))
    num_frames, rows = int(videos.num_frames[0]), np.arange(len(videos))
    tail = max(num_frames // 10, min_frames)
    if num_frames - tail < min_frames:
        return videos, None
    return videos.cut(rows, 0, num_frames - tail), videos.cut(rows, num_frames - tail, tail)


def index_collection(
    root: Listed,
    *,
    pool: DecodePool | None = None,
    decoder: str = "auto",
    check: Check = "stat",
    progress: bool = True,
    square_pixels: bool = True,
) -> tuple[VideoIndex, VideoIndex | None]:
    """Probe what is new in a collection, and return the index of its training and its held-out videos.

    Arguments are those of ``load_splits``; ``decoder`` and ``square_pixels`` are those of ``ClipSettings``.
    """
    train, held_out, _ = read_manifests(root)
    with DecodePool(num_cores()) if pool is None else nullcontext(pool) as looking:

        def index(manifest: Manifest) -> VideoIndex:
            looks = partial(probe_many, pool=looking, decoder=decoder)
            path = index_path(manifest.root, decoder, square_pixels=square_pixels)
            options: dict[str, Any] = {"path": path, "check": check, "square_pixels": square_pixels}
            updated = build_index(manifest, probe_many=looks, progress=progress, **options)
            return updated._replace(notes=manifest.notes)

        return index(train), None if held_out is None else index(held_out)


def keep_in_memory(
    splits: Splits,
    *,
    pool: DecodePool,
    max_bytes: int | None = None,
    agree: Callable[[list[BadVideo]], list[BadVideo]] = list,
    progress: bool = True,
) -> Splits:
    """Decode the videos while there is room for them; return the clips without those of files that fail.

    Without ``max_bytes`` there is room for 4 GiB, or for nothing where reading the videos would delay the start. Given
    the files that fail here, ``agree`` returns those that fail on any rank: all must leave out the same.
    """
    settings, failed, room = splits.train.settings, [], max_bytes
    if room is None:
        seconds = sum(seconds_to_read(dataset.videos) for dataset in splits.datasets)
        room = QUICK_BYTES if seconds < QUICK_SECONDS else 0
    for dataset in splits.datasets:
        videos, sizes = dataset.videos, dataset.kept_sizes()
        sizes = sizes * (dataset.counts > 0)[:, None]
        dataset.cache = FrameCache(videos.num_frames, sizes, max_bytes=room)
        room -= dataset.cache.num_bytes
        errors = fill(dataset.cache, videos, sizes, kernel=settings.kernel, pool=pool, progress=progress)
        failed += [BadVideo(videos.path(row), reason) for row, reason in errors.items()]
    failed = agree(failed)
    if not failed:
        return splits
    names = {bad.path for bad in failed}
    train, val = (None if dataset is None else dataset.without(names) for dataset in (splits.train, splits.val))
    assert train is not None
    bad = (*splits.bad, *failed)
    if len(train) == 0:
        raise ValueError(f"got 0 clips: no file decodes to its end ({name_some(bad)}); expected videos; convert them")
    return splits._replace(train=train, val=val, bad=bad)


def explain_nothing(root: str, index: VideoIndex, settings: ClipSettings, *, prefix: str = "data.") -> str:
    """Explain why a folder with videos gives no clip; ``prefix`` is that of the names of settings."""
    bad, videos = f"{len(index.bad)} videos fail to decode ({name_some(index.bad)})", index.videos
    if len(videos) == 0:
        return f"got 0 clips from {root}: all {bad}; expected videos; convert them, or name another folder"
    longest = int(np.argmax(videos.num_frames))
    span = int(np.max(_span(videos.select(np.array([longest])), settings)))
    short = f"all {len(videos)} videos{' that decode' if index.bad else ''} are too short"
    rate = f"stride={settings.stride}" if settings.fps is None else f"fps={settings.fps}"
    return (
        f"got 0 clips from {root}: {short}, the longest, {videos.path(longest)}, has "
        f"{videos.num_frames[longest]} frames{f', and {bad}' if index.bad else ''}; "
        f"expected at least {span} frames for {prefix}num_frames={settings.num_frames} and {prefix}{rate}; "
        f"lower {prefix}num_frames, take frames that are closer, or set {prefix}short=loop or {prefix}short=pad"
    )


def name_some(bad: Sequence[BadVideo]) -> str:
    """Name the first few bad files, with reasons.

    >>> name_some([BadVideo("a.mp4", "no video stream")] * 12)[-36:]
    'a.mp4: no video stream; and 2 others'
    """
    named = [printable(f"{path}: {reason}") for path, reason in bad[:NUM_NAMED]]
    return "; ".join(named + [f"and {len(bad) - NUM_NAMED} others"] * (len(bad) > NUM_NAMED))


def write_bad(bad: Sequence[BadVideo], folder: str | Path, *, append: bool = False) -> Path:
    r"""Write ``bad_videos.jsonl`` into a folder, one file a line with ``path`` and ``reason``, and return its path.

    With ``append``, what is there stays. Several processes may append at the same time: lines stay whole.

    >>> import tempfile
    >>> write_bad([BadVideo("a.mp4", "no video stream")], tempfile.mkdtemp()).read_text()
    '{"path": "a.mp4", "reason": "no video stream"}\n'
    """
    path = Path(folder) / "bad_videos.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(video._asdict()) + "\n" for video in bad).encode()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC), 0o644)
    try:
        os.write(file, lines)  # one write: the system puts it at the end in one piece
    finally:
        os.close(file)
    return path


def _span(videos: Videos, settings: ClipSettings) -> int | np.ndarray:
    return span_of(settings.num_frames, step_of(videos.fps, settings))


def _account(train: ClipDataset, val: ClipDataset | None, looked_at: list[ClipDataset], index: VideoIndex) -> Splits:
    short = [(dataset.videos, int(row)) for dataset in looked_at for row in dataset.too_short[:NUM_NAMED]]
    named = tuple(videos.path(row) for videos, row in short[:NUM_NAMED])
    number = sum(len(dataset.too_short) for dataset in looked_at)
    return Splits(train, val, index.class_names, index.bad, named, number)
