"""Frames of a video file by number.

Every file is probed once, which settles how many frames it has, when each is shown, where decoding may start and which
decoder is exact. Frames are correct, or ``VideoError`` says why they cannot be decoded.

Imports PyAV and numpy. Frames are uint8 RGB, (t, h, w, 3), as a video player displays them (``display``).
Readers cannot be pickled: open them in the process that uses them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from flexivid.data.decoding.backends import DECODERS, Choice, DecordDecoder, View
from flexivid.data.decoding.container import Source, name_of
from flexivid.data.decoding.display import as_asked
from flexivid.data.decoding.facts import Facts, Size
from flexivid.data.decoding.probe import probe
from flexivid.data.storage.errors import VideoError
from flexivid.runtime.paths import resolve

MAX_OPEN = 4  # files that a process keeps open; each holds a few decoded frames of the full size


def open_video(
    source: Source,
    *,
    size: Size | None = None,
    info: Facts | None = None,
    decoder: Choice = "auto",
    square_pixels: bool = True,
) -> VideoReader:
    """Open a video file to read frames by number; ``timestamps`` says when each is shown.

    Args:
        source: Path of the file, an address that fsspec knows ("s3://...", "https://..."), or a file's bytes.
        size: (height, width) of the frames: the picture is resized until it covers this, and cut to it around its
            centre. None keeps the picture as it is displayed.
        info: Result of an earlier ``probe``.
        decoder: "pyav", "decord" or "torchcodec"; "auto" takes the one in ``info``, or the fastest that is exact.
        square_pixels: Whether a picture whose pixels are not square is resized so that they are, as video players do;
            False keeps its rows and columns as they are stored, so that it looks distorted.

    Returns:
        A reader; close it, or use it in a ``with`` block.

    Raises:
        VideoError: If the file is no video, or ``decoder`` is not exact for it.
        ValueError: If there is no such decoder, or it is not installed.

    >>> import av, tempfile
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
    source = source if isinstance(source, bytes) else resolve(source)
    if info is None or decoder not in ("auto", info.decoder):
        info = probe(source, decoder=decoder)
    return VideoReader(source, size=size, info=as_asked(source, info, square_pixels=square_pixels))


def read_clip(request: ClipRequest) -> np.ndarray:
    """Decode the frames of one clip, (t, height, width, 3) uint8; ``VideoError`` if one of them cannot be decoded."""
    info = Facts.from_bytes(request.info) if request.info else probe(request.path)
    if len(request.indices) and not 0 <= min(request.indices) <= max(request.indices) < info.num_frames:
        raise VideoError(request.path, f"no frame {max(request.indices)} among {info.num_frames}")
    is_part = len(request.indices) < info.num_frames
    if is_part and info.decoder == "decord" and os.path.exists(request.path):  # not for a shard, which may be large
        reader = _open_reader(request, info)
        try:
            frames = reader.frames(request.indices, crop=request.crop)
        except VideoError:
            _OPEN.clear()  # a reader that has failed once is not trusted again
            raise
    else:
        with VideoReader(request.path, info=info, size=request.size, kernel=request.kernel) as reader:
            frames = reader.frames(request.indices, crop=request.crop)
    return np.ascontiguousarray(frames[:, :, ::-1]) if request.flip else frames


def _open_reader(request: ClipRequest, info: Facts) -> VideoReader:
    """Return a reader that stays open: decord reads every packet of a file to open it, which may cost more than a clip.

    The reader used before decodes on in a thread of its own, so it is paused when another file is read.
    """
    key = (request.path, os.stat(request.path).st_mtime_ns, request.size)
    reader = _OPEN.pop(key, None) or VideoReader(request.path, info=info, size=request.size, kernel=request.kernel)
    for latest in list(_OPEN.values())[-1:]:
        latest.pause()
    while len(_OPEN) >= MAX_OPEN:
        _OPEN.pop(next(iter(_OPEN))).close()
    _OPEN[key] = reader
    return reader


def cover(source: Size, target: Size) -> Size:
    """Return the smallest size of the shape of ``source`` that covers ``target``, both (height, width).

    >>> cover((252, 448), (32, 32))
    (32, 57)
    """
    scale = max(target[0] / source[0], target[1] / source[1])
    return max(target[0], round(source[0] * scale)), max(target[1], round(source[1] * scale))


def cut(frames: np.ndarray, size: Size, crop: tuple[float, float]) -> np.ndarray:
    """Cut a window of a size (height, width) out of frames, (t, h, w, 3).

    ``crop`` is its place in what is cut away, down and across, from 0 to 1.

    >>> cut(np.zeros((2, 8, 8, 3), np.uint8), (8, 4), (0.5, 1.0)).shape
    (2, 8, 4, 3)
    """
    top, column = (int((have - want) * part) for have, want, part in zip(frames.shape[1:3], size, crop, strict=True))
    return frames[:, top : top + size[0], column : column + size[1]]


class VideoReader:
    """An open video. Made by ``open_video``, which explains the arguments; ``kernel`` is one of ``KERNELS``."""

    def __init__(self, source: Source, *, info: Facts, size: Size | None = None, kernel: str = "bicubic") -> None:
        self.path, self.info = name_of(source), info
        self.size = size or info.size
        self._source = source if isinstance(source, bytes) else os.fspath(source)
        self._view = View(cover(info.size, self.size), kernel)
        self._decoder: Any = None

    @property
    def num_frames(self) -> int:
        """The exact number of frames."""
        return self.info.num_frames

    @property
    def timestamps(self) -> np.ndarray:
        """When each frame is shown, in seconds as the file states them, (num_frames,) float64."""
        return self.info.timestamps

    def frames(self, indices: Iterable[int], *, crop: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
        """Return frames by number, which may repeat, in the order asked for, (t, h, w, 3) uint8.

        ``crop`` is where the window lies in the resized picture, down and across: 0 is top or left, 1 bottom or right.
        ``VideoError`` if decoding fails on the way to one of them; ``ValueError`` if there is no such frame.
        """
        numbers = np.array([int(index) for index in indices], np.int64)
        for index in numbers:
            if not 0 <= index < self.num_frames:
                raise ValueError(
                    f"got frame {index} of {self.path}; expected 0 to {self.num_frames - 1}; ask for frames that it has"
                )
        images = np.empty((len(numbers), *self.size, 3), np.uint8)
        if self._decoder is None:
            self._decoder = DECODERS[self.info.decoder](self._source, self.info, self._view)
        for index, picture in self._decoder.pictures(sorted({*numbers.tolist()})):
            images[numbers == index] = cut(picture[None], self.size, crop)
        return images

    def read(self, max_frames: int | None = None) -> np.ndarray:
        """Return all frames, or the first ``max_frames``, (t, h, w, 3) uint8; ``VideoError`` if one fails."""
        return self.frames(range(self.num_frames if max_frames is None else min(self.num_frames, max_frames)))

    def pause(self) -> None:
        """Stop decoding ahead; only decord does."""
        if isinstance(self._decoder, DecordDecoder):
            self._decoder.pause()

    def close(self) -> None:
        """Release the file."""
        if self._decoder is not None:
            self._decoder.close()
        self._decoder = None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ClipRequest(NamedTuple):
    """A request to decode one clip."""

    path: str
    info: bytes  # ``Facts.to_bytes()`` of the file; empty if it has not been probed
    indices: np.ndarray  # numbers of the frames in the file, (t,) int64; they may repeat
    size: tuple[int, int]  # (height, width) of the clip: the picture is resized to cover it, and cut
    crop: tuple[float, float] = (0.5, 0.5)  # where the window lies, down and across: 0 is top or left
    flip: bool = False  # whether the clip is mirrored left to right
    kernel: str = "bicubic"


_OPEN: dict[tuple[str, int, Size], VideoReader] = {}  # of decord; the one used last comes last
