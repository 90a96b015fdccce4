"""Decoded frames in memory, so that a clip of a small set is a copy of a few kilobytes.

Small videos at training size take little room (16 frames of 32x32 are 48 KiB), so many sets fit. The pixels are those
that decoding each clip would give: frames are kept as large as their clips are cut from.
"""

from collections.abc import Iterator
from copy import copy

import numpy as np

from flexivid.data.decoding.probe import VideoError
from flexivid.data.decoding.reader import ClipRequest
from flexivid.data.index.videos import Videos
from flexivid.data.workers.pool import DecodePool, outcomes
from flexivid.runtime.console import track

CHUNK_FRAMES = 512  # of a request: a long video must not take longer than is allowed for one request,
CHUNK_BYTES = 64 << 20  # nor a large one more memory
SECONDS_PER_VIDEO, SECONDS_PER_PIXEL = 5e-3, 2e-9  # to decode, on one core: h264 of 320x240 to 1080p measured


class FrameCache:
    """All frames of the smallest videos of a table, in one block of memory of at most ``max_bytes``.

    A video has ``num_frames``, (n,), and (height, width) here, (n, 2); 0: it is not kept.

    >>> cache = FrameCache(np.array([9, 2]), np.array([[4, 4], [4, 4]]), max_bytes=100)
    >>> cache.rows.tolist(), cache.num_bytes
    ([1], 96)
    >>> cache.put(1, 0, np.ones((2, 4, 4, 3), np.uint8))
    >>> cache.frames(0), cache.frames(1).shape
    (None, (2, 4, 4, 3))
    """

    def __init__(self, num_frames: np.ndarray, sizes: np.ndarray, *, max_bytes: int) -> None:
        num_bytes = num_frames.astype(np.int64) * sizes[:, 0] * sizes[:, 1] * 3
        order = np.argsort(num_bytes, kind="stable")
        order = order[num_bytes[order] > 0]
        fitting = int(np.searchsorted(np.cumsum(num_bytes[order]), max_bytes, side="right"))
        self.rows = np.sort(order[:fitting])
        self._ends = np.cumsum(num_bytes[self.rows])
        self._num_frames, self._sizes = num_frames[self.rows], sizes[self.rows]
        self._missing = self._num_frames.astype(np.int64)
        self._block = np.empty(int(self._ends[-1]) if len(self._ends) else 0, dtype=np.uint8)

    @property
    def num_bytes(self) -> int:
        return self._block.nbytes

    def put(self, row: int, first: int, frames: np.ndarray) -> None:
        """Keep frames of a video from number ``first`` on, (t, h, w, 3) uint8; each of them is given once."""
        position = self._place(row)
        assert position is not None
        self._view(position)[first : first + len(frames)] = frames
        self._missing[position] -= len(frames)

    def frames(self, row: int) -> np.ndarray | None:
        """Return all frames of a video, or None unless they are all here."""
        position = self._place(row)
        return None if position is None or self._missing[position] else self._view(position)

    def select(self, rows: np.ndarray) -> "FrameCache":
        """Return the same memory for a table of some of the rows, which are renumbered."""
        copied = copy(self)
        selected = np.isin(self.rows, rows)
        copied.rows = np.searchsorted(rows, self.rows[selected])
        copied._ends, copied._num_frames = self._ends[selected], self._num_frames[selected]
        copied._sizes, copied._missing = self._sizes[selected], self._missing[selected]
        return copied

    def _place(self, row: int) -> int | None:
        position = int(np.searchsorted(self.rows, row))
        return position if position < len(self.rows) and self.rows[position] == row else None

    def _view(self, position: int) -> np.ndarray:
        shape = (int(self._num_frames[position]), int(self._sizes[position, 0]), int(self._sizes[position, 1]), 3)
        end = int(self._ends[position])
        return self._block[end - shape[0] * shape[1] * shape[2] * 3 : end].reshape(shape)


def seconds_to_read(videos: Videos) -> float:
    """Estimate how long decoding all videos takes on one core.

    >>> round(seconds_to_read(Videos.of(["a.mp4"] * 1000, num_frames=100, height=100, width=100)), 3)
    7.0
    """
    pixels = videos.num_frames.astype(np.float64) * videos.heights * videos.widths
    return len(videos) * SECONDS_PER_VIDEO + float(pixels.sum()) * SECONDS_PER_PIXEL


def fill(
    cache: FrameCache, videos: Videos, sizes: np.ndarray, *, kernel: str, pool: DecodePool, progress: bool = True
) -> dict[int, str]:
    """Decode the videos that a cache has room for, and return the rows that cannot be decoded, and why.

    ``videos`` is the whole table, and ``sizes`` are the (height, width) that its frames are kept at, (n, 2).
    """

    def asked() -> Iterator[tuple[tuple[int, int], ClipRequest]]:
        for row in track(cache.rows.tolist(), "reading videos", hidden=not progress or len(cache.rows) == 0):
            for request in runs(videos, row, tuple(sizes[row].tolist()), kernel=kernel):
                yield (row, int(request.indices[0] - videos.first[row])), request

    failed: dict[int, str] = {}
    for (row, first), outcome in outcomes(asked(), pool):
        if isinstance(outcome, VideoError):
            failed.setdefault(row, outcome.reason)
        else:
            cache.put(row, first, outcome)
    return failed


def runs(
    videos: Videos, row: int, size: tuple[int, int], *, kernel: str = "bicubic", max_frames: int = CHUNK_FRAMES
) -> Iterator[ClipRequest]:
    """Yield requests that together are all frames of a video, at (height, width); none takes long or much memory.

    >>> [len(run.indices) for run in runs(Videos.of(["a.mp4"], num_frames=1100), 0, (32, 32))]
    [512, 512, 76]
    """
    path, info, number = videos.path(row), videos.facts(row), int(videos.num_frames[row])
    chunk = max(1, min(max_frames, CHUNK_BYTES // (size[0] * size[1] * 3)))
    for first in range(0, number, chunk):
        indices = int(videos.first[row]) + np.arange(first, min(number, first + chunk))
        yield ClipRequest(path, info, indices, size, kernel=kernel)
