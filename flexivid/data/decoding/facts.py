"""The result of probing a video file: ``Facts``, packed into a few bytes a frame so that no file is probed twice.

Imports numpy. Sizes are (height, width) in pixels as displayed, unless they are called stored; times are seconds as the
file states them (they need not begin at 0).
"""

import json
import math
import zlib
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np

Size = tuple[int, int]

MAX_BYTES = 128 << 20  # when unpacked; a day at 60 frames a second, all of them key frames, takes a tenth
MAX_ASPECT = 1 << 31  # of a side, or of a pixel: a number of the file formats
MAX_PIXELS = 1 << 28  # of a picture, as in FFmpeg
MAX_TICKS = 1 << 62  # either way: differences fit into int64


@dataclass(frozen=True)
class Display:
    """How a file asks to be displayed, apart from its rotation.

    >>> Display((72, 90), aspect=(64, 45)).shown_size(0), Display((72, 90), cut=(2, 0, 0, 0)).shown_size(90)
    ((72, 128), (90, 70))
    """

    stored: Size | None = None  # (height, width) of a picture as decoded, before anything else; None: unknown
    cut: tuple[int, int, int, int] = (0, 0, 0, 0)  # hidden rows at the top and bottom, columns at the left and right
    aspect: tuple[int, int] = (1, 1)  # width of a pixel to its height
    codec_aspect: tuple[int, int] = (0, 1)  # as the codec states it at the first frame; (0, 1): it does not
    mirrored: bool = False  # left and right are swapped, before the picture is turned
    interlaced: bool = False  # a picture holds two moments, in even and in odd rows

    def shown_size(self, rotation: int, *, square_pixels: bool = True) -> Size | None:
        """Return (height, width) as displayed, turned by a multiple of 90 degrees; None if the stored size is unknown.

        Pixels are made square by the width, before the picture is turned, as video players do; else it looks distorted.
        """
        if self.stored is None:
            return None
        top, bottom, left_side, right = self.cut
        height, width = self.stored[0] - top - bottom, self.stored[1] - left_side - right
        if square_pixels:
            width = max(1, round(width * self.aspect[0] / self.aspect[1]))
        return (height, width) if rotation % 180 == 0 else (width, height)

    def is_sound(self) -> bool:
        """Whether its numbers have the declared types and leave a visible part."""
        pairs = (self.stored or (1, 1), self.cut, self.aspect, self.codec_aspect)
        plain = all(type(number) is int and 0 <= number < MAX_ASPECT for pair in pairs for number in pair)
        kinds = type(self.mirrored) is type(self.interlaced) is bool
        if not (plain and kinds and [len(pair) for pair in pairs] == [2, 4, 2, 2] and min(self.aspect) > 0):
            return False
        shown = self.shown_size(0)
        return shown is None or (min(shown) > 0 and math.prod(shown) <= MAX_PIXELS)


class Facts(NamedTuple):
    """What ``probe`` finds out about a video, so that any frame can be decoded exactly.

    >>> facts = Facts("gif", "gif", "bgra", (64, 48), 0, np.arange(5) * 40, 200, (1, 1000), np.zeros((1, 2), int))
    >>> facts.fps, facts.num_frames, facts.duration, facts.is_variable_rate
    (25.0, 5, 0.2, False)
    >>> Facts.from_bytes(facts.to_bytes()).timestamps.tolist()
    [0.0, 0.04, 0.08, 0.12, 0.16]
    """

    codec: str  # its name in FFmpeg, such as "h264"
    container: str  # likewise, such as "mov,mp4,m4a,3gp,3g2,mj2"
    pixel_format: str  # likewise, such as "yuv420p"
    size: Size  # (height, width) as displayed, or with the pixels of the file (see ``with_pixels``)
    rotation: int  # degrees to turn the decoded picture counter-clockwise: a multiple of 90
    ticks: np.ndarray  # when each visible frame is shown, in the order shown, in units of ``time_base``, (n,) int64
    end: int  # when the last frame ends, in the same unit
    time_base: tuple[int, int]  # seconds of a tick, as numerator and denominator
    # where decoding may start, (n, 2) int64; empty: at the first frame only. A row is the time stamp of a key packet
    # and the number of the first frame that is decoded correctly after it
    entries: np.ndarray
    timed: bool = True  # whether time stamps identify frames; otherwise frames are counted from the first
    skips: bool = False  # whether packets have the times of their frames, and frames that no other needs are marked
    decoder: str = "pyav"  # which decoder is exact for this file: "pyav", "decord" or "torchcodec"
    display: Display = Display()  # how else the file asks to be displayed

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
        """Whether some frame lasts a tenth longer or shorter than the median, by more than one tick."""
        steps = np.diff(self.ticks)
        return bool(len(steps)) and bool(np.abs(steps - np.median(steps)).max() > max(1, 0.1 * np.median(steps)))

    @property
    def display_words(self) -> str:
        """Describe the display in words; empty if pictures are shown as stored or only rotated.

        >>> nothing = np.zeros((1, 2), int)
        >>> facts = Facts("h264", "mp4", "yuv420p", (72, 128), 0, np.arange(5), 5, (1, 8), nothing)
        >>> facts._replace(display=Display((72, 90), aspect=(64, 45), interlaced=True)).display_words
        'stored as 90x72, pixels of 64:45, interlaced'
        """
        stored, cut, aspect = self.display.stored, self.display.cut, self.display.aspect
        words = {
            f"pixels of {aspect[0]}:{aspect[1]}": aspect[0] != aspect[1],
            f"cut by {cut[0]} rows at the top, {cut[1]} below, {cut[2]} columns left, {cut[3]} right": any(cut),
            "mirrored": self.display.mirrored,
            "interlaced": self.display.interlaced,
        }
        phrases = [text for text, is_so in words.items() if is_so]
        if stored is not None and (any(cut) or aspect[0] != aspect[1]):
            phrases = [f"stored as {stored[1]}x{stored[0]}", *phrases]
        return ", ".join(phrases)

    def with_pixels(self, *, square: bool) -> "Facts":
        """Return a copy whose size is that of square pixels, or of the file's own pixels."""
        size = self.display.shown_size(self.rotation, square_pixels=square)
        return self if size is None else self._replace(size=size)

    def to_bytes(self) -> bytes:
        """Pack into at most a few bytes a frame: second differences, which are mostly 0, compressed."""
        head = [*self[:5], self.end, self.time_base, self.timed, self.skips, self.decoder]
        head += [astuple(self.display), len(self.ticks)]
        columns = (self.ticks, *self.entries.reshape(-1, 2).T)
        steps = np.concatenate([np.diff(column, n=2, prepend=(0, 0)) for column in columns]).astype("<i8")
        planes = steps.view(np.uint8).reshape(-1, 8).T  # equal bytes side by side
        return zlib.compress(json.dumps(head).encode() + b"\n" + planes.tobytes(), 9)

    @staticmethod
    def from_bytes(blob: bytes) -> "Facts":
        """Unpack what ``to_bytes`` packed.

        ``ValueError`` if the bytes are anything else; they may come from a crashed process or a stranger's shards.
        """
        try:
            return _unpack(_inflate(blob)).check()
        except (ValueError, TypeError, IndexError, RecursionError, zlib.error) as error:
            raise ValueError(
                f"got {len(blob)} bytes that are no facts of a video ({error}); expected the result of probing it;"
                " remove the index, or write the shards anew"
            ) from error

    def check(self) -> "Facts":
        """Return itself; ``ValueError`` if a number is out of range, or of another type than it is declared with.

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
            ("display", "what a file can say of its pictures", self.display.is_sound()),
            ("codec", "names", texts and type(self.timed) is bool and type(self.skips) is bool),
        ]
        for name, expected, is_right in rules:
            if not is_right:
                value = " ".join(repr(getattr(self, name)).split())[:80]
                raise ValueError(f"got a video with {name}={value}; expected {expected}; re-encode it")
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
    codec, container, pixel_format, size, rotation, end, time_base, timed, skips, decoder, shown, n = json.loads(head)
    steps = np.frombuffer(planes, np.uint8).reshape(8, -1).T.copy().view("<i8").reshape(-1)
    k = (len(steps) - n) // 2
    ticks, clocks, firsts = (np.cumsum(np.cumsum(part)) for part in np.split(steps, [n, n + k]))
    entries = np.stack([clocks, firsts], axis=1)
    return Facts(
        *(codec, container, pixel_format, (size[0], size[1]), rotation, ticks, end, (time_base[0], time_base[1])),
        *(entries, timed, skips, decoder, _display(shown)),
    )


def _display(columns: Any) -> Display:
    """Read what JSON has made of it."""
    stored, cut, aspect, codec_aspect, mirrored, interlaced = columns
    stored = None if stored is None else tuple(stored)
    return Display(stored, tuple(cut), tuple(aspect), tuple(codec_aspect), mirrored, interlaced)
