"""Which videos are trained on and which are held out. No torch, no decoding."""

import numpy as np

from flexivid.data.index.videos import Videos


def hold_out(videos: Videos, *, min_frames: int) -> tuple[Videos, Videos | None]:
    """Part videos into some to train on and some to validate on, without a frame in both.

    Of several videos, one in twenty is held out, at least one, spread evenly over the list and so over the classes. A
    single video is cut: its last tenth is held out, or one clip if that is more. If it is too short for both, nothing
    is held out, and the second result is None.

    Args:
        videos: Videos that have at least one clip each.
        min_frames: Source frames that a clip spans; matters for a single video only.

    >>> film = Videos.of(["film.mp4"], num_frames=250)
    >>> [(part.first.tolist(), part.num_frames.tolist()) for part in hold_out(film, min_frames=15)]
    [([0], [225]), ([225], [25])]
    >>> [len(part) for part in hold_out(Videos.of(["film.mp4"] * 60, num_frames=250), min_frames=15)]
    [57, 3]
    """
    if len(videos) > 1:
        number = max(1, round(len(videos) / 20))
        chosen = np.zeros(len(videos), dtype=bool)
        chosen[(2 * np.arange(number) + 1) * len(videos) // (2 * number)] = True
        return videos.select(np.flatnonzero(~chosen)), videos.select(np.flatnonzero(chosen))
    num_frames = int(videos.num_frames[0])
    tail = max(num_frames // 10, min_frames)
    if num_frames - tail < min_frames:
        return videos, None
    return videos.cut(0, 0, num_frames - tail), videos.cut(0, num_frames - tail, tail)
