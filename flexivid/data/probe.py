"""What a look at a video file's packets and first frame tells, without decoding the rest.

Imports PyAV and numpy only. Sizes are (height, width) in pixels as displayed, times are seconds as the file states them
(they need not begin at 0). Every failure is a ``VideoError`` that names the file.
"""

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import NamedTuple

import av
import numpy as np

Size = tuple[int, int]


class VideoError(ValueError):
    """A file that cannot be decoded as a video, and why.

    Args:
        path: The file.
        reason: What went wrong, in a few words.

    >>> str(VideoError("a.mp4", "no video stream"))
    'got a.mp4: no video stream; expected a video that decodes to its end; re-encode or remove the file'
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(os.fspath(path), reason)
        self.path, self.reason = os.fspath(path), reason

    def __str__(self) -> str:
        return f"got {self.path}: {self.reason}; expected a video that decodes to its end; re-encode or remove the file"


class Facts(NamedTuple):
    """What is known of a video before its frames are decoded.

    Args:
        codec: Its name in FFmpeg: "h264", "vp9", ...
        container: Likewise: "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", ...
        pixel_format: Likewise: "yuv420p", ...
        timestamps: Display time of each packet in seconds, sorted, (packets,) float64.
        num_hidden: Packets that give no frame to show (an edit list cuts them off), or have no time of their own.
        is_open: Whether pictures that are shown before a key frame follow it in the file: after a seek to that frame
            they lack what they build on, and come out wrong.
        rotation: Degrees to turn the decoded picture counter-clockwise: a multiple of 90.
        size: (height, width) as displayed.

    >>> Facts("h264", "mov,mp4", "yuv420p", np.arange(5) / 25, 0, False, 90, (568, 320)).fps
    25.0
    """

    codec: str
    container: str
    pixel_format: str
    timestamps: np.ndarray
    num_hidden: int
    is_open: bool
    rotation: int
    size: Size

    @property
    def num_packets(self) -> int:
        """Packets of the video stream; the number of frames in a plain file."""
        return len(self.timestamps) + self.num_hidden

    @property
    def fps(self) -> float:
        """Mean frames a second; 0 where the times do not tell."""
        if len(self.timestamps) < 2 or self.timestamps[-1] <= self.timestamps[0]:
            return 0.0
        return float((len(self.timestamps) - 1) / (self.timestamps[-1] - self.timestamps[0]))

    @property
    def is_plain(self) -> bool:
        """Whether packets and frames correspond one to one: 8-bit 4:2:0 H.264 in mp4, mov or mkv without surprises.

        These are the files that decord was found to count and to seek exactly (see the tests).
        """
        return (
            self.codec == "h264"
            and bool({"mp4", "matroska"} & set(self.container.split(",")))
            and self.pixel_format in ("yuv420p", "yuvj420p")
            and self.num_hidden == 0
            and not self.is_open
            and self.rotation == 0
        )


def probe(path: str | os.PathLike[str]) -> Facts:
    """Read all packets of a file, which is cheap, and decode its first frame.

    Args:
        path: The file.

    Returns:
        What was found.

    Raises:
        VideoError: If the file cannot be opened or has no video, or if no frame comes out of it.

    >>> try:
    ...     probe("nowhere.mp4")
    ... except VideoError as error:
    ...     print(error.reason)
    cannot be opened: No such file or directory
    """
    times: list[float] = []
    num_packets, first, is_open, key_pts = 0, None, False, None
    with closing(_packets(path, threads="NONE")) as packets:
        for packet in packets:
            if first is None:
                codec, container = packet.stream.codec_context.name, packet.stream.container.format.name
                first = next(iter(_decode(packet, path, after=0)), None)
            num_packets += packet.size > 0  # an empty packet ends the stream
            if packet.size == 0 or packet.pts is None or packet.is_discard:
                continue
            times.append(float(packet.pts * packet.time_base))
            is_open |= key_pts is not None and packet.pts < key_pts
            key_pts = packet.pts if packet.is_keyframe else key_pts
    if first is None:
        raise VideoError(path, "no frame can be decoded")
    rotation = round(first.rotation / 90) * 90
    size = (first.height, first.width) if rotation % 180 == 0 else (first.width, first.height)
    timestamps = np.unique(times)
    hidden = num_packets - len(timestamps)
    return Facts(codec, container, first.format.name, timestamps, hidden, is_open, rotation, size)


def decode_all(path: str | os.PathLike[str]) -> Iterator[av.VideoFrame]:
    """Decode a file from its first frame to its last with PyAV; slow to reach a late frame, but exact.

    Raises:
        VideoError: At the frame where decoding fails, or at once if there is no video.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/grey.gif"
    >>> with av.open(path, "w") as container:
    ...     stream = container.add_stream("gif", rate=10)
    ...     stream.width, stream.height, stream.pix_fmt = 8, 6, "gray"
    ...     for level in (0, 128, 255):
    ...         frame = av.VideoFrame.from_ndarray(np.full((6, 8), level, np.uint8), "gray")
    ...         container.mux(stream.encode(frame))
    ...     container.mux(stream.encode())
    >>> [int(frame.to_ndarray(format="gray").mean()) for frame in decode_all(path)]
    [0, 128, 255]
    """
    num_frames = 0
    with closing(_packets(path, threads="AUTO")) as packets:
        for packet in packets:
            frames = _decode(packet, path, after=num_frames)
            num_frames += len(frames)
            yield from frames
    if num_frames == 0:
        raise VideoError(path, "no frame can be decoded")


def _decode(packet: av.Packet, path: str | os.PathLike[str], *, after: int) -> list[av.VideoFrame]:
    try:
        return packet.decode()
    except av.FFmpegError as error:
        raise VideoError(path, f"decoding fails after {after} frames: {error.strerror}") from error


def _packets(path: str | os.PathLike[str], *, threads: str) -> Generator[av.Packet, None, None]:
    """Yield the packets of the main video stream and the empty one that ends it; the file is open meanwhile."""
    try:
        container = av.open(os.fspath(path), metadata_errors="ignore")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(path, f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    with container:
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream):
            raise VideoError(path, "no video stream")
        stream.thread_type = threads
        try:
            yield from container.demux(stream)
        except av.FFmpegError as error:
            raise VideoError(path, f"reading fails: {error.strerror}") from error
