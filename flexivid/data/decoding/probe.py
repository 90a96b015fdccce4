"""Probe a video file once: read all its packets, decode a few frames, and test whether seeking is exact.

In common files, the packets state when every frame is shown. Short files, and files whose packets do not state it
(hidden frames, packets without times, transport streams), are decoded completely instead. Then frames decoded after a
seek are compared with the same frames decoded in sequence: decoding will start only where both agree. The result is
``Facts``, which the index keeps.

Imports PyAV and numpy, and another decoder only to compare it with PyAV.
"""

import zlib
from collections.abc import Iterable
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import av
import numpy as np
from av.codec.context import Flags

from flexivid.data.decoding.backends import DECODERS, refuse_decoder
from flexivid.data.decoding.container import (
    Source,
    decode,
    decode_all,
    name_of,
    packets,
    refuse_if_cut_off,
    video_stream,
)
from flexivid.data.decoding.display import Watch, display_of
from flexivid.data.decoding.facts import Display, Facts, Size
from flexivid.data.decoding.frame_folder import is_frame_folder, probe_folder
from flexivid.data.decoding.pyav import PyavDecoder, View, clock_of
from flexivid.data.storage.errors import VideoError

WHOLE_PIXELS = 50_000_000  # files with no more than this are decoded completely: a quarter of a second
TRIAL_PIXELS = 100_000_000  # the trial of seeking in longer files takes no more than this
MAX_ENTRIES = 256  # seeks tested in a file that is decoded completely
TELLING_CODECS = ("h264", "hevc", "av1", "mjpeg", "prores", "ffv1", "dnxhd")  # a packet is a frame
TELLING_CONTAINERS = ("mp4", "matroska")
MAX_DIFFERENCE = 2.0  # levels between decoders that agree, on average


class _Packet(NamedTuple):
    clock: int | None
    pts: int | None
    is_key: bool
    is_shown: bool


class _Scan(NamedTuple):
    """Result of one pass over the packets."""

    packets: list[_Packet]
    first: av.VideoFrame
    head: list[int | None]  # times of the first frames
    codec: str
    container: str
    time_base: tuple[int, int]
    last_duration: int
    rotation: int
    display: Display


class Look(NamedTuple):
    """A request to probe a file, sent to a decode process."""

    path: str
    decoder: str = "auto"


def look_at(look: Look) -> Facts:
    """Answer a request by ``probe``."""
    return probe(look.path, decoder=look.decoder)


def probe(source: Source, *, decoder: str = "auto") -> Facts:
    """Find out what is needed to decode any frame of a file, a path, an address or its bytes, exactly.

    "pyav" is exact for every file and the fastest decoder; "decord" or "torchcodec" are used where they are exact;
    "auto" chooses. A folder of pictures has its own. ``VideoError`` if the file cannot be opened, has no video, is cut
    off or damaged, or ``decoder`` is not exact; ``ValueError`` if there is no such decoder, or it is not installed.

    >>> try:
    ...     probe("nowhere.mp4")
    ... except VideoError as error:
    ...     print(error.reason)
    cannot be opened: No such file or directory
    """
    refuse_decoder(decoder)
    if is_frame_folder(source):
        return probe_folder(source)  # type: ignore[arg-type]
    scan = _scan(source)
    info = _from_packets(source, scan) or _from_frames(source, scan)
    if decoder in ("auto", info.decoder):
        return info
    try:
        _compare(source, info, decoder)
    except VideoError as error:
        reason = f"not decoded exactly by {decoder} ({error.reason}); decoder=auto takes another"
        raise VideoError(error.path, reason) from error
    return info._replace(decoder=decoder)


def _scan(source: Source) -> _Scan:
    name = name_of(source)
    some: list[_Packet] = []
    frames: list[av.VideoFrame] = []
    shown: tuple[int, Display] | None = None
    with video_stream(source) as (container, stream), closing(packets(container, stream, name)) as stream_packets:
        refuse_if_cut_off(source, container, stream)
        for packet in stream_packets:
            if len(frames) < 3:
                frames += decode(packet, name)
                shown = shown or (display_of(source, stream, frames) if frames else None)
            if packet.size:
                if packet.is_corrupt and container.format.name != "mpegts":  # there, a mark of lost packets elsewhere
                    raise VideoError(name, f"packet {len(some)} is damaged")
                some.append(_Packet(clock_of(packet), packet.pts, packet.is_keyframe, not packet.is_discard))
                duration = packet.duration or 0
        if shown is None:
            raise VideoError(name, "no frame can be decoded")
        base = frames[0].time_base or stream.time_base or Fraction(1, 1000)
        return _Scan(
            *(some, frames[0], [frame.pts for frame in frames], stream.codec_context.name, container.format.name),
            *((base.numerator, base.denominator), duration, *shown),
        )


def _from_packets(source: Source, scan: _Scan) -> Facts | None:
    """Return the facts of a long file from its packets alone; None if they do not suffice."""
    times = [packet.pts for packet in scan.packets if packet.is_shown]
    frame_pixels = scan.first.width * scan.first.height
    if len(times) * frame_pixels <= WHOLE_PIXELS or scan.codec not in TELLING_CODECS:
        return None
    if not set(scan.container.split(",")) & set(TELLING_CONTAINERS):
        return None
    stated = [time for time in times if time is not None]
    ticks = np.unique(np.array(stated, np.int64))
    if len(ticks) < len(times) or scan.head != ticks[: len(scan.head)].tolist():
        return None
    keys = np.array([packet.pts for packet in scan.packets if packet.is_key and packet.is_shown], np.int64)
    entries = np.stack([keys, np.searchsorted(ticks, keys)], axis=1)
    info = _facts(scan, ticks, entries, timed=True, skips=scan.codec == "h264")
    if len(keys) > 1:
        gaps = np.diff(entries[:, 1], append=info.num_frames + 1)[:-1]
        shortest = int(np.argmin(np.where(gaps > 0, gaps, 1 << 60)))
        if 0 < gaps[shortest] * frame_pixels <= TRIAL_PIXELS and not _seeks(source, info, shortest):
            return None
    return info


def _seeks(source: Source, info: Facts, entry: int) -> bool:
    """Whether frames are the same after a seek to the next key frame as when decoded on from the one before."""
    first = int(info.entries[entry + 1, 1])
    numbers = range(first, min(first + 3, info.num_frames))
    with closing(PyavDecoder(source, info, View())) as after_seek:
        expected = dict(after_seek.pictures(numbers))
    without = info._replace(entries=np.delete(info.entries, entry + 1, axis=0), skips=False)
    with closing(PyavDecoder(source, without, View())) as in_sequence:
        return all(np.array_equal(picture, expected[i]) for i, picture in in_sequence.pictures(numbers))


def _from_frames(source: Source, scan: _Scan) -> Facts:
    """Decode the complete file, then test from which key packets decoding may start."""
    times: list[Any] = []
    checksums: list[int] = []
    for frame in decode_all(source, watch=Watch):
        times.append(frame.pts)
        checksums.append(_checksum(frame))
    timed = None not in times and all(a < b for a, b in pairwise(times))
    if not timed:
        return _facts(scan, _assumed_times(scan, times), np.empty((0, 2), np.int64), timed=False, skips=False)
    ticks = np.array(times, np.int64)
    skips = scan.codec == "h264" and set(times) <= {packet.pts for packet in scan.packets}
    clocks = [packet.clock for packet in scan.packets if packet.is_key and packet.clock is not None][1:]
    if len(clocks) > MAX_ENTRIES:
        clocks = [clocks[i * len(clocks) // MAX_ENTRIES] for i in range(MAX_ENTRIES)]
    entries = _exact_entries(source, clocks, dict(zip(times, enumerate(checksums), strict=True)))
    return _facts(scan, ticks, np.array(entries, np.int64).reshape(-1, 2), timed=True, skips=skips)


def _assumed_times(scan: _Scan, times: list[Any]) -> np.ndarray:
    """Return times that do not identify frames: sorted or, if some are missing or repeated, evenly spaced."""
    if None not in times and len(set(times)) == len(times):
        return np.sort(np.array(times, np.int64))
    step = max(1, scan.last_duration)
    start = next((time for time in times if time is not None), 0)
    return start + step * np.arange(len(times), dtype=np.int64)


def _exact_entries(
    source: Source, clocks: Iterable[int], in_sequence: dict[int, tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return (clock, number of the first correct frame) of key packets after which frames equal those in sequence."""
    entries: list[tuple[int, int]] = []
    name = name_of(source)
    with video_stream(source) as (container, stream):
        for clock in clocks:
            try:
                container.seek(clock, stream=stream)
                frames = _frames_from(container, stream, name, clock)
            except (av.FFmpegError, OSError, VideoError):
                continue
            matches = [in_sequence.get(int(frame.pts or 0), (-1, 0)) for frame in frames if not frame.is_corrupt]
            right = [
                number for (number, value), frame in zip(matches, frames, strict=False) if value == _checksum(frame)
            ]
            in_order = len(right) == len(frames) > 0 and right == list(range(right[0], right[0] + len(right)))
            if in_order and (not entries or right[0] > entries[-1][1]):
                entries.append((clock, right[0]))
    return entries


def _frames_from(container: Any, stream: av.VideoStream, name: str, clock: int) -> list[av.VideoFrame]:
    """Decode three frames from the key packet with this time stamp; none if the seek ended elsewhere."""
    frames: list[av.VideoFrame] = []
    started = False
    for packet in packets(container, stream, name):
        started |= clock_of(packet) == clock and packet.is_keyframe
        if not started and packet.is_keyframe:
            return []
        frames += decode(packet, name) if started else []
        if len(frames) >= 3 or (packet.size == 0):
            break
    return frames


def _checksum(frame: av.VideoFrame) -> int:
    """Return a checksum of every fourth row of the first plane."""
    plane = frame.planes[0]
    pixels = np.frombuffer(memoryview(plane), np.uint8)[: plane.height * plane.line_size]
    return zlib.crc32(pixels.reshape(plane.height, -1)[::4, : max(1, plane.width)].tobytes())


def _facts(scan: _Scan, ticks: np.ndarray, entries: np.ndarray, *, timed: bool, skips: bool) -> Facts:
    size = scan.display.shown_size(scan.rotation)
    assert size is not None
    end = int(ticks[-1]) + max(1, int(np.median(np.diff(ticks))) if len(ticks) > 1 else scan.last_duration)
    return Facts(
        *(scan.codec, scan.container, scan.first.format.name, size, scan.rotation, ticks, end, scan.time_base),
        *(entries, timed, skips),
        display=scan.display,
    )


def _rounded_size(source: Source) -> Size:
    """Return (height, width) of the first picture where FFmpeg may round what the codec cuts off at the left."""
    name = name_of(source)
    with video_stream(source) as (container, stream), closing(packets(container, stream, name)) as stream_packets:
        stream.codec_context.flags &= ~Flags.unaligned
        frame = next(frame for packet in stream_packets for frame in decode(packet, name))
        return frame.height, frame.width


def _compare(source: Source, info: Facts, decoder: str) -> None:
    """Refuse a decoder whose frame count, times, or frame after a seek differ from PyAV's."""
    late = int(info.entries[len(info.entries) // 2, 1]) if len(info.entries) else 0
    numbers = [min(late + 1, info.num_frames - 1)]
    with closing(DECODERS[decoder](source, info, View(info.size))) as tested:
        times = tested.timestamps()
        pictures = dict(tested.pictures(numbers))
    with closing(PyavDecoder(source, info, View())) as reference:
        difference = max(np.abs(pictures[i].astype(int) - picture).mean() for i, picture in reference.pictures(numbers))
    if decoder == "decord" and _rounded_size(source) != info.display.stored:
        raise VideoError(name_of(source), "columns to cut off at the left are rounded")
    tick = info.time_base[0] / info.time_base[1]
    if np.abs(times - info.timestamps).max() > max(tick, 1e-3):
        raise VideoError(name_of(source), "frames at other times")
    if difference > MAX_DIFFERENCE:
        raise VideoError(name_of(source), "another picture after a seek")
