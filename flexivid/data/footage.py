"""Look at every video once, up front: decode it into memory while there is room, and sort out what cannot be decoded.

No torch. Small videos at training size take little room (16 frames of 32x32 are 48 KiB), so many sets fit, and a clip
is then a copy of a few kilobytes. Videos beyond the limit keep what was found about them and are decoded clip by clip.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from rich.progress import track

from flexivid.data.decode import open_video
from flexivid.data.manifest import VideoItem
from flexivid.data.probe import Facts, Size, VideoError


class Video(NamedTuple):
    """A video, or a run of frames of it, that can be trained on.

    Args:
        path: The file.
        label: Number of its class, or -1.
        num_frames: Frames of this run.
        fps: Mean frames a second; 0 where unknown.
        frames: All frames of the file at the size asked for, (t, h, w, 3) uint8; None if they are not kept in memory.
        facts: What saves a second look at a file that is not kept in memory.
        first: Number of the first frame of this run in the file.

    >>> Video(Path("a.mp4"), label=0, num_frames=250, fps=25.0).num_frames
    250
    """

    path: Path
    label: int
    num_frames: int
    fps: float
    frames: np.ndarray | None = None
    facts: Facts | None = None
    first: int = 0

    def read(self, indices: np.ndarray, *, size: Size) -> np.ndarray:
        """Return frames of this run by number, (t, h, w, 3) uint8, from memory or from the file.

        Raises:
            VideoError: If the file cannot be decoded up to them.
        """
        if self.frames is not None:
            return self.frames[indices + self.first]
        with open_video(self.path, size=size, facts=self.facts) as reader:
            return reader.frames(indices + self.first)


class BadVideo(NamedTuple):
    """A file that cannot be decoded, and why.

    >>> BadVideo("a.mp4", "no video stream").reason
    'no video stream'
    """

    path: str
    reason: str


class Footage(NamedTuple):
    """The videos that can be decoded, in the order given, and the files that cannot.

    >>> len(Footage(videos=(), bad=(BadVideo("a.mp4", "no video stream"),)).bad)
    1
    """

    videos: tuple[Video, ...]
    bad: tuple[BadVideo, ...]

    @property
    def num_bytes(self) -> int:
        """Memory that the frames take."""
        return sum(video.frames.nbytes for video in self.videos if video.frames is not None)


def prepare(
    items: Iterable[VideoItem], *, size: Size, max_bytes: int, num_threads: int | None = None, progress: bool = True
) -> Footage:
    """Look at every video, and decode it whole while there is room.

    Args:
        items: The videos.
        size: (height, width) of the frames kept.
        max_bytes: Room for frames in memory. Which videos get it may differ from run to run, their pixels do not.
        num_threads: Files that are decoded at the same time; one for each core by default.
        progress: Whether to show a progress bar.

    >>> prepare([VideoItem(Path("nowhere.mp4"), 0, "")], size=(32, 32), max_bytes=0, progress=False).bad
    (BadVideo(path='nowhere.mp4', reason='cannot be opened: No such file or directory'),)
    """
    items, room = list(items), _Room(max_bytes)
    pool = ThreadPoolExecutor(num_threads or os.cpu_count())
    try:
        found = pool.map(lambda item: _look(item, size, room=room), items)
        looks = list(track(found, "reading videos", total=len(items), disable=not progress))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the rest
    return Footage(
        videos=tuple(look for look in looks if isinstance(look, Video)),
        bad=tuple(look for look in looks if isinstance(look, BadVideo)),
    )


def hold_out(videos: Sequence[Video], *, min_frames: int) -> tuple[list[Video], list[Video]]:
    """Part videos into some to train on and some to validate on, without a frame in both.

    Of several videos, one in twenty is held out, at least one, spread evenly over the list and so over the classes. A
    single video is cut: its last tenth is held out, or one clip if that is more. One too short for both is trained on.

    Args:
        videos: Videos that have at least one clip each.
        min_frames: Source frames that a clip spans.

    Returns:
        Videos to train on, videos held out.

    >>> film = Video(Path("film.mp4"), label=-1, num_frames=250, fps=25.0)
    >>> [(video.first, video.num_frames) for part in hold_out([film], min_frames=15) for video in part]
    [(0, 225), (225, 25)]
    >>> [len(part) for part in hold_out([film] * 60, min_frames=15)]
    [57, 3]
    """
    if len(videos) > 1:
        number = max(1, round(len(videos) / 20))
        chosen = {(2 * i + 1) * len(videos) // (2 * number) for i in range(number)}
        return (
            [video for i, video in enumerate(videos) if i not in chosen],
            [video for i, video in enumerate(videos) if i in chosen],
        )
    (video,) = videos
    tail = max(video.num_frames // 10, min_frames)
    if video.num_frames - tail < min_frames:
        return [video], []
    head = video.num_frames - tail
    return [video._replace(num_frames=head)], [video._replace(first=video.first + head, num_frames=tail)]


class _Room:
    """Memory that threads take parts of."""

    def __init__(self, num_bytes: int) -> None:
        self._left, self._lock = num_bytes, Lock()

    def take(self, num_bytes: int) -> bool:
        with self._lock:
            fits = num_bytes <= self._left
            self._left -= num_bytes * fits
            return fits


def _look(item: VideoItem, size: Size, *, room: _Room) -> Video | BadVideo:
    try:
        with open_video(item.path, size=size) as reader:
            if room.take(reader.facts.num_packets * size[0] * size[1] * 3):
                frames = reader.read()
                return Video(item.path, item.label, len(frames), reader.facts.fps, frames=frames)
            return Video(item.path, item.label, reader.num_frames, reader.facts.fps, facts=reader.facts)
    except VideoError as error:
        return BadVideo(str(item.path), error.reason)
