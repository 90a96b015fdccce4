"""Clips of several shapes in one run: each video goes to the bucket that keeps most of it.

Pure arithmetic on whole tables: no torch, no decoding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flexivid.data.clips.windows import ClipSettings, num_windows, step_of

SAME_SHAPE = 0.01  # kept shares of the picture that differ by less count as equal


class Bucket(NamedTuple):
    """A shape of clips."""

    num_frames: int
    height: int  # in pixels, like the width
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


def parse_buckets(buckets: Sequence[Sequence[int]]) -> tuple[Bucket, ...]:
    """Check a list of [frames, height, width]; ``ValueError`` unless each is three whole numbers from 1, and unique.

    >>> parse_buckets([[8, 32, 32], [8, 32, 56]])[1].width
    56
    """
    for bucket in buckets:
        if len(bucket) != 3 or any(not isinstance(side, int) or side < 1 for side in bucket):
            raise ValueError(
                f"got {list(bucket)} in data.buckets; expected [frames, height, width], whole numbers from 1; "
                "correct it"
            )
    parsed = tuple(Bucket(*bucket) for bucket in buckets)
    if len(set(parsed)) < len(parsed):
        raise ValueError(f"got data.buckets={list(map(list, buckets))}; expected each shape once; remove the repeats")
    return parsed


def assign(
    buckets: Sequence[Bucket], sizes: np.ndarray, source_frames: np.ndarray, fps: np.ndarray, *, settings: ClipSettings
) -> np.ndarray:
    """Choose the bucket of each video.

    Only buckets whose clips are no longer than the video are considered or, if there is none, the shortest ones. The
    one whose shape cuts least off the picture wins; of several, the longest; of these, the one with the most pixels.

    Args:
        buckets: The shapes.
        sizes: (height, width) of each video, (n, 2).
        source_frames: Frames of each, (n,).
        fps: Frames a second of each, 0 where unknown, (n,).
        settings: How clips are cut; its own frames and size do not matter.

    Returns:
        Number of the bucket of each video, (n,) uint8.

    >>> buckets = parse_buckets([[8, 32, 32], [8, 32, 56], [32, 32, 56]])
    >>> sizes = np.array([[480, 480], [360, 640], [360, 640]])
    >>> assign(buckets, sizes, np.array([99, 99, 20]), np.full(3, 25.0), settings=ClipSettings()).tolist()
    [0, 2, 1]
    """
    best = np.zeros(len(source_frames), dtype=np.uint8)
    best_rank: list[np.ndarray] = []
    step = step_of(fps, settings)
    shortest = min(bucket.num_frames for bucket in buckets)
    aspect = sizes[:, 1] / np.maximum(1, sizes[:, 0])
    for number, bucket in enumerate(buckets):
        ratio = aspect * (bucket.height / bucket.width)
        likeness = np.minimum(ratio, 1 / np.maximum(ratio, 1e-9)) / SAME_SHAPE
        fits = num_windows(source_frames, bucket.num_frames, step) > 0
        usable = fits + 0.5 * (bucket.num_frames == shortest)
        length, area = np.full(len(best), bucket.num_frames), np.full(len(best), bucket.height * bucket.width)
        rank = [np.minimum(usable, 1), np.round(likeness), length, area]
        if number == 0:
            best_rank = rank
            continue
        better, equal = np.zeros(len(best), dtype=bool), np.ones(len(best), dtype=bool)
        for new, old in zip(rank, best_rank, strict=True):
            better |= equal & (new > old)
            equal &= new == old
        best[better] = number
        best_rank = [np.where(better, new, old) for new, old in zip(rank, best_rank, strict=True)]
    return best
