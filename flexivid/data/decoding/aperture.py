"""Read the crop that a container states: ``clap`` in MP4 and QuickTime, ``PixelCrop`` in Matroska.

FFmpeg reads both, but PyAV does not expose them, so the few bytes are parsed here. The decoder applies the crop of the
codec itself. An invalid crop is ignored, as in FFmpeg.

Source:
    ISO/IEC 14496-12 (Clean Aperture Box); RFC 9559 (Matroska), section 5.1.4.1.28.
"""

import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import IO, NamedTuple

import av

from flexivid.data.decoding.container import MAX_ELEMENTS, SEGMENT, Source, elements, raw_bytes, read_at
from flexivid.data.decoding.facts import Size

VISUAL_ENTRY = 78  # bytes of a sample description before its boxes
TRACKS, CLUSTER, TRACK, KIND, VIDEO = 0x1654AE6B, 0x1F43B675, 0xAE, 0x83, 0xE0
CROPS = (0x54BB, 0x54AA, 0x54CC, 0x54DD)  # top, bottom, left, right


class Aperture(NamedTuple):
    """The visible part of a picture.

    ``is_shape_of_whole``: FFmpeg computes the pixel aspect ratio from the size of the visible part, although
    the file means the whole picture, as in MP4 without a ``pasp``.
    """

    cut: tuple[int, int, int, int] = (0, 0, 0, 0)  # hidden rows at the top and bottom, columns at the left and right
    is_shape_of_whole: bool = False


def aperture_of(source: Source, stream: av.VideoStream, stored: Size) -> Aperture:
    """Return the visible part of the pictures of a file, which are ``stored`` (height, width) as they are decoded."""
    container = stream.container
    names = container.format.name.split(",")
    if "mp4" in names:
        with raw_bytes(source, container) as file:
            return _from_mp4(file, stream.id, stored)
    if "matroska" in names:
        position = [video.index for video in container.streams.video].index(stream.index)
        with raw_bytes(source, container) as file:
            return _from_matroska(file, position, stored)
    return Aperture()


def _from_mp4(file: IO[bytes], track: int, stored: Size) -> Aperture:
    for entry, end in _sample_entries(file, track):
        width, height = struct.unpack(">HH", read_at(file, entry + 24, 4))
        boxes = {kind: (begin, last) for kind, begin, last in _boxes(file, entry + VISUAL_ENTRY, end)}
        if b"clap" not in boxes:
            return Aperture()
        numbers = struct.unpack(">IIIIiIiI", read_at(file, boxes[b"clap"][0], 32))
        if not all(numbers[1::2]):
            return Aperture()
        shown_width, shown_height, right_by, down_by = (Fraction(*numbers[i : i + 2]) for i in range(0, 8, 2))
        first_column = round((width - shown_width) / 2 + right_by)
        first_row = round((height - shown_height) / 2 + down_by)
        shown = (round(shown_height), round(shown_width))
        if shown == stored:  # the codec has cut it already
            return Aperture()
        cut = (first_row, height - first_row - shown[0], first_column, width - first_column - shown[1])
        return _checked(Aperture(cut, b"pasp" not in boxes), (height, width), stored)
    return Aperture()


def _sample_entries(file: IO[bytes], track: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of each sample description of a track."""
    for movie in _find(file, (0, file.seek(0, os.SEEK_END)), b"moov"):
        for trak in _find(file, movie, b"trak"):
            for begin, _ in _find(file, trak, b"tkhd"):
                version = read_at(file, begin, 1)
                (number,) = struct.unpack(">I", read_at(file, begin + (20 if version == b"\1" else 12), 4))
                if number == track:
                    for begin, end in _find(file, trak, b"mdia", b"minf", b"stbl", b"stsd"):
                        yield from ((first, last) for _, first, last in _boxes(file, begin + 8, end))


def _find(file: IO[bytes], span: tuple[int, int], *path: bytes) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of the contents of each box at a path of nested boxes."""
    for kind, begin, end in _boxes(file, *span):
        if kind == path[0]:
            yield from _find(file, (begin, end), *path[1:]) if path[1:] else [(begin, end)]


def _boxes(file: IO[bytes], begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, begin, end) of each MP4 box; the positions are those of its contents."""
    for _ in range(MAX_ELEMENTS):
        if begin + 8 > end:
            return
        size, kind = struct.unpack(">I4s", read_at(file, begin, 8))
        content = begin + 8
        if size == 1:
            size, content = struct.unpack(">Q", read_at(file, begin + 8, 8))[0], begin + 16
        last = end if size == 0 else begin + size
        if last < content:
            return
        yield kind, content, min(last, end)
        begin = last


def _from_matroska(file: IO[bytes], position: int, stored: Size) -> Aperture:
    span = (0, file.seek(0, os.SEEK_END))
    segments = ((begin, end) for kind, begin, end in elements(file, *span) if kind == SEGMENT)
    for kind, begin, end in elements(file, *next(segments, (0, 0))):
        if kind == CLUSTER:
            break
        if kind == TRACKS:
            videos = [video for track in elements(file, begin, end) if (video := _video(file, track)) is not None]
            if position < len(videos):
                return _checked(Aperture(videos[position]), stored, stored)
    return Aperture()


def _video(file: IO[bytes], track: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """Return the crop of a video track; None for tracks of sound and text."""
    parts = {kind: (begin, end) for kind, begin, end in elements(file, *track[1:])} if track[0] == TRACK else {}
    if KIND not in parts or _number(file, *parts[KIND]) != 1 or VIDEO not in parts:
        return None
    cuts = {kind: _number(file, begin, end) for kind, begin, end in elements(file, *parts[VIDEO])}
    top, bottom, left_side, right = (cuts.get(kind, 0) for kind in CROPS)
    return top, bottom, left_side, right


def _number(file: IO[bytes], begin: int, end: int) -> int:
    return int.from_bytes(read_at(file, begin, min(end - begin, 8)), "big") if end > begin else 0


def _checked(aperture: Aperture, described: Size, stored: Size) -> Aperture:
    """Return the aperture if it lies within the picture; an invalid one is ignored, as in FFmpeg."""
    top, bottom, left_side, right = aperture.cut
    fits = min(aperture.cut) >= 0 and top + bottom < stored[0] and left_side + right < stored[1] and described == stored
    return aperture if fits and any(aperture.cut) else Aperture()
