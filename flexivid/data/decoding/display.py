"""How a file asks to be displayed (pixel aspect ratio, rotation, mirroring, crop), and whether that changes midway.

What video players agree on is applied: square pixels, rotation by right angles, mirroring and crops. What they disagree
on is refused: odd angles, shear, and a picture whose shape changes in the middle of the file. Imports PyAV.

Source:
    ``av_guess_sample_aspect_ratio`` (what the container says goes first) and ``ffplay`` of FFmpeg 8.
"""

import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av

from flexivid.data.decoding.aperture import aperture_of
from flexivid.data.decoding.container import MAX_PIXELS, Source, name_of
from flexivid.data.decoding.facts import Display, Facts
from flexivid.data.storage.errors import VideoError

# degrees counter-clockwise, and whether it is mirrored before that, by the signs of a, b, c, d: a matrix moves a pixel
# from (column, row) to (a column + c row, b column + d row)
TURNS: dict[tuple[int, ...], tuple[int, bool]] = {
    (1, 0, 0, 1): (0, False),
    (-1, 0, 0, 1): (0, True),
    (0, -1, 1, 0): (90, False),
    (0, 1, 1, 0): (90, True),
    (-1, 0, 0, -1): (180, False),
    (1, 0, 0, -1): (180, True),
    (0, 1, -1, 0): (-90, False),
    (0, -1, -1, 0): (-90, True),
}
SLACK = math.sin(math.radians(1))  # players ignore a rotation of up to one degree
SAME_SHAPE = 0.01  # aspect ratios that differ by less are equal: sizes are rounded to pixels
SILENT_CONTAINERS = ("mpegts", "mpeg", "mpegvideo", "h264", "hevc", "vvc", "m4v", "vc1", "obu", "flv")  # on pixels
MAX_ASPECT = 10  # real pixels reach 2:1; a larger ratio is damage

Matrix = tuple[int, ...]


def matrix_of(frame: av.VideoFrame) -> Matrix | None:
    """Return the display matrix of a frame, nine numbers as FFmpeg stores them, or None."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else struct.unpack_from("=9i", data)


def turn_of(matrix: Matrix | None, aspect: Fraction | None = None, *, name: str = "the video") -> tuple[int, bool]:
    """Return the degrees that a picture is turned by, counter-clockwise, and whether it is mirrored before that.

    A display matrix (see ``matrix_of``) of zeros says nothing. FFmpeg includes its scale in ``aspect``, the width of a
    pixel to its height. ``VideoError`` if it does anything else: odd angles, shear, perspective, another scale.

    >>> turn_of((0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30))
    (-90, False)
    """
    if matrix is None or not any(matrix[i] for i in (0, 1, 3, 4)):
        return 0, False
    a, b, u, c, d, v = matrix[:6]
    scale_x, scale_y = math.hypot(a, c), math.hypot(b, d)
    if u or v or not (scale_x and scale_y):
        raise VideoError(name, "its display matrix projects pictures in perspective, or onto a line")
    unit = (a / scale_x, b / scale_y, c / scale_x, d / scale_y)
    turn = TURNS.get(tuple(0 if abs(x) < SLACK else round(math.copysign(1, x)) for x in unit))
    stretch = scale_x / scale_y
    is_even = abs(stretch - 1) <= SAME_SHAPE
    if turn is None:
        does = f"turns pictures by {abs(math.degrees(math.atan2(b, a))):.3g} degrees" if is_even else "shears pictures"
        raise VideoError(name, f"its display matrix {does}, which players show in different ways")
    is_known = turn[0] % 180 == 0 and aspect is not None and abs(stretch / float(aspect) - 1) <= SAME_SHAPE
    if not (is_even or is_known):
        raise VideoError(name, f"its display matrix stretches pictures by {stretch:.3g}, which players do not agree on")
    return turn


def display_of(source: Source, stream: av.VideoStream, frames: Sequence[av.VideoFrame]) -> tuple[int, Display]:
    """Return the rotation of a file, and how else it asks to be displayed; ``VideoError`` if players disagree on it.

    Its ``stream`` is open, and the decoder has just returned its first ``frames``, at least one.
    """
    name, stored = name_of(source), (frames[0].height, frames[0].width)
    stated_aspect, codec_aspect = _stated_aspect(stream), stream.codec_context.sample_aspect_ratio
    aspect = stated_aspect or codec_aspect or Fraction(1)
    rotation, mirrored = turn_of(matrix_of(frames[0]), aspect, name=name)
    aperture = aperture_of(source, stream, stored)
    if aperture.is_shape_of_whole and stated_aspect not in (None, codec_aspect):  # FFmpeg took the uncut size
        aspect *= Fraction(stored[1] - sum(aperture.cut[2:]), stored[1]) ** -1
        aspect *= Fraction(stored[0] - sum(aperture.cut[:2]), stored[0])
    interlaced = any(frame.interlaced_frame for frame in frames)
    return rotation, Display(stored, aperture.cut, _pair(aspect), _pair(codec_aspect), mirrored, interlaced)


def as_asked(source: Source, info: Facts, *, square_pixels: bool) -> Facts:
    """Set the size of the pictures in the result of ``probe``: with square pixels, or with those of the file.

    ``VideoError`` if the file states an impossible shape for its pixels.

    >>> import numpy as np
    >>> facts = Facts("h264", "mp4", "yuv420p", (72, 90), 0, np.arange(5), 5, (1, 8), np.zeros((1, 2), int))
    >>> facts = facts._replace(display=Display((72, 90), aspect=(64, 45)))
    >>> as_asked("a.mp4", facts, square_pixels=True).size, as_asked("a.mp4", facts, square_pixels=False).size
    ((72, 128), (72, 90))
    """
    info = info.with_pixels(square=square_pixels)
    width, height = info.display.aspect
    if square_pixels and not (width <= MAX_ASPECT * height and height <= MAX_ASPECT * width):
        reason = f"states pixels of {width}:{height}; data.square_pixels=false takes them as they are"
        raise VideoError(name_of(source), reason)
    if info.size[0] * info.size[1] > MAX_PIXELS:
        raise VideoError(name_of(source), f"frames of {info.size[1]}x{info.size[0]} as displayed")
    return info


class Watch:
    """Check that each frame is displayed like the first one, and refuse the file otherwise.

    Frames may change their size but not their shape: recordings of streams switch between resolutions. Without the
    result of ``probe`` (``info``), frames are compared with the first one.
    """

    def __init__(self, name: str, stream: av.VideoStream, info: Facts | None = None) -> None:
        self.name, self._codec, self._stated_aspect = name, stream.codec_context, _stated_aspect(stream)
        self._turn, self._display = (0, Display()) if info is None else (info.rotation, info.display)
        self._matrix: Matrix | None = None
        self._shape: tuple[int, int, Fraction | None] | None = None
        if self._display.stored is not None:  # the expected shape, so that ordinary frames are compared once
            codec_aspect = Fraction(*self._display.codec_aspect) or None
            self._shape = self._display.stored[1], self._display.stored[0], codec_aspect

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the frame, which the decoder has just returned; ``VideoError`` if it is displayed in another way."""
        shape = (frame.width, frame.height, self._codec.sample_aspect_ratio)
        matrix = matrix_of(frame) if frame.key_frame or frame.rotation else None  # frames without one keep the last
        if self._display.stored is None:
            self._measure(frame)
        if shape != self._shape:
            self._compare_shape(frame)
            self._shape = shape
        if matrix is not None and matrix != self._matrix:
            self._compare_turn(matrix)
            self._matrix = matrix
        return frame

    def _measure(self, frame: av.VideoFrame) -> None:
        codec_aspect = self._codec.sample_aspect_ratio
        aspect = self._stated_aspect or codec_aspect or Fraction(1)
        self._turn, mirrored = turn_of(matrix_of(frame), aspect, name=self.name)
        size = (frame.height, frame.width)
        self._display = Display(size, aspect=_pair(aspect), codec_aspect=_pair(codec_aspect), mirrored=mirrored)

    def _compare_turn(self, matrix: Matrix) -> None:
        turn = turn_of(matrix, self._stated_aspect or self._codec.sample_aspect_ratio, name=self.name)
        if turn != (self._turn, self._display.mirrored):
            raise VideoError(self.name, "pictures are turned or mirrored in another way from the middle of the file on")

    def _compare_shape(self, frame: av.VideoFrame) -> None:
        size, display = (frame.height, frame.width), self._display
        assert display.stored is not None
        looks = (display.stored, Fraction(*display.aspect)), (size, self._aspect(display))
        before, after = (float(pixel) * width / height for (height, width), pixel in looks)
        if abs(after / before - 1) > SAME_SHAPE or (any(display.cut) and size != display.stored):
            was, now = (f"{w}x{h} with pixels of {pixel.numerator}:{pixel.denominator}" for (h, w), pixel in looks)
            raise VideoError(self.name, f"the shape of the picture changes from {was} to {now}: cut the file there")

    def _aspect(self, display: Display) -> Fraction:
        """Return the pixel aspect ratio of the current frame: the codec's, unless the container overrides it."""
        current = self._codec.sample_aspect_ratio
        overruled = self._stated_aspect is not None and display.codec_aspect != _pair(self._stated_aspect)
        is_unchanged = overruled or _pair(current) == display.codec_aspect
        return Fraction(*display.aspect) if is_unchanged else current or Fraction(1)


def _stated_aspect(stream: av.VideoStream) -> Fraction | None:
    """Return the pixel aspect ratio of the container, or else the one that FFmpeg found in the codec."""
    return None if stream.container.format.name in SILENT_CONTAINERS else stream.sample_aspect_ratio


def _pair(aspect: Fraction | None) -> tuple[int, int]:
    return (0, 1) if aspect is None else (aspect.numerator, aspect.denominator)
