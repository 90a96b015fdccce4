"""The rows of a manifest: path, class and caption of each video, in an Arrow table.

Captions in text files beside the videos are read later, when they are needed. Several captions of a video are packed
into one string (see ``cells``). Imports Arrow.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flexivid.data.lists.cells import captions_of
from flexivid.data.lists.text import read_text
from flexivid.data.storage.video_names import EXTENSIONS, PICTURES

ROWS = pa.schema(
    [("path", pa.large_string()), ("label", pa.int32()), ("caption", pa.large_string()), ("text", pa.large_string())]
)


class Manifest(NamedTuple):
    """The videos of a data set in a fixed order, and the names of the classes (empty: no classes).

    >>> manifest = Manifest.of([("videos/waves/1.mp4", 0, "waves")], class_names=("waves", "wind"))
    >>> manifest.table["caption"].to_pylist(), len(manifest)
    (['waves'], 1)
    """

    table: pa.Table  # a row a video: path, label, captions or else the file that holds them (see ``text_beside``)
    class_names: tuple[str, ...]  # in the order of their labels
    root: str  # the folder or list that it was read from; identifies the data set
    notes: tuple[str, ...] = ()  # a sentence on each group of unused files

    @staticmethod
    def of(
        items: Iterable[tuple[str | Path, int, str]], *, class_names: Sequence[str] = (), root: str = ""
    ) -> "Manifest":
        """Make a manifest of (path, label, caption)."""
        rows = [{"path": str(path), "label": label, "caption": words, "text": ""} for path, label, words in items]
        return Manifest(pa.Table.from_pylist(rows, ROWS), tuple(class_names), root)

    @property
    def has_captions(self) -> bool:
        """Whether there are words for any video, here or beside it."""
        return any(pc.any(pc.not_equal(self.table[name], "")).as_py() for name in ("caption", "text"))

    @property
    def rows_with_text(self) -> np.ndarray:
        """Rows whose caption is the text beside the video, int64."""
        return np.flatnonzero(pc.not_equal(self.table["text"], "").to_numpy())

    def __len__(self) -> int:
        return self.table.num_rows


def rows_of(
    paths: pa.ChunkedArray,
    labels: pa.Array,
    names: Sequence[str],
    *,
    caption: pa.ChunkedArray | None = None,
    text: pa.ChunkedArray | None = None,
) -> pa.Table:
    """Build the table of videos, (n,) strings, with labels, (n,) int32, which number ``names``.

    Captions are (n,) strings, several of a video packed. A missing one is in the ``text`` file (see ``text_beside``),
    which has not been read yet, or else the name of the class, unless that is a number.

    >>> rows_of(pa.chunked_array([["a/1.mp4"]]), pa.array([0], pa.int32()), ["wind"])["caption"].to_pylist()
    ['wind']
    """
    number, kind = len(paths), pa.large_string()
    captions = pa.nulls(number, kind) if caption is None else pc.cast(caption, kind)
    captions = pc.if_else(pc.equal(captions, ""), None, captions)
    texts = pa.repeat(pa.scalar("", kind), number) if text is None else text
    spoken = pa.array(["" if name.isdecimal() else name for name in names], kind)
    named = spoken.take(pc.if_else(pc.less(labels, 0), None, labels)) if len(names) else pa.nulls(number, kind)
    columns = {
        "path": paths,
        "label": pc.fill_null(labels, -1),
        "caption": pc.fill_null(pc.coalesce(captions, named), ""),
        "text": pc.if_else(pc.is_valid(captions), "", texts),
    }
    return pa.table(columns, schema=ROWS)


def text_beside(path: str, text: str = ".txt") -> str:
    """Return the path of the caption file of a video, or of a folder of pictures.

    ``text`` is the ending that replaces that of the video, or the complete name of another file in its folder.

    >>> text_beside("videos/a.mp4"), text_beside("videos/a", ".TXT"), text_beside("videos/a.mp4", "A.caption")
    ('videos/a.txt', 'videos/a.TXT', 'videos/A.caption')
    """
    if not text.startswith("."):
        return f"{os.path.dirname(path)}/{text}"
    stem, extension = os.path.splitext(path)
    return (stem if extension.lower().lstrip(".") in (*EXTENSIONS, *PICTURES) else path) + text


def read_caption(path: str, text: str = ".txt") -> str:
    """Return the text beside a video (see ``text_beside``); empty if it is gone, or says ``nan`` and the like.

    ``ValueError`` if it cannot be decoded (see ``text.decode``).
    """
    try:
        return captions_of(read_text(text_beside(path, text))) or ""
    except FileNotFoundError:
        return ""
