"""Clips of videos, addressed by (clip, epoch): planned here, decoded wherever there is room for it.

The same address always gives the same pixels: everything drawn at random is drawn from (seed, epoch, clip) alone,
whatever the number of workers or ranks. Holds arrays of numbers and no object per video. Imports no Lightning.
"""

import hashlib
import warnings
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from flexivid.data.clips.buckets import Bucket, assign
from flexivid.data.clips.frame_cache import FrameCache
from flexivid.data.clips.sampler import Address
from flexivid.data.clips.windows import (
    MAX_TRIES,
    ClipSettings,
    Clock,
    by_step,
    clips_per_epoch,
    num_windows,
    start_of,
    step_of,
)
from flexivid.data.decoding.probe import Facts, VideoError
from flexivid.data.decoding.reader import ClipRequest, cover, cut, read_clip
from flexivid.data.index.videos import Videos

NEAR = 4  # clips behind one that fails that are tried before those of other videos,
NUM_NEXT = 8  # and how many of these are next to each other
CAPTION_STREAM = 1  # keeps the draw of a caption apart from those of its clip


class Window(NamedTuple):
    """A clip in numbers: which video, which of its frames, and how the picture is cut."""

    row: int
    indices: np.ndarray
    crop: tuple[float, float]
    flip: bool


def draw_caption(number: int, address: Address, *, seed: int) -> int:
    """Return which of several captions a clip has in an epoch.

    >>> sorted({draw_caption(3, (0, epoch), seed=0) for epoch in range(30)}), draw_caption(1, (0, 0), seed=0)
    ([0, 1, 2], 0)
    """
    if number == 1:
        return 0
    clip, epoch = address
    return int(np.random.default_rng([seed, epoch, clip, CAPTION_STREAM]).integers(number))


def fingerprint(dataset: "ClipDataset") -> dict[str, Any]:
    """Return what the clips of a data set depend on: settings, shapes, and a hash of the videos, wherever they lie.

    >>> clips = fingerprint(ClipDataset(Videos.of(["a.mp4"], num_frames=16), ClipSettings(stride=2)))
    >>> clips["stride"], clips["num_clips"], len(clips["videos"])
    (2, 1, 16)
    """
    videos, settings = dataset.videos, dataset.settings._asdict()
    del settings["seed"]  # decides nothing where nothing is drawn
    del settings["square_pixels"]  # sizes tell it
    columns = (videos.num_frames, videos.first, videos.heights, videos.widths, videos.label, videos.num_bytes)
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(column).tobytes() for column in columns))
    if videos.has_displays:
        digest.update("\n".join(videos.display(row) for row in range(len(videos))).encode())
    return settings | {"buckets": dataset.buckets, "num_clips": len(dataset), "videos": digest.hexdigest()[:16]}


class ClipDataset(Dataset[dict[str, Tensor | str]]):
    """Clips of videos; a long video counts for several clips of an epoch, one that is too short for none.

    ``plan`` says what to decode; ``cached`` gives what is in memory. Used alone, as a map-style data set, an item is
    ``video``, (c, t, h, w) uint8, ``label``, int64 (-1 without classes), and ``caption`` where there are captions,
    decoded in this process. If the file behind it turns out to be damaged, the next clip that can be decoded takes its
    place, and a warning names the file. ``buckets`` are shapes of clips, in place of the one in ``settings``; each
    video takes the one that fits it best.

    >>> videos = Videos.of(["a.mp4", "b.mp4"], num_frames=[250, 16], caption=["a dog", "a cat"])
    >>> dataset = ClipDataset(videos, ClipSettings(num_frames=16, windows="first", clips_per_video=2))
    >>> len(dataset), dataset.counts.tolist(), dataset.caption(2)
    (3, [2, 1], 'a cat')
    >>> request = dataset.plan((1, 0))
    >>> request.path, request.indices.tolist()[:3]
    ('a.mp4', [16, 17, 18])
    """

    def __init__(self, videos: Videos, settings: ClipSettings, *, buckets: Sequence[Bucket] = ()) -> None:
        self.videos, self.settings = videos, settings
        self.buckets = tuple(buckets) or (Bucket(settings.num_frames, *settings.size),)
        self.has_captions = videos.has_captions
        self.cache: FrameCache | None = None
        self._num_frames, self._first, self._labels = videos.num_frames, videos.first, videos.label
        self._step = step_of(videos.fps, settings)
        self._bucket_of = None
        if len(self.buckets) > 1:
            sizes = np.stack([videos.heights, videos.widths], axis=1)
            self._bucket_of = assign(self.buckets, sizes, self._num_frames, videos.fps, settings=settings)
            lengths: Any = np.array([bucket.num_frames for bucket in self.buckets])[self._bucket_of]
        else:
            lengths = self.buckets[0].num_frames
        counts = clips_per_epoch(self._num_frames, lengths, self._step, settings)
        self._ends = np.cumsum(counts)
        self.too_short = np.flatnonzero(num_windows(self._num_frames, lengths, self._step) <= 0)
        self._reported: set[str] = set()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, address: Address) -> dict[str, Tensor | str]:
        clip, epoch = address
        for number in range(MAX_TRIES):
            clip = self.substitute(address[0], number) if number else clip
            try:
                frames = self.cached((clip, epoch))
                if frames is None:
                    frames = read_clip(self.plan((clip, epoch)))
                pixels = np.ascontiguousarray(frames.transpose(3, 0, 1, 2))  # t h w c -> c t h w
                words = {"caption": self.caption(clip, epoch)} if self.has_captions else {}
                return {"video": torch.from_numpy(pixels), "label": torch.tensor(self.label(clip)), **words}
            except VideoError as error:
                self._report(error)
                failure = error
        raise failure

    @property
    def counts(self) -> np.ndarray:
        """Clips of each video in an epoch, (n,) int64."""
        return np.diff(self._ends, prepend=0)

    @property
    def fps(self) -> float:
        """Frames a second of the clips; without ``settings.fps`` the median over the videos, 0 where unknown."""
        return self.settings.fps or float(np.median(self.videos.fps)) / self.settings.stride

    def row(self, clip: int) -> int:
        """Return which of the videos a clip belongs to."""
        return int(np.searchsorted(self._ends, clip, side="right"))

    def label(self, clip: int) -> int:
        """Return the class of a clip, -1 without classes."""
        return int(self._labels[self.row(clip)])

    def caption(self, clip: int, epoch: int = 0) -> str:
        """Return the words for a clip, empty without captions; of several, one drawn by (seed, epoch, clip)."""
        captions = self.videos.captions(self.row(clip))
        return captions[draw_caption(len(captions), (clip, epoch), seed=self.settings.seed)]

    def bucket(self, clip: int) -> int:
        """Return the number of the bucket of a clip."""
        return self._bucket(self.row(clip))

    def clips_by_bucket(self) -> list[np.ndarray]:
        """Return the clips of each bucket, int64."""
        if self._bucket_of is None:
            return [np.arange(len(self))]
        of_clip = np.repeat(self._bucket_of, self.counts)
        return [np.flatnonzero(of_clip == number) for number in range(len(self.buckets))]

    def plan(self, address: Address) -> ClipRequest:
        """Return what to decode for a clip; the same address always gives the same request."""
        row, indices, crop, flip = self._window(address)
        path, info, size = self.videos.path(row), self.videos.facts(row), self.buckets[self._bucket(row)].size
        return ClipRequest(path, info, indices + int(self._first[row]), size, crop, flip, self.settings.kernel)

    def cached(self, address: Address) -> np.ndarray | None:
        """Return a clip from memory, (t, h, w, 3) uint8, as decoding would give it; None if its video is not there."""
        if self.cache is None or (frames := self.cache.frames(self.row(address[0]))) is None:
            return None
        window = self._window(address)
        clip = cut(frames[window.indices], self.buckets[self._bucket(window.row)].size, window.crop)
        return clip[:, :, ::-1] if window.flip else clip

    def substitute(self, clip: int, number: int) -> int:
        """Return the clip that takes the place of one that fails: the ``number``-th to be tried, of its shape.

        The first ``NEAR`` are those after it, the others the first clips of other videos, at last further and further
        away: a file that has many clips, or many rows, may be bad as a whole.
        """
        if self._bucket_of is None:
            return _later(clip, number, self._ends)
        rows = np.flatnonzero((self._bucket_of == self.bucket(clip)) & (self.counts > 0))
        ends = np.cumsum(self.counts[rows])
        position = int(np.searchsorted(rows, self.row(clip)))
        clip_number = _later(clip + int(ends[position]) - int(self._ends[rows[position]]), number, ends)
        position = int(np.searchsorted(ends, clip_number, side="right"))
        return int(self._ends[rows[position]]) - int(ends[position]) + clip_number

    def kept_sizes(self) -> np.ndarray:
        """Return the (height, width) at which the frames of each video are kept in memory, (n, 2); 0: not at all."""
        sizes = np.array([bucket.size for bucket in self.buckets])
        sizes = sizes[np.zeros(len(self.videos), np.int64) if self._bucket_of is None else self._bucket_of]
        if self.settings.crop == "centre":
            return sizes
        shapes = np.column_stack([self.videos.heights, self.videos.widths, sizes])
        unique, inverse = np.unique(shapes, axis=0, return_inverse=True)
        covers = [cover((int(h), int(w)), (int(a), int(b))) for h, w, a, b in unique]
        # resized to a size of their own they must come out as when they are resized for one clip
        exact = [c if cover((int(s[0]), int(s[1])), c) == c else (0, 0) for s, c in zip(unique, covers, strict=True)]
        return np.array(exact).reshape(-1, 2)[inverse.reshape(-1)]

    def without(self, paths: Collection[str]) -> "ClipDataset":
        """Return this data set without some files; what is in memory stays there."""
        remaining = np.array([self.videos.path(row) not in paths for row in range(len(self.videos))])
        rest = ClipDataset(self.videos.select(np.flatnonzero(remaining)), self.settings, buckets=self.buckets)
        rest.cache = None if self.cache is None else self.cache.select(np.flatnonzero(remaining))
        return rest

    def _bucket(self, row: int) -> int:
        return 0 if self._bucket_of is None else int(self._bucket_of[row])

    def _window(self, address: Address) -> Window:
        clip, epoch = address
        row, settings = self.row(clip), self.settings
        length, source = self.buckets[self._bucket(row)].num_frames, int(self._num_frames[row])
        step = self._step if isinstance(self._step, int) else float(np.asarray(self._step)[row])
        rng = np.random.default_rng([settings.seed, epoch, clip])
        clock = None if settings.fps is None else self._clock(row)
        if clock is None:
            windows = int(num_windows(source, length, step))
        else:
            windows = clock.num_windows(length, settings.fps or 0.0)
        if settings.windows == "random":
            start = int(rng.integers(max(1, windows)))
        else:
            before = int(self._ends[row - 1]) if row else 0
            part, parts = clip - before, int(self._ends[row]) - before
            start = start_of(windows, part, parts, step=length * step, settings=settings)
        if clock is None:
            indices = by_step(start, length, source, step, short=settings.short)
        else:
            indices = clock.clip(start, length, settings=settings)
        flip = settings.flip and rng.random() < 0.5
        crop = (0.5, 0.5) if settings.crop == "centre" else (rng.random(), rng.random())
        return Window(row, indices, crop, flip)

    def _clock(self, row: int) -> Clock | None:
        """Return when the frames of a video are shown; None where the file does not say, as for folders of pictures."""
        if not isinstance(self._step, np.ndarray) or not (info := self.videos.facts(row)):
            return None
        first, number = int(self._first[row]), int(self._num_frames[row])
        timestamps = Facts.from_bytes(info).timestamps[first : first + number]
        timed = len(timestamps) == number and bool(np.all(np.diff(timestamps) > 0))
        return Clock(timestamps) if timed else None

    def _report(self, error: VideoError) -> None:
        if error.path not in self._reported:
            self._reported.add(error.path)
            warnings.warn(f"{error}; another clip takes the place of each clip of this file", stacklevel=3)


def _later(clip: int, number: int, ends: np.ndarray) -> int:
    """Return the ``number``-th clip to try after one; ``ends`` counts the clips of each video and those before it."""
    clip = (clip + min(number, NEAR)) % int(ends[-1])
    for step in range(number - NEAR):
        row = (int(np.searchsorted(ends, clip, side="right")) + max(1, 2**step >> NUM_NEXT)) % len(ends)
        clip = int(ends[row - 1]) % int(ends[-1]) if row else 0
    return clip
