"""Exact frames of any file by number, resized, by PyAV.

Decoding starts at a key frame that ``probe`` has verified, identifies frames by their times, and falls back to counting
from the first frame. Frames that are not asked for and that no other frame depends on are skipped, which makes this
faster than decoders that decode everything in between.

Imports PyAV and numpy. Decoders cannot be pickled.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from flexivid.data.decoding.container import Source, decode, decode_all, name_of, packets, video_stream
from flexivid.data.decoding.display import Watch
from flexivid.data.decoding.facts import Display, Facts, Size
from flexivid.data.storage.errors import VideoError

PLAIN = Display()
KERNELS = ("bicubic", "bilinear", "area", "lanczos")
NEAR = 8  # frames; up to this distance, decoding on is as fast as seeking
MAX_SEEKS = 4  # tries to land on a known key packet, each further back, before decoding from the first frame


class View(NamedTuple):
    """Size and resize filter of the decoded pictures."""

    size: Size | None = None  # (height, width) as displayed; None keeps the picture's own
    kernel: str = "bicubic"  # filter to resize with: one of ``KERNELS``


class Scaler:
    """Turns decoded frames into RGB pictures as they are displayed: cut, resized, mirrored and turned.

    >>> picture = av.VideoFrame.from_ndarray(np.full((4, 8, 3), 7, np.uint8))
    >>> Scaler(90, View((4, 2)))(picture).shape
    (4, 2, 3)
    """

    def __init__(self, rotation: int, view: View, display: Display = PLAIN) -> None:
        self._quarters, self._view, self._reformatter = rotation // 90, view, VideoReformatter()
        self._cut, self._columns = display.cut, -1 if display.mirrored else 1

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        if any(self._cut):
            frame = self._inside(frame)
        size = (frame.height, frame.width)
        height, width = (self._view.size or size)[:: -1 if self._view.size and self._quarters % 2 else 1]
        kernel = None if (height, width) == size else self._view.kernel.upper()
        frame = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=kernel)
        return np.rot90(frame.to_ndarray()[:, :: self._columns], self._quarters)

    def _inside(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the visible part, before resizing: no hidden pixel may leak into it."""
        top, bottom, left_side, right = self._cut
        picture = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        part = np.ascontiguousarray(picture[top : frame.height - bottom, left_side : frame.width - right], np.uint8)
        return av.VideoFrame.from_ndarray(part)


class PyavDecoder:
    """Exact frames of any file by PyAV; ``info`` is the result of ``probe``."""

    def __init__(self, source: Source, info: Facts, view: View) -> None:
        self._source, self._info, self._name = source, info, name_of(source)
        self._scaler = Scaler(info.rotation, view._replace(size=view.size or info.size), info.display)
        self._stack = ExitStack()
        self._run: _Run | None = None
        self._opened: Any = None  # container and stream
        self._again = False

    def pictures(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number, picture) for each of some frames, given in increasing order."""
        remaining = list(numbers)
        if self._info.timed:
            try:
                for number, frame in self._by_time(remaining):
                    remaining.remove(number)
                    yield number, self._scaler(frame)
            except VideoError:
                self.close()
        self._again = True
        if remaining:  # seeking failed
            for number, frame in self._by_count(remaining):
                yield number, self._scaler(frame)

    def close(self) -> None:
        self._run = self._opened = None
        self._stack.close()

    def _by_count(self, numbers: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        remaining, ticks = set(numbers), self._info.ticks
        for number, frame in enumerate(decode_all(self._source, watch=partial(Watch, info=self._info))):
            if number in remaining:
                if self._info.timed and (number >= len(ticks) or frame.pts != ticks[number]):
                    raise VideoError(self._name, f"frame {number} is not shown when it was before")
                remaining.remove(number)
                yield number, frame
            if not remaining:
                return
        raise VideoError(self._name, f"frame {min(remaining)} is missing")

    def _by_time(self, asked_for: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode frames in order, each from the best entry; ``VideoError`` if one is missing."""
        for group in self._groups(asked_for):
            numbers = {int(self._info.ticks[number]): number for number in group}
            if self._run is None or not self._run.can_reach(set(numbers), self._entry(group[0])):
                self._run = self._start(self._entry(group[0]))
            yield from (
                (numbers[int(frame.pts or 0)], frame) for frame in self._run.frames(set(numbers), ahead=self._again)
            )

    def _entry(self, number: int) -> int:
        """Return the last entry before a frame; -1 for the start of the file."""
        return int(np.searchsorted(self._info.entries[:, 1], number, side="right")) - 1

    def _groups(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """Split frames into groups where a seek in between is faster than decoding on."""
        group: list[int] = []
        for number in numbers:
            entry = self._entry(number)
            if group and entry >= 0 and self._info.entries[entry, 1] > group[-1] + NEAR:
                yield group
                group = []
            group.append(number)
        if group:
            yield group

    def _start(self, entry: int) -> "_Run":
        """Seek to an entry; if that fails, to an earlier one or to the start of the file."""
        entries, clocks = self._info.entries, {int(clock): i for i, clock in enumerate(self._info.entries[:, 0])}
        for tries in range(min(MAX_SEEKS, entry + 1) if entry > 0 else 0):
            container, stream = self._open(anew=False)
            watch = Watch(self._name, stream, self._info)
            target = int(entries[max(0, entry + 1 - 2**tries), 0])
            try:
                container.seek(target, stream=stream)
            except (av.FFmpegError, OSError):
                break
            stream_packets = packets(container, stream, self._name)
            for packet in stream_packets:
                reached = clocks.get(clock_of(packet) or 0, -1) if packet.is_keyframe else -1
                if reached > entry or packet.size == 0:
                    break
                if reached >= 0:
                    return _Run(self._info, watch, stream_packets, first=packet, entry=reached)
        container, stream = self._open(anew=True)
        stream_packets = packets(container, stream, self._name)
        return _Run(self._info, Watch(self._name, stream, self._info), stream_packets, first=None, entry=-1)

    def _open(self, *, anew: bool) -> Any:
        self._run = None
        if anew:
            self.close()
        if self._opened is None:
            self._opened = self._stack.enter_context(video_stream(self._source))
        return self._opened


class _Run:
    """A position in the file, reached from an entry (-1: the start of the file), from which decoding goes on.

    The packet ``first``, where there is one, comes before the others.
    """

    def __init__(self, info: Facts, watch: Watch, some: Iterator[av.Packet], *, first: Any, entry: int) -> None:
        self._info, self._watch, self._name = info, watch, watch.name
        self._packets = some if first is None else chain([first], some)
        self._start = int(info.ticks[info.entries[entry, 1]]) if entry >= 0 else None
        self._gone: set[int] = set()  # times of frames that were returned or skipped
        self._ready: list[av.VideoFrame] = []
        self._last = self._start or int(info.ticks[0])

    def can_reach(self, times: set[int], entry: int) -> bool:
        """Whether decoding on returns these frames, sooner than starting again at ``entry``."""
        here = int(np.searchsorted(self._info.ticks, self._last))
        near = entry < 0 or int(self._info.entries[entry, 1]) <= here + NEAR
        return near and not times & self._gone and (self._start is None or min(times) >= self._start)

    def frames(self, times: set[int], *, ahead: bool) -> Iterator[av.VideoFrame]:
        """Yield the frames with these times in decoding order; with ``ahead``, later ones are not skipped."""
        remaining, latest = set(times), max(times)
        while remaining:
            while self._ready:
                frame = self._ready.pop(0)
                if frame.pts is None or (self._start is not None and frame.pts < self._start):
                    continue  # shown before the key frame, and depends on frames that were not decoded
                if frame.is_corrupt:
                    raise VideoError(self._name, "a frame is damaged")
                self._gone.add(frame.pts)
                self._last = max(self._last, frame.pts)
                if frame.pts in remaining:
                    remaining.remove(frame.pts)
                    yield self._watch(frame)
            if not remaining:
                return
            packet = next(self._packets, None)
            if packet is None:
                raise VideoError(self._name, "a frame is missing")
            if self._info.skips and packet.size:
                time = packet.pts or 0
                needed = time in remaining or (ahead and time > latest)
                packet.stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
                if not needed:
                    self._gone.add(time)
            self._ready = decode(packet, self._name)


def clock_of(packet: av.Packet) -> int | None:
    """Return the time stamp that identifies a packet: presentation time or, if unknown, decoding time."""
    return packet.dts if packet.pts is None else packet.pts
