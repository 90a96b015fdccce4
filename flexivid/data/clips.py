"""Which frames make a clip. Pure arithmetic: no torch, no decoding.

A clip is ``length`` frames, ``stride`` source frames apart, so it spans ``(length - 1) * stride + 1`` source frames. A
video that is shorter than the span has no clip; with ``loop`` it has one, which starts again at the first frame.
"""

import numpy as np


def span_of(length: int, *, stride: int) -> int:
    """Return how many source frames a clip spans.

    >>> span_of(8, stride=2)
    15
    """
    return (length - 1) * stride + 1


def num_windows(num_frames: int, length: int, *, stride: int) -> int:
    """Return at how many places of a video a clip can start; 0 when the video is too short.

    Args:
        num_frames: Frames of the video.
        length: Frames of a clip.
        stride: Distance of the clip's frames in source frames.

    >>> num_windows(16, 8, stride=2), num_windows(14, 8, stride=2)
    (2, 0)
    """
    return max(0, num_frames - span_of(length, stride=stride) + 1)


def window_indices(start: int, length: int, *, stride: int) -> np.ndarray:
    """Return the source frames of a clip, (length,) int64.

    >>> window_indices(3, 4, stride=2).tolist()
    [3, 5, 7, 9]
    """
    return np.arange(start, start + length * stride, stride)


def clips_per_epoch(num_frames: int, length: int, *, stride: int, loop: bool = False) -> int:
    """Return how many clips of a video belong to one epoch.

    As many as follow each other without a common frame, so that each second of footage counts the same in a short
    video and in a film; at least one where a clip fits; none in a video that is too short, or one with ``loop``.

    >>> [clips_per_epoch(n, 8, stride=2) for n in (14, 15, 40, 14315)]
    [0, 1, 2, 894]
    """
    if num_windows(num_frames, length, stride=stride) == 0:
        return int(loop and num_frames > 0)
    return max(1, num_frames // (length * stride))


def random_start(num_frames: int, length: int, *, stride: int, rng: np.random.Generator) -> int:
    """Draw where a clip starts, every place being equally likely; 0 in a video that is too short.

    >>> random_start(100, 8, stride=2, rng=np.random.default_rng(0))
    73
    """
    return int(rng.integers(max(1, num_windows(num_frames, length, stride=stride))))


def central_start(num_frames: int, length: int, *, stride: int, part: int = 0, num_parts: int = 1) -> int:
    """Return where the clip in the middle of one part of a video starts.

    Args:
        num_frames: Frames of the video.
        length: Frames of a clip.
        stride: Distance of the clip's frames in source frames.
        part: Number of the part, from 0.
        num_parts: Equal parts that the places to start at are cut into.

    >>> central_start(17, 8, stride=1), [central_start(107, 8, stride=1, part=i, num_parts=2) for i in range(2)]
    (5, [25, 75])
    """
    return max(0, (2 * part + 1) * num_windows(num_frames, length, stride=stride) // (2 * num_parts))
