"""Opening files for PyAV: a path, an address that fsspec knows, or the bytes of a whole file.

Imports PyAV and, for addresses, fsspec. Each file is decoded by one thread: with several, the same damage looks
different each time, and there are many worker processes anyway. Every failure is a ``VideoError`` that names the file.
"""

import io
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import IO, Any

import av
from av.codec.context import Flags

from flexivid.data.storage.byte_range import is_byte_range, read_bytes
from flexivid.data.storage.errors import VideoError
from flexivid.runtime.paths import is_remote

Source = str | os.PathLike[str] | bytes
Pass = Callable[[av.VideoFrame], av.VideoFrame]
MAX_PIXELS = 1 << 26  # of a frame: a header that states more than 8K x 8K is damaged
CONTAINERS_WITH_INDEX = "mp4"
EBML, SEGMENT = 0x1A45DFA3, 0x18538067  # of Matroska
MAX_ELEMENTS = 1000  # read on one level; real files have a few
UNKNOWN = 1 << 62  # end of an element of a live stream


def name_of(source: Source) -> str:
    """Return what to call a source in messages.

    >>> name_of(b"12345"), name_of("a.mp4")
    ('<5 bytes>', 'a.mp4')
    """
    return f"<{len(source)} bytes>" if isinstance(source, bytes) else os.fspath(source)


@contextmanager
def opened(source: Source) -> Iterator[str | IO[bytes]]:
    """Yield what decoders can open: the path of a local file, or an open file object for anything else.

    >>> with opened(b"12345") as file:
    ...     file.read(2)
    b'12'
    """
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif is_byte_range(source):
        yield io.BytesIO(read_bytes(source))
    elif is_remote(source):
        import fsspec

        try:
            file = fsspec.open(os.fspath(source), "rb").open()
        except (OSError, ValueError) as error:
            raise VideoError(name_of(source), f"cannot be opened: {error}") from error
        with file:
            yield file
    else:
        yield os.fspath(source)


@contextmanager
def video_stream(source: Source) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open the main video stream of a file, to be decoded by one thread.

    ``VideoError`` if the file cannot be opened, has no video, or lacks its end.
    """
    name = name_of(source)
    with opened(source) as file:
        try:
            container = av.open(file, metadata_errors="ignore")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(name, f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
        with container:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                raise VideoError(name, "no video stream")
            if stream.codec_context is None:
                raise VideoError(name, "no decoder for its codec")
            if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
                raise VideoError(name, f"frames of {stream.codec_context.width}x{stream.codec_context.height}")
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            stream.codec_context.flags |= Flags.unaligned  # else columns that are cut off at the left are rounded
            yield container, stream  # type: ignore[misc]


def packets(container: Any, stream: av.VideoStream, name: str) -> Generator[av.Packet, None, None]:
    """Yield the packets of a stream and the empty one that ends it."""
    try:
        yield from container.demux(stream)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(name, f"reading fails: {getattr(error, 'strerror', None) or error}") from error


def decode(packet: av.Packet, name: str) -> list[av.VideoFrame]:
    """Return the frames that a packet completes; ``VideoError`` where decoding fails."""
    try:
        frames = packet.decode()
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise VideoError(name, f"decoding fails: {getattr(error, 'strerror', None) or error}") from error
    for frame in frames:
        if frame.width * frame.height > MAX_PIXELS:
            raise VideoError(name, f"frames of {frame.width}x{frame.height}")
    return frames


def decode_all(
    source: Source, *, watch: Callable[[str, av.VideoStream], Pass] | None = None
) -> Iterator[av.VideoFrame]:
    """Decode a file from its first frame to its last; slow to reach a late frame, but exact.

    ``watch`` takes the name and the stream, and returns what checks each frame, such as ``display.Watch``.
    ``VideoError`` at the frame where decoding fails or only part of the picture is there, or if there is no video.
    """
    number, name = -1, name_of(source)
    with video_stream(source) as (container, stream), closing(packets(container, stream, name)) as some:
        passed = (lambda frame: frame) if watch is None else watch(name, stream)
        for packet in some:
            try:
                frames = decode(packet, name)
            except VideoError as error:
                raise VideoError(name, f"{error.reason} after {number + 1} frames") from error
            for frame in frames:
                number += 1
                if frame.is_corrupt:
                    raise VideoError(name, f"frame {number} is damaged")
                yield passed(frame)
    if number < 0:
        raise VideoError(name, "no frame can be decoded")


def refuse_if_cut_off(source: Source, container: Any, stream: av.VideoStream) -> None:
    """Raise ``VideoError`` if a container says that it goes on beyond the end of the file.

    Such a file decodes without an error to where it was cut, which would pass for a shorter video.
    """
    stated = 0
    if "matroska" in container.format.name:
        with raw_bytes(source, container) as file:
            stated = _matroska_bytes(file)
    elif CONTAINERS_WITH_INDEX in container.format.name.split(","):
        stated = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if 0 < container.size < stated:
        raise VideoError(name_of(source), f"ends after {container.size} of {stated} bytes")


@contextmanager
def raw_bytes(source: Source, container: Any) -> Iterator[IO[bytes]]:
    """Yield the raw bytes of a file that is open for decoding, and restore its position afterwards.

    >>> with raw_bytes(b"12345", None) as file:
    ...     file.read(2)
    b'12'
    """
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif is_remote(source) or is_byte_range(source):
        file = getattr(container.file, "file", container.file)  # PyAV wraps it
        position = file.tell()
        file.seek(0)
        yield file
        file.seek(position)
    else:
        with open(source, "rb") as local:
            yield local


def _matroska_bytes(file: IO[bytes]) -> int:
    """Return the size of a Matroska file as its first two elements state it; 0 where they do not."""
    for kind, _, end in elements(file, 0, UNKNOWN):
        if kind != EBML:
            return end if kind == SEGMENT and end < UNKNOWN else 0
    return 0


def elements(file: IO[bytes], begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (kind, begin, end) of each Matroska element; the positions are those of its contents."""
    for _ in range(MAX_ELEMENTS):
        head = read_at(file, begin, 12) if begin < end else b"\0"
        if not head[0]:
            return
        width = 9 - head[0].bit_length()  # leading zeros say how many bytes a number has
        kind, rest = int.from_bytes(head[:width], "big"), head[width:]
        if width > 4 or not rest[0]:
            return
        size_width = 9 - rest[0].bit_length()
        ones = (1 << (7 * size_width)) - 1
        size = int.from_bytes(rest[:size_width], "big") & ones
        content = begin + width + size_width
        last = end if size == ones else content + size  # all ones: unknown, as in a live stream
        yield kind, content, min(last, end)
        begin = last


def read_at(file: IO[bytes], position: int, count: int) -> bytes:
    """Read ``count`` bytes, padded with zeros beyond the end of the file."""
    file.seek(position)
    return file.read(count).ljust(count, b"\0")
