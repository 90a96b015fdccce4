"""Which videos lie below a folder, here or in a store; by name alone.

A video is a file with one of ``EXTENSIONS``, in any letter case, or a folder of numbered pictures ("frames/0001.png").
Pictures beside video files are taken for previews and left out, with a warning. Hidden files and folders are skipped.
The order: the files of a folder by name, then its sub-folders by name. Standard library, Arrow and fsspec.
"""

import os
import re
import warnings
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import fsspec
import pyarrow as pa

from flexivid.data.byte_range import is_remote
from flexivid.files.printable import printable

EXTENSIONS = (
    *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg"),
    *("ts", "m2ts", "wmv", "flv", "3gp", "gif", "ogv"),
)
PICTURES = ("png", "jpg", "jpeg", "bmp", "webp", "tif", "tiff")
_VIDEO = re.compile(rf".+\.({'|'.join(EXTENSIONS)})", re.IGNORECASE)
_PICTURE = re.compile(rf".*\d\.({'|'.join(PICTURES)})", re.IGNORECASE)


class Found(NamedTuple):
    """What lies below a folder.

    Args:
        paths: The videos, (n,) strings.
        has_text: Whether there is a text of the same name beside each, (n,) bool.
        parents: The folders that hold them.
        num_others: Files that are no videos.

    >>> find_videos.__annotations__["return"].__name__
    'Found'
    """

    paths: pa.ChunkedArray
    has_text: pa.ChunkedArray
    parents: set[str]
    num_others: int


def is_picture(name: str) -> bool:
    """Return whether a file is a numbered picture, by its name.

    >>> is_picture("0001.PNG"), is_picture("cover.png")
    (True, False)
    """
    return _PICTURE.fullmatch(name) is not None


def find_videos(root: str) -> Found:
    """List the videos below a folder; links are followed, each folder once.

    >>> import tempfile
    >>> root = tempfile.mkdtemp()
    >>> for name in ("b.MP4", "b.txt", ".c.mp4", "notes.txt"):
    ...     open(os.path.join(root, name), "w").close()
    >>> found = find_videos(root)
    >>> [os.path.basename(path.as_py()) for path in found.paths], found.has_text.to_pylist(), found.num_others
    (['b.MP4'], [True], 2)
    """
    files, reels, parents, num_others = _Column(), [], set(), 0
    for folder, names in _remote_folders(root) if is_remote(root) else _local_folders(root):
        videos = [name for name in names if _VIDEO.fullmatch(name)]
        num_others += len(names) - len(videos)
        if videos:
            texts = {name[:-4] for name in names if name.endswith(".txt")}
            files.add([f"{folder}/{name}" for name in videos], [name.rsplit(".", 1)[0] in texts for name in videos])
            parents.add(folder)
        elif not is_remote(root) and sum(map(is_picture, names)) > 1:
            reels.append(folder)
    if not parents and reels:
        files.add(reels, [os.path.isfile(f"{folder}.txt") for folder in reels])
        parents = {os.path.dirname(folder) for folder in reels}
    elif reels:
        warnings.warn(
            f"got {len(reels)} folders of numbered pictures beside the video files of {root}, such as "
            f"{printable(reels[0])}; the pictures are left out; move them into a folder of their own to train on them",
            stacklevel=3,
        )
    return Found(*files.arrays(), parents, num_others)


class _Column:
    """Grows by pieces, without an object for each path."""

    def __init__(self) -> None:
        self._paths: list[pa.Array] = []
        self._flags: list[pa.Array] = []
        self._pending: tuple[list[str], list[bool]] = ([], [])

    def add(self, paths: Iterable[str], flags: Iterable[bool]) -> None:
        self._pending[0].extend(paths)
        self._pending[1].extend(flags)
        if len(self._pending[0]) > 1 << 16:
            self._flush()

    def arrays(self) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        self._flush()
        return pa.chunked_array(self._paths, pa.large_string()), pa.chunked_array(self._flags, pa.bool_())

    def _flush(self) -> None:
        self._paths.append(pa.array(self._pending[0], pa.large_string()))
        self._flags.append(pa.array(self._pending[1], pa.bool_()))
        self._pending = ([], [])


def _local_folders(root: str) -> Iterator[tuple[str, list[str]]]:
    seen: set[tuple[int, int]] = set()  # links may lead back up
    for parent, folders, names in os.walk(root, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield parent, sorted(name for name in names if not name.startswith("."))


def _remote_folders(root: str) -> Iterator[tuple[str, list[str]]]:
    system, place = fsspec.core.url_to_fs(root)
    below = [path for path in system.find(place) if "/." not in path[len(place) :]]
    split = sorted(path.rsplit("/", 1) for path in below)
    for folder, files in groupby(split, key=lambda parts: parts[0]):
        yield system.unstrip_protocol(folder), [name for _, name in files]
