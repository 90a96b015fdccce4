"""Frames of a video file, by number or all of them.

decord decodes the files it was found to count and to seek exactly (``Facts.is_plain``: ordinary H.264 in mp4, mov or
mkv), and resizes while decoding. Everything else, and whatever decord refuses, is decoded by PyAV from the first frame
on: slow to reach a late frame, but exact. Both resize with the same bicubic filter.

Imports PyAV, numpy and, on first use, decord. Frames are uint8 RGB, (t, h, w, 3), turned as they are displayed; pixels
are taken to be square. Readers cannot be pickled: open them in the process that uses them.
"""

import os
from collections.abc import Iterable, Sequence
from functools import cache
from types import ModuleType, TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from flexivid.data.probe import Facts, Size, VideoError, decode_all, probe

__all__ = ["VideoError", "VideoReader", "cover", "open_video", "read_all"]

LONGEST_SKIP = 64  # frames; further ahead, seeking to a key frame costs less than decoding what lies between


def open_video(path: str | os.PathLike[str], *, size: Size | None = None, facts: Facts | None = None) -> "VideoReader":
    """Open a video file to read frames by number.

    Args:
        path: The file.
        size: (height, width) of the frames: the picture is resized until it covers this, and cut to it around its
            centre. None keeps the picture as it is.
        facts: What ``probe`` found before, to save another look.

    Returns:
        A reader; close it, or use it in a ``with`` block.

    Raises:
        VideoError: If the file is no video.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/grey.mp4"
    >>> with av.open(path, "w") as container:
    ...     stream = container.add_stream("libx264", rate=4, options={"crf": "0"})
    ...     stream.width = stream.height = 64
    ...     for level in (0, 51, 102, 153):
    ...         picture = np.full((64, 64, 3), level, np.uint8)
    ...         container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
    ...     container.mux(stream.encode())
    >>> with open_video(path, size=(32, 48)) as reader:
    ...     print(reader.num_frames, reader.timestamps.tolist())
    ...     frames = reader.frames([3, 1])
    4 [0.0, 0.25, 0.5, 0.75]
    >>> frames.shape, (frames.mean(axis=(1, 2, 3)) / 51).round().tolist()
    ((2, 32, 48, 3), [3.0, 1.0])
    """
    return VideoReader(path, size=size, facts=facts or probe(path))


def read_all(path: str | os.PathLike[str], size: Size, *, max_frames: int | None = None) -> np.ndarray:
    """Decode a whole video, or its first frames, at one size.

    Args:
        path: The file.
        size: (height, width), as in ``open_video``.
        max_frames: Stop after so many frames.

    Returns:
        The frames, (t, height, width, 3) uint8.

    Raises:
        VideoError: If the file cannot be decoded to its end.

    >>> try:
    ...     read_all("nowhere.mp4", (32, 32))
    ... except VideoError as error:
    ...     print(error.reason)
    cannot be opened: No such file or directory
    """
    with open_video(path, size=size) as reader:
        return reader.read(max_frames)


def cover(source: Size, target: Size) -> Size:
    """Return the smallest size of the shape of ``source`` that covers ``target``, both (height, width).

    >>> cover((252, 448), (32, 32))
    (32, 57)
    """
    scale = max(target[0] / source[0], target[1] / source[1])
    return max(target[0], round(source[0] * scale)), max(target[1], round(source[1] * scale))


class VideoReader:
    """An open video. Made by ``open_video``.

    Args:
        path: The file.
        size: (height, width) of the frames, or None for the picture's own.
        facts: What ``probe`` found.
    """

    def __init__(self, path: str | os.PathLike[str], *, size: Size | None, facts: Facts) -> None:
        self.path, self.facts = os.fspath(path), facts
        self.size = size or facts.size
        self._scaled = cover(facts.size, self.size)
        self._timestamps: np.ndarray | None = None
        self._reformatter = VideoReformatter()
        self._next = 0  # the frame that decord would give next
        self._decord: Any = self._open_decord() if facts.is_plain else None

    @property
    def num_frames(self) -> int:
        """The exact number of frames; where the packets do not tell, the first use decodes the whole file."""
        return len(self.timestamps)

    @property
    def timestamps(self) -> np.ndarray:
        """When each frame is shown, in seconds as the file states them, (num_frames,) float64."""
        if self._timestamps is None:
            if self._reaches_end():
                self._timestamps = self.facts.timestamps
            else:
                self._timestamps = np.array([_time(frame) for frame in decode_all(self.path)])
        return self._timestamps

    def frames(self, indices: Iterable[int]) -> np.ndarray:
        """Return frames by number, in the order asked for, (t, h, w, 3) uint8.

        Raises:
            VideoError: If decoding fails on the way to one of them.
            ValueError: If there is no such frame.
        """
        wanted = [int(index) for index in indices]
        if min(wanted, default=0) < 0:
            raise ValueError(f"got frame {min(wanted)} of {self.path}; expected 0 or more; count from the first frame")
        if self._decord is not None and max(wanted, default=0) < len(self._decord):
            try:
                return self._by_decord(wanted)
            except _decord_errors():
                self._decord = None
        return self._by_pyav(wanted)

    def read(self, max_frames: int | None = None) -> np.ndarray:
        """Return all frames, or the first ``max_frames``, (t, h, w, 3) uint8; ``VideoError`` if one cannot be had."""
        if self._decord is not None:
            try:
                count = len(self._decord)
                return self._by_decord(range(count if max_frames is None else min(count, max_frames)))
            except _decord_errors():
                self._decord = None
        images: list[np.ndarray] = []
        for frame in decode_all(self.path):
            if len(images) == max_frames:
                break
            images.append(self._image(frame))
        return np.stack(images)

    def close(self) -> None:
        """Release the file."""
        self._decord = None

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_decord(self) -> Any:
        height, width = self._scaled
        try:
            reader = _load_decord().VideoReader(self.path, num_threads=1, width=width, height=height)
            return reader if len(reader) == self.facts.num_packets else None
        except _decord_errors():
            return None

    def _reaches_end(self) -> bool:
        """Whether decord decodes the last frame: it promises as many frames as there are packets, even damaged ones."""
        if self._decord is None:
            return False
        try:
            self._by_decord([len(self._decord) - 1])
        except _decord_errors():
            self._decord = None
        return self._decord is not None

    def _by_decord(self, wanted: Sequence[int]) -> np.ndarray:
        height, width = self._scaled
        images = np.empty((len(wanted), *self.size, 3), np.uint8)
        image = None
        for place in sorted(range(len(wanted)), key=wanted.__getitem__):
            if image is None or wanted[place] != self._next - 1:
                self._move(wanted[place])
                # decord leaves padding at the end of rows of some narrow widths (32, 48, 96) and calls it channels
                rows = self._decord.next().asnumpy().reshape(height, -1)
                image = self._crop(rows[:, : 3 * width].reshape(height, width, 3))
                self._next += 1
            images[place] = image
        return images

    def _move(self, index: int) -> None:
        if 0 < index - self._next <= LONGEST_SKIP:
            self._decord.skip_frames(index - self._next)
        elif index != self._next:
            self._decord.seek_accurate(index)
        self._next = index

    def _by_pyav(self, wanted: Sequence[int]) -> np.ndarray:
        images = np.empty((len(wanted), *self.size, 3), np.uint8)
        places: dict[int, list[int]] = {}
        for place, index in enumerate(wanted):
            places.setdefault(index, []).append(place)
        for index, frame in enumerate(decode_all(self.path)):
            if index in places:
                images[places.pop(index)] = self._image(frame)
            if not places:
                return images
        if places:
            raise ValueError(
                f"got frame {max(places)} of {self.path}; expected 0 to {index}; ask for frames that it has"
            )
        return images

    def _image(self, frame: av.VideoFrame) -> np.ndarray:
        height, width = self._scaled if self.facts.rotation % 180 == 0 else self._scaled[::-1]
        frame = self._reformatter.reformat(frame, width, height, "rgb24", interpolation="BICUBIC")
        return self._crop(np.rot90(frame.to_ndarray(), self.facts.rotation // 90))

    def _crop(self, image: np.ndarray) -> np.ndarray:
        top, left = ((have - want) // 2 for have, want in zip(self._scaled, self.size, strict=True))
        return image[top : top + self.size[0], left : left + self.size[1]]


def _time(frame: av.VideoFrame) -> float:
    return float("nan") if frame.time is None else frame.time


@cache
def _load_decord() -> ModuleType:
    import decord  # half a second, and needed for plain files only

    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _decord_errors() -> tuple[type[BaseException], ...]:
    return (_load_decord().DECORDError, RuntimeError, StopIteration, IndexError)
