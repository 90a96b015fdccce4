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
    """Return the number of the bucket of each video, (n,) uint8.

    Only buckets whose clips are no longer than the video are considered or, if there is none, the shortest ones. The
    one whose shape cuts least off the picture wins; of several, the longest; of these, the one with the most pixels.

    Videos have a ``size`` (height, width), (n, 2), a number of frames, (n,), and a rate, (n,), 0 where unknown. Frames
    and size in the settings do not matter.

    >>> buckets = parse_buckets([[8, 32, 32], [8, 32, 56], [32, 32, 56]])
    >>> sizes = np.array([[480, 480], [360, 640], [360, 640]])
    >>> assign(buckets, sizes, np.array([99, 99, 20]), np.full(3, 25.0), settings=ClipSettings()).tolist()
    [0, 2, 1]
    """
    step = step_of(fps, settings)
    shortest = min(bucket.num_frames for bucket in buckets)
    aspect = sizes[:, 1] / np.maximum(1, sizes[:, 0])
    ranks = np.empty((4, len(buckets), len(source_frames)))  # what decides, the least important first
    for number, bucket in enumerate(buckets):
        ratio = aspect * (bucket.height / bucket.width)
        likeness = np.minimum(ratio, 1 / np.maximum(ratio, 1e-9)) / SAME_SHAPE
        fits = num_windows(source_frames, bucket.num_frames, step) > 0
        usable = np.minimum(1, fits + 0.5 * (bucket.num_frames == shortest))
        for rank, values in enumerate((bucket.height * bucket.width, bucket.num_frames, np.round(likeness), usable)):
            ranks[rank, number] = values
    order = np.lexsort(ranks[:, ::-1], axis=0)  # reversed: of equals the first is sorted to the end
    return (len(buckets) - 1 - order[-1]).astype(np.uint8)
