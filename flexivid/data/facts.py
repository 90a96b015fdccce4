"""What is known of a video file once it has been looked at, and the error that says why one is refused.

Imports numpy. Sizes are (height, width) in pixels as displayed, times are seconds as the file states them (they need
not begin at 0). Facts are kept in an index as a few bytes a frame, so that no file is looked at twice.
"""

import json
import math
import os
import zlib
from typing import NamedTuple

import numpy as np

from flexivid.files.printable import printable

Size = tuple[int, int]

MAX_BYTES = 128 << 20  # of facts when unpacked: a day of 60 frames a second, each a place to start at, takes a tenth
MAX_PIXELS = 1 << 28  # of a picture, as in FFmpeg
MAX_TICKS = 1 << 62  # either way: differences fit into int64


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
        name, reason = printable(self.path), printable(self.reason)
        return f"got {name}: {reason}; expected a video that decodes to its end; re-encode or remove the file"


class Facts(NamedTuple):
    """What is known of a video before its frames are decoded.

    Args:
        codec: Its name in FFmpeg: "h264", "vp9", ...
        container: Likewise: "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", ...
        pixel_format: Likewise: "yuv420p", ...
        size: (height, width) as displayed.
        rotation: Degrees to turn the decoded picture counter-clockwise: a multiple of 90.
        ticks: When each visible frame is shown, in the order shown, in units of ``time_base``, (frames,) int64.
        end: When the last frame ends, in the same unit.
        time_base: Seconds of a tick, as numerator and denominator.
        entries: Places to start decoding at: the time stamp of a key packet, and the number of the first frame that
            comes out right from there, (places, 2) int64. Without any, decoding starts at the first frame.
        timed: Whether a frame can be told by its time; otherwise it is counted from the first.
        skips: Whether a packet bears the time of its frame and its codec says which frames no other builds on.
        decoder: Which decoder is exact for this file: "pyav", "decord" or "torchcodec".

    >>> facts = Facts("gif", "gif", "bgra", (64, 48), 0, np.arange(5) * 40, 200, (1, 1000), np.zeros((1, 2), int))
    >>> facts.fps, facts.num_frames, facts.duration, facts.is_variable_rate
    (25.0, 5, 0.2, False)
    >>> Facts.from_bytes(facts.to_bytes()).timestamps.tolist()
    [0.0, 0.04, 0.08, 0.12, 0.16]
    """

    codec: str
    container: str
    pixel_format: str
    size: Size
    rotation: int
    ticks: np.ndarray
    end: int
    time_base: tuple[int, int]
    entries: np.ndarray
    timed: bool = True
    skips: bool = False
    decoder: str = "pyav"

    @property
    def num_frames(self) -> int:
        """The number of visible frames."""
        return len(self.ticks)

    @property
    def timestamps(self) -> np.ndarray:
        """When each frame is shown, in seconds as the file states them, (num_frames,) float64."""
        return self.ticks * self.time_base[0] / self.time_base[1]

    @property
    def duration(self) -> float:
        """Seconds from the first frame's begin to the last frame's end."""
        return float(self.end - self.ticks[0]) * self.time_base[0] / self.time_base[1]

    @property
    def fps(self) -> float:
        """Mean frames a second; 0 where the times do not tell."""
        if len(self.ticks) < 2 or self.ticks[-1] <= self.ticks[0]:
            return 0.0
        return float((len(self.ticks) - 1) / ((self.ticks[-1] - self.ticks[0]) * self.time_base[0] / self.time_base[1]))

    @property
    def is_variable_rate(self) -> bool:
        """Whether some frame is shown more than a tenth longer or shorter than the others, rounding to ticks aside."""
        steps = np.diff(self.ticks)
        return bool(len(steps)) and bool(np.abs(steps - np.median(steps)).max() > max(1, 0.1 * np.median(steps)))

    def to_bytes(self) -> bytes:
        """Pack into a few bytes a frame or less: differences of differences, which are mostly 0, compressed."""
        head = [*self[:5], self.end, self.time_base, self.timed, self.skips, self.decoder, len(self.ticks)]
        columns = (self.ticks, *self.entries.reshape(-1, 2).T)
        steps = np.concatenate([np.diff(column, n=2, prepend=(0, 0)) for column in columns]).astype("<i8")
        planes = steps.view(np.uint8).reshape(-1, 8).T  # equal bytes side by side
        return zlib.compress(json.dumps(head).encode() + b"\n" + planes.tobytes(), 9)

    @staticmethod
    def from_bytes(blob: bytes) -> "Facts":
        """Unpack what ``to_bytes`` packed.

        Raises:
            ValueError: If it is anything else: facts come from decode processes and from other people's shards.
        """
        try:
            return _unpack(_inflate(blob)).check()
        except (ValueError, TypeError, IndexError, RecursionError, zlib.error) as error:
            raise ValueError(
                f"got {len(blob)} bytes that are no facts of a video ({error}); expected what a look at it told; remove"
                " the index, or write the shards anew"
            ) from error

    def check(self) -> "Facts":
        """Return itself.

        Raises:
            ValueError: If a number is out of range, or of another type than it is declared with.

        >>> Facts("gif", "gif", "bgra", (64, -48), 0, np.arange(5), 5, (1, 10), np.zeros((1, 2), int)).check()
        Traceback (most recent call last):
        ...
        ValueError: got a video with size=(64, -48); expected at most 268435456 pixels; re-encode it
        """
        sides, ticks, firsts = self.size, self.ticks, self.entries.reshape(-1, 2)[:, 1]
        plain = all(type(number) is int for number in (*sides, *self.time_base, self.rotation, self.end))
        texts = all(isinstance(text, str) and len(text) < 256 for text in (*self[:3], self.decoder))
        rules = [
            ("size", f"at most {MAX_PIXELS} pixels", plain and min(sides) > 0 and math.prod(sides) <= MAX_PIXELS),
            ("rotation", "a multiple of 90", plain and self.rotation % 90 == 0 and abs(self.rotation) < 360),
            ("time_base", "two numbers above 0", plain and 0 < min(self.time_base) <= max(self.time_base) < 1 << 32),
            ("end", "a time after the last frame", plain and len(ticks) > 0 and ticks[-1] <= self.end < MAX_TICKS),
            ("ticks", "times in order", len(ticks) > 0 and ticks[0] > -MAX_TICKS and bool((np.diff(ticks) >= 0).all())),
            ("entries", "numbers of its frames", bool(((firsts >= 0) & (firsts < len(ticks))).all())),
            ("codec", "names", texts and type(self.timed) is bool and type(self.skips) is bool),
        ]
        for name, expected, is_right in rules:
            if not is_right:
                found = " ".join(repr(getattr(self, name)).split())[:80]
                raise ValueError(f"got a video with {name}={found}; expected {expected}; re-encode it")
        return self


def _inflate(blob: bytes) -> bytes:
    """Decompress, but not a few bytes into gigabytes."""
    stream = zlib.decompressobj()
    content = stream.decompress(blob, MAX_BYTES)
    if not stream.eof:
        raise ValueError(f"cut off, or more than {MAX_BYTES} bytes")
    return content


def _unpack(content: bytes) -> Facts:
    head, _, planes = content.partition(b"\n")
    codec, container, pixel_format, size, rotation, end, time_base, timed, skips, decoder, n = json.loads(head)
    steps = np.frombuffer(planes, np.uint8).reshape(8, -1).T.copy().view("<i8").reshape(-1)
    k = (len(steps) - n) // 2
    ticks, clocks, firsts = (np.cumsum(np.cumsum(part)) for part in np.split(steps, [n, n + k]))
    entries = np.stack([clocks, firsts], axis=1)
    return Facts(
        *(codec, container, pixel_format, (size[0], size[1]), rotation, ticks, end, (time_base[0], time_base[1])),
        *(entries, timed, skips, decoder),
    )
