"""Videos that are folders of numbered pictures: "walk/0001.png", "walk/0002.png", ...

The numbers give the order; they follow each other in equal steps, or a picture is missing and the folder is refused.
Nothing says how fast they follow: all times are 0, and so are frames a second. Imports Pillow and numpy.
"""

import itertools
import os
import re
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flexivid.data.facts import Facts, Size, VideoError
from flexivid.data.folders import is_picture
from flexivid.files.paths import is_hidden

DECODER = "pictures"
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}


def is_frame_folder(source: object) -> bool:
    """Return whether this is a folder on a local disk, and so to be read as pictures.

    >>> is_frame_folder("nowhere.mp4"), is_frame_folder(b"content")
    (False, False)
    """
    return isinstance(source, (str, os.PathLike)) and os.path.isdir(source)


def probe_folder(path: str | os.PathLike[str]) -> Facts:
    """Look at the names and heads of all pictures of a folder.

    Raises:
        VideoError: If there are none, one is missing or cannot be read, or they differ in size.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> for number in (1, 2, 3):
    ...     Image.new("RGB", (8, 6)).save(f"{folder}/{number:04d}.png")
    >>> facts = probe_folder(folder)
    >>> facts.num_frames, facts.size, facts.fps
    (3, (6, 8), 0.0)
    """
    names = _pictures(path)
    sizes = [_size(path, name) for name in names]
    for name, size in zip(names, sizes, strict=True):
        if size != sizes[0]:
            raise VideoError(path, f"{name} has {size[0]}x{size[1]} pixels, {names[0]} {sizes[0][0]}x{sizes[0][1]}")
    codec = names[0].rsplit(".", 1)[-1].lower()
    zeros = np.zeros(len(names), np.int64)
    nowhere = np.zeros((0, 2), np.int64)
    return Facts(codec, DECODER, "rgb24", sizes[0], 0, zeros, 0, (1, 1), nowhere, timed=False, decoder=DECODER)


class FolderDecoder:
    """Frames of a folder of pictures.

    Args:
        source: The folder.
        facts: What ``probe_folder`` found.
        view: (height, width) that each picture is resized to, None for its own; and the filter.
    """

    def __init__(self, source: str | os.PathLike[str], facts: Facts, view: tuple[Size | None, str]) -> None:
        self._folder, self._facts, (self._size, self._kernel) = source, facts, view
        self._names = _pictures(source)
        if len(self._names) != facts.num_frames:
            raise VideoError(source, f"there are {len(self._names)} pictures, not {facts.num_frames} as before")

    def pictures(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number, picture) for each of some frames; (h, w, 3) uint8."""
        for number in wanted:
            yield number, self._read(self._names[number])

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _read(self, name: str) -> np.ndarray:
        try:
            with Image.open(os.path.join(self._folder, name)) as opened:
                if opened.mode.startswith("I"):  # 16 bits of grey
                    picture = Image.fromarray((np.asarray(opened) >> 8).clip(0, 255).astype(np.uint8))
                else:
                    picture = ImageOps.exif_transpose(opened)
                picture = picture.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises SyntaxError for broken PNG
            raise VideoError(self._folder, f"{name} cannot be read: {error}") from error
        if (picture.height, picture.width) != self._facts.size:
            raise VideoError(self._folder, f"{name} has another size than before")
        if self._size is not None and self._size != self._facts.size:
            picture = picture.resize(self._size[::-1], _FILTERS[self._kernel])
        return np.asarray(picture)


def _pictures(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the pictures in the order of their numbers."""
    try:
        names = [name for name in os.listdir(path) if is_picture(name) and not is_hidden(name)]
    except OSError as error:
        raise VideoError(path, f"cannot be opened: {error.strerror}") from error
    if not names:
        raise VideoError(path, "a folder without numbered pictures")
    numbered = sorted((int(re.findall(r"\d+", name.rsplit(".", 1)[0])[-1]), name) for name in names)
    step = numbered[1][0] - numbered[0][0] if len(numbered) > 1 else 1
    for (number, name), (following, other) in itertools.pairwise(numbered):
        if following == number:
            raise VideoError(path, f"{name} and {other} have the same number")
        if following - number != step:
            raise VideoError(path, f"between {name} and {other}, pictures are missing")
    return [name for _, name in numbered]


def _size(path: str | os.PathLike[str], name: str) -> Size:
    try:
        with Image.open(os.path.join(path, name)) as picture:
            turned = picture.getexif().get(0x0112, 1) >= 5  # the orientations that swap rows and columns
            return (picture.width, picture.height) if turned else (picture.height, picture.width)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise VideoError(path, f"{name} cannot be read: {error}") from error
