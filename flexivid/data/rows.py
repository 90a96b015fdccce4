"""The rows of a manifest: videos with class and caption, in an Arrow table and not as objects.

Captions may be texts beside the videos, which are read when they are asked for. Several captions of a video are packed
into one string (see ``cells``). Imports Arrow.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa

from flexivid.data.byte_range import is_remote
from flexivid.data.cells import captions_of, unpack
from flexivid.data.folders import EXTENSIONS
from flexivid.data.text import read_text

ROWS = pa.schema(
    [("path", pa.large_string()), ("label", pa.int32()), ("caption", pa.large_string()), ("has_text", pa.bool_())]
)


class VideoItem(NamedTuple):
    """One video of a data set.

    Args:
        path: The file, or folder of pictures; a string if it is a url.
        label: Number of its class, or -1 when the set has no classes.
        caption: Words for it, or empty; the first of several.

    >>> VideoItem(Path("videos/waves/1.mp4"), label=3, caption="waves").label
    3
    """

    path: Any  # a Path, or the string of a url
    label: int
    caption: str


class Manifest(NamedTuple):
    """The videos of a data set in a fixed order, and the names of the classes (empty: no classes).

    Args:
        table: One row a video: path, label, captions, and whether a text beside the video is its caption.
        class_names: The classes in the order of their labels.
        root: The folder or list that it was read from; tells one data set from another.

    >>> manifest = Manifest.of([("videos/waves/1.mp4", 0, "waves")], class_names=("waves", "wind"))
    >>> manifest.items[0].caption, len(manifest)
    ('waves', 1)
    """

    table: pa.Table
    class_names: tuple[str, ...]
    root: str

    @staticmethod
    def of(
        items: Iterable[tuple[str | Path, int, str]], *, class_names: Sequence[str] = (), root: str = ""
    ) -> "Manifest":
        """Make a manifest of (path, label, caption)."""
        rows = [
            {"path": str(path), "label": label, "caption": words, "has_text": False} for path, label, words in items
        ]
        return Manifest(pa.Table.from_pylist(rows, ROWS), tuple(class_names), root)

    @property
    def items(self) -> "Items":
        """The videos, made one by one as they are asked for."""
        return Items(self.table)

    @property
    def rows_with_text(self) -> np.ndarray:
        """Rows whose caption is the text beside the video, int64."""
        return np.flatnonzero(self.table["has_text"].to_numpy())

    def __len__(self) -> int:
        return self.table.num_rows


class Items(Sequence[VideoItem]):
    """The videos of a manifest by number.

    >>> [item.label for item in Manifest.of([("a.mp4", 3, "")]).items]
    [3]
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return self._table.num_rows

    @overload
    def __getitem__(self, row: int) -> VideoItem: ...
    @overload
    def __getitem__(self, row: slice) -> list[VideoItem]: ...
    def __getitem__(self, row: int | slice) -> VideoItem | list[VideoItem]:
        if isinstance(row, slice):
            return [self[i] for i in range(len(self))[row]]
        return next(iter(self._items(self._table.slice(range(len(self))[row], 1))))

    def __iter__(self) -> Iterator[VideoItem]:
        for batch in self._table.to_batches(max_chunksize=4096):
            yield from self._items(pa.Table.from_batches([batch]))

    def _items(self, table: pa.Table) -> Iterator[VideoItem]:
        for path, label, caption, has_text in zip(*(table[name].to_pylist() for name in ROWS.names), strict=True):
            words = unpack(read_caption(path) if has_text else caption)
            yield VideoItem(path if is_remote(path) else Path(path), label, words[0])


def text_beside(path: str) -> str:
    """Return where the caption of a video would be: ``x.txt`` for ``x.mp4``, or for the folder of pictures ``x``.

    >>> text_beside("videos/a.mp4"), text_beside("videos/a")
    ('videos/a.txt', 'videos/a.txt')
    """
    stem, extension = os.path.splitext(path)
    return (stem if extension.lower().lstrip(".") in EXTENSIONS else path) + ".txt"


def read_caption(path: str) -> str:
    """Return the text beside a video; empty if it is gone, or says ``nan``, ``None`` and the like.

    Raises:
        ValueError: If it is no text, see ``text.decode``.

    >>> read_caption("nowhere.mp4")
    ''
    """
    try:
        return captions_of(read_text(text_beside(path))) or ""
    except FileNotFoundError:
        return ""
