"""Exact frames of any file by number, resized, by PyAV.

Decoding starts at a key frame known to be a clean start, tells frames by their time, and falls back to counting from
the first frame. Frames that nobody asked for and no other frame builds on are not decoded at all, which makes this
faster than decoders that decode all that lies between.

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
NEAR = 8  # frames; to a place to start at no further ahead than this, decoding on costs no more than seeking
MAX_SEEKS = 4  # tries to land on a known key packet, each further back, before decoding from the first frame


class View(NamedTuple):
    """How pictures come out.

    Args:
        size: (height, width) as displayed; None keeps the picture's own.
        kernel: Filter to resize with: one of ``KERNELS``.

    >>> View((32, 32)).kernel
    'bicubic'
    """

    size: Size | None = None
    kernel: str = "bicubic"


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
        """Return the part that is shown, before anything is resized: no pixel from outside must enter it."""
        top, bottom, left, right = self._cut
        whole = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        part = np.ascontiguousarray(whole[top : frame.height - bottom, left : frame.width - right], np.uint8)
        return av.VideoFrame.from_ndarray(part)


class PyavDecoder:
    """Exact frames of any file by PyAV.

    Args:
        source: The file.
        facts: What ``probe`` found.
        view: How pictures come out.
    """

    def __init__(self, source: Source, facts: Facts, view: View) -> None:
        self._source, self._facts, self._name = source, facts, name_of(source)
        self._scaler = Scaler(facts.rotation, view._replace(size=view.size or facts.size), facts.display)
        self._stack = ExitStack()
        self._run: _Run | None = None
        self._again = False

    def pictures(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number, picture) for each of some frames, given in increasing order."""
        left = list(wanted)
        if self._facts.timed:
            try:
                for number, frame in self._by_time(left):
                    left.remove(number)
                    yield number, self._scaler(frame)
            except VideoError:
                self.close()
        self._again = True
        if left:  # no luck with seeking
            for number, frame in self._by_count(left):
                yield number, self._scaler(frame)

    def close(self) -> None:
        """Release the file."""
        self._run = None
        self._stack.close()

    def _by_count(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        left, ticks = set(wanted), self._facts.ticks
        for number, frame in enumerate(decode_all(self._source, watch=partial(Watch, facts=self._facts))):
            if number in left:
                if self._facts.timed and (number >= len(ticks) or frame.pts != ticks[number]):
                    raise VideoError(self._name, f"frame {number} is not shown when it was before")
                left.remove(number)
                yield number, frame
            if not left:
                return
        raise VideoError(self._name, f"frame {min(left)} is missing")

    def _by_time(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode frames in order, from the best place to start for each; ``VideoError`` if one is not found."""
        for group in self._groups(wanted):
            numbers = {int(self._facts.ticks[number]): number for number in group}
            if self._run is None or not self._run.can_reach(set(numbers), self._entry(group[0])):
                self._run = self._start(self._entry(group[0]))
            yield from (
                (numbers[int(frame.pts or 0)], frame) for frame in self._run.frames(set(numbers), ahead=self._again)
            )

    def _entry(self, number: int) -> int:
        """Return which place to start at serves a frame; -1 for the first frame of the file."""
        return int(np.searchsorted(self._facts.entries[:, 1], number, side="right")) - 1

    def _groups(self, wanted: Sequence[int]) -> Iterator[list[int]]:
        """Part frames into runs between which seeking pays."""
        group: list[int] = []
        for number in wanted:
            entry = self._entry(number)
            if group and entry >= 0 and self._facts.entries[entry, 1] > group[-1] + NEAR:
                yield group
                group = []
            group.append(number)
        if group:
            yield group

    def _start(self, entry: int) -> "_Run":
        """Go to a place to start at, or to an earlier one, or to the start of the file."""
        entries, clocks = self._facts.entries, {int(clock): i for i, clock in enumerate(self._facts.entries[:, 0])}
        for tries in range(min(MAX_SEEKS, entry + 1) if entry > 0 else 0):
            container, stream = self._open(anew=False)
            target = int(entries[max(0, entry + 1 - 2**tries), 0])
            try:
                container.seek(target, stream=stream)
            except (av.FFmpegError, OSError):
                break
            some = packets(container, stream, self._name)
            for packet in some:
                found = clocks.get(clock_of(packet) or 0, -1) if packet.is_keyframe else -1
                if found > entry or packet.size == 0:
                    break
                if found >= 0:
                    return _Run(self._facts, self._watch(stream), some, first=packet, entry=found)
        container, stream = self._open(anew=True)
        some = packets(container, stream, self._name)
        return _Run(self._facts, self._watch(stream), some, first=None, entry=-1)

    def _watch(self, stream: av.VideoStream) -> Watch:
        return Watch(self._name, stream, self._facts)

    def _open(self, *, anew: bool) -> Any:
        self._run = None
        if anew or not hasattr(self, "_opened"):
            self._stack.close()
            self._opened = self._stack.enter_context(video_stream(self._source))
            self._stack.callback(lambda: self.__dict__.pop("_opened"))
        return self._opened


class _Run:
    """Decoding from one place onwards.

    Args:
        facts: What ``probe`` found.
        watch: What its frames are passed through; knows what the file is called.
        some: Its packets after ``first``.
        first: The packet to start with; None is the first of ``some``.
        entry: Which of the places to start at this is; -1 for the first frame of the file.
    """

    def __init__(self, facts: Facts, watch: Watch, some: Iterator[av.Packet], *, first: Any, entry: int) -> None:
        self._facts, self._watch, self._name = facts, watch, watch.name
        self._packets = some if first is None else chain([first], some)
        self._start = int(facts.ticks[facts.entries[entry, 1]]) if entry >= 0 else None
        self._gone: set[int] = set()  # times that came out, or were given up before
        self._ready: list[av.VideoFrame] = []
        self._last = self._start or int(facts.ticks[0])

    def can_reach(self, wanted: set[int], entry: int) -> bool:
        """Whether decoding on gives these frames, and sooner than a start at ``entry`` would."""
        here = int(np.searchsorted(self._facts.ticks, self._last))
        near = entry < 0 or int(self._facts.entries[entry, 1]) <= here + NEAR
        return near and not wanted & self._gone and (self._start is None or min(wanted) >= self._start)

    def frames(self, wanted: set[int], *, ahead: bool) -> Iterator[av.VideoFrame]:
        """Yield the frames of some times as they come; ``ahead`` keeps those after them for the next call."""
        left, latest = set(wanted), max(wanted)
        while left:
            while self._ready:
                frame = self._ready.pop(0)
                if frame.pts is None or (self._start is not None and frame.pts < self._start):
                    continue  # shown before the key frame: lacks what it builds on
                if frame.is_corrupt:
                    raise VideoError(self._name, "a frame is damaged")
                self._gone.add(frame.pts)
                self._last = max(self._last, frame.pts)
                if frame.pts in left:
                    left.remove(frame.pts)
                    yield self._watch(frame)
            if not left:
                return
            packet = next(self._packets, None)
            if packet is None:
                raise VideoError(self._name, "a frame is missing")
            if self._facts.skips and packet.size:
                time = packet.pts or 0
                needed = time in left or (ahead and time > latest)
                packet.stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
                if not needed:
                    self._gone.add(time)
            self._ready = decode(packet, self._name)


def clock_of(packet: av.Packet) -> int | None:
    """Return the time stamp that tells a packet from others: when it is shown or, where unknown, decoded."""
    return packet.dts if packet.pts is None else packet.pts
