"""Videos that are folders of numbered pictures: "walk/0001.png", "walk/0002.png", ...

The numbers give the order. Their steps must be equal: otherwise a picture is missing, and the folder is refused. The
frame rate is unknown, so all times are 0. Pictures with non-square pixels, as FFmpeg extracts them from such a video,
are resized like that video. A picture by itself is a video of one frame. Imports Pillow and numpy.
"""

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flexivid.data.decoding.facts import Display, Facts, Size
from flexivid.data.sources.folders import is_picture, is_still
from flexivid.data.storage.errors import VideoError
from flexivid.runtime.paths import is_hidden

DECODER = "pictures"
SAME_DENSITY = 0.01  # dots an inch are rounded
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}


def is_frame_folder(source: object) -> bool:
    """Return whether this is a folder or a picture on a local disk, and so to be read as pictures."""
    if not isinstance(source, (str, os.PathLike)):
        return False
    return os.path.isdir(source) or (is_still(os.fspath(source)) and os.path.isfile(source))


def probe_folder(path: str | os.PathLike[str]) -> Facts:
    """Probe a folder: the names, sizes and pixel aspect ratios of all its pictures.

    ``VideoError`` if there are none, one is missing or cannot be read, or they differ in size or shape of pixels.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> for number in (1, 2, 3):
    ...     Image.new("RGB", (8, 6)).save(f"{folder}/{number:04d}.png")
    >>> facts = probe_folder(folder)
    >>> facts.num_frames, facts.size, facts.fps
    (3, (6, 8), 0.0)
    """
    names = _pictures(path)
    looks = [_size_and_aspect(path, name) for name in names]
    size, aspect = looks[0]
    for name, (its_size, its_aspect) in zip(names, looks, strict=True):
        if its_size != size:
            raise VideoError(path, f"{name} has {its_size[0]}x{its_size[1]} pixels, {names[0]} {size[0]}x{size[1]}")
        if its_aspect != aspect:
            raise VideoError(path, f"{name} has pixels of {its_aspect}, {names[0]} of {aspect} (width / height)")
    display = Display(size, aspect=(aspect.numerator, aspect.denominator))
    codec = (names[0] or os.fspath(path)).rsplit(".", 1)[-1].lower()
    zeros = np.zeros(len(names), np.int64)
    nowhere = np.zeros((0, 2), np.int64)
    info = Facts(codec, DECODER, "rgb24", size, 0, zeros, 0, (1, 1), nowhere, timed=False, decoder=DECODER)
    return info._replace(display=display).with_pixels(square=True)


class FolderDecoder:
    """Frames of a folder of pictures; ``view`` has their (height, width), None for their own, and the filter."""

    def __init__(self, source: str | os.PathLike[str], info: Facts, view: tuple[Size | None, str]) -> None:
        self._folder, self._size, self._kernel = source, view[0] or info.size, view[1]
        self._stored = info.display.stored or info.size
        self._names = _pictures(source)
        if len(self._names) != info.num_frames:
            raise VideoError(source, f"there are {len(self._names)} pictures, not {info.num_frames} as before")

    def pictures(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number, picture) for each of some frames; (h, w, 3) uint8."""
        for number in numbers:
            yield number, self._read(self._names[number])

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _read(self, name: str) -> np.ndarray:
        try:
            with Image.open(Path(self._folder, name)) as opened:
                picture = upright(opened)
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises SyntaxError for broken PNG
            raise VideoError(self._folder, f"{name} cannot be read: {error}".lstrip()) from error
        if (picture.height, picture.width) != self._stored:
            raise VideoError(self._folder, f"{name} has another size than before".lstrip())
        if self._size != self._stored:
            picture = picture.resize(self._size[::-1], _FILTERS[self._kernel])
        return np.asarray(picture)


def upright(opened: Image.Image) -> Image.Image:
    """A picture in RGB, turned as its file says.

    >>> upright(Image.new("I;16", (4, 2), 1 << 15)).getpixel((0, 0))
    (128, 128, 128)
    """
    picture = ImageOps.exif_transpose(opened)
    if picture.mode.startswith("I"):  # 16 bits of grey, of which Pillow would keep those below 256
        picture = Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))
    return picture.convert("RGB")


def _pictures(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the pictures in the order of their numbers; an empty one of a picture by itself."""
    if os.path.isfile(path):
        return [""]
    try:
        names = [name for name in os.listdir(path) if is_picture(name) and not is_hidden(name)]
    except OSError as error:
        raise VideoError(path, f"cannot be opened: {error.strerror}") from error
    if not names:
        raise VideoError(path, "a folder without numbered pictures")
    numbered = sorted((int(re.findall(r"\d+", name.rsplit(".", 1)[0])[-1]), name) for name in names)
    step = numbered[1][0] - numbered[0][0] if len(numbered) > 1 else 1
    for (number, name), (following, next_name) in itertools.pairwise(numbered):
        if following == number:
            raise VideoError(path, f"{name} and {next_name} have the same number")
        if following - number != step:
            raise VideoError(path, f"between {name} and {next_name}, pictures are missing")
    return [name for _, name in numbered]


def _size_and_aspect(path: str | os.PathLike[str], name: str) -> tuple[Size, Fraction]:
    """Return (height, width) of a picture, upright, and the width of its pixels to their height."""
    try:
        with Image.open(Path(path, name)) as picture:
            turned = picture.getexif().get(0x0112, 1) >= 5  # the orientations that swap rows and columns
            size, aspect = (picture.height, picture.width), _aspect(picture.info)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise VideoError(path, f"{name} cannot be read: {error}".lstrip()) from error
    if aspect is None:
        reason = f"{name} has other dots an inch across than down, which programs read in different ways"
        raise VideoError(path, reason.lstrip())
    return (size[::-1], 1 / aspect) if turned else (size, aspect)


def _aspect(info: dict[Any, Any]) -> Fraction | None:
    """Return the width of a picture's pixels to their height; None where programs do not agree on it.

    FFmpeg writes it into PNG and JPEG as two numbers without a unit, width first. Two densities *with* a unit are the
    other way round by the standards, but FFmpeg takes them like those without; only for TIFF all agree.
    """
    if "aspect" in info or (info.get("jfif_unit") == 0 and all(info.get("jfif_density", (0,)))):
        width, height = info.get("aspect") or info["jfif_density"]
        return Fraction(width, height) if width and height else Fraction(1)
    across, down = map(float, info.get("dpi", (1, 1)))
    if not (across > 0 and down > 0) or abs(across / down - 1) <= SAME_DENSITY:
        return Fraction(1)
    return Fraction(down / across).limit_denominator(1000) if "compression" in info else None
