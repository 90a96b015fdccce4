"""Videos as rows of an index, for ten videos or ten million.

The index is mapped into memory and not read: columns of numbers are views of it, and strings are fetched row by row.
A pickle holds the name of the file and the row numbers, not their contents. Imports numpy and Arrow.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from flexivid.data.index.table import TABLE, Table
from flexivid.data.lists.cells import unpack


def _stored(name: str) -> "cached_property[np.ndarray]":
    """A column of the table, for the selected rows."""
    return cached_property(lambda videos: videos._column(name))


class Videos:
    """Videos that can be decoded, or runs of their frames.

    The columns are arrays with one number a video; without a selection they are views of the file. ``rows`` are those
    of the table, (n,) integers or a slice. A run has ``num_frames`` from number ``first`` on, (n,) int32 each; None:
    all.

    >>> videos = Videos.of(["a.mp4", "b.mp4"], num_frames=[250, 16], fps=25.0)
    >>> videos.num_frames.tolist(), videos.path(1), videos.label.tolist()
    ([250, 16], 'b.mp4', [-1, -1])
    >>> tail = videos.cut(0, 200, 50)
    >>> tail.path(0), tail.first.tolist(), tail.num_frames.tolist()
    ('a.mp4', [200], [50])
    """

    label = _stored("label")  # number of the class of each, (n,) int32, -1 without classes
    fps = _stored("fps")  # mean frames a second, (n,) float32, 0 where unknown
    heights, widths = _stored("height"), _stored("width")  # of the picture as displayed, (n,) int32 each
    durations = _stored("duration")  # seconds that each whole file lasts, (n,) float64
    is_variable_rate = _stored("is_variable_rate")  # the frames follow each other unevenly, (n,) bool
    num_bytes = _stored("size")  # of each file, (n,) int64; -1 or 0 where unknown

    def __init__(
        self,
        table: Table,
        rows: np.ndarray | slice,
        *,
        first: np.ndarray | None = None,
        num_frames: np.ndarray | None = None,
    ) -> None:
        self._table, self._rows, self._first, self._num_frames = table, rows, first, num_frames
        self._length = len(range(table.batch.num_rows)[rows]) if isinstance(rows, slice) else len(rows)

    @staticmethod
    def of(paths: Sequence[str], **columns: Any) -> "Videos":
        """Make videos out of what is at hand, without a file behind them.

        Columns are any of num_frames, fps, label, caption, width, height, duration, facts: one value for each video, or
        one for all of them. ``ValueError`` if there is no such column.

        >>> Videos.of(["a.mp4", "b.mp4"], num_frames=16, height=[240, 480], width=320).heights.tolist()
        [240, 480]
        """
        unknown = sorted(set(columns) - set(TABLE.names))
        if unknown:
            raise ValueError(f"got {', '.join(unknown)}; expected {', '.join(TABLE.names)}; correct the name")
        values: dict[str, Any] = dict.fromkeys(TABLE.names, 0) | {"label": -1, "is_variable_rate": False, "facts": b""}
        values |= dict.fromkeys(("caption", "decoder", "display", "reason"), "") | columns | {"path": list(paths)}
        arrays = [_array(values[field.name], field.type, len(paths)) for field in TABLE]
        return Videos(Table(pa.RecordBatch.from_arrays(arrays, schema=TABLE)), slice(0, len(paths)))

    def __len__(self) -> int:
        return self._length

    @cached_property
    def num_frames(self) -> np.ndarray:
        """Frames of each run, (n,) int32."""
        return self._column("num_frames") if self._num_frames is None else self._num_frames

    @cached_property
    def first(self) -> np.ndarray:
        """Number of the first frame of each run in its file, (n,) int32."""
        return np.broadcast_to(np.int32(0), len(self)) if self._first is None else self._first

    @property
    def has_captions(self) -> bool:
        """Whether any video of the table has a caption."""
        return self._table.has_words("caption")

    @cached_property
    def has_displays(self) -> bool:
        """Whether any video of the table is displayed differently than stored, rotation aside."""
        return self._table.has_words("display")

    def files(self) -> np.ndarray:
        """Number the file of each video, from 0 in the order in which files come first, (n,) int32.

        >>> Videos.of(["a.mp4", "b.mp4", "a.mp4"]).files().tolist()
        [0, 1, 0]
        """
        paths = self._table.batch.column("path")
        paths = paths[self._rows] if isinstance(self._rows, slice) else paths.take(pa.array(self._rows))
        return paths.dictionary_encode().indices.to_numpy()

    def path(self, row: int) -> str:
        """Return the path or url of a video, or of its folder of pictures."""
        return self._value("path", row)

    def captions(self, row: int) -> tuple[str, ...]:
        """Return all captions of a video, at least one, which is empty where there is none."""
        return unpack(self._value("caption", row))

    def facts(self, row: int) -> bytes:
        """Return the packed result of ``probe``, for ``Facts.from_bytes``."""
        return self._value("facts", row)

    def decoder(self, row: int) -> str:
        """Return the name of the decoder that is exact for a video."""
        return self._value("decoder", row)

    def display(self, row: int) -> str:
        """Return what the file says about its display, in words; empty for most (see ``Facts.display_words``)."""
        return self._value("display", row) if self.has_displays else ""

    def select(self, rows: np.ndarray) -> "Videos":
        """Return some of the videos, in the order given; numbers that are taken from here are copies.

        >>> Videos.of(["a.mp4", "b.mp4"], num_frames=[250, 16]).select(np.array([1])).num_frames.tolist()
        [16]
        """
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        if len(rows) and not (-len(self) <= rows.min() and rows.max() < len(self)):
            raise IndexError(f"got rows {rows.min()} to {rows.max()}; expected 0 to {len(self) - 1}; correct the rows")
        first = None if self._first is None else self._first[rows]
        num_frames = None if self._num_frames is None else self._num_frames[rows]
        return Videos(self._table, self._table_rows(rows % max(1, len(self))), first=first, num_frames=num_frames)

    def cut(self, row: int | np.ndarray, first: int, num_frames: int) -> "Videos":
        """Return a run of the frames of one video, or of each of several; ``first`` is counted from where it begins."""
        rows = np.atleast_1d(row)
        length = int(self.num_frames[rows].min())
        if not 0 <= first <= first + num_frames <= length:
            request = f"frames {first} to {first + num_frames} of {self.path(int(rows[0]))}"
            raise ValueError(f"got {request}; expected at most {length}; ask for frames that it has")
        lengths = np.full(len(rows), num_frames, np.int32)
        return Videos(self._table, self._table_rows(rows), first=self.first[rows] + np.int32(first), num_frames=lengths)

    def __reduce__(self) -> tuple[Any, ...]:
        table = self._table
        where = table.batch if table.path is None else (str(table.path), table.token)
        return _restore, (where, self._rows, self._first, self._num_frames)

    def _table_rows(self, rows: np.ndarray) -> np.ndarray:
        return rows + self._rows.start if isinstance(self._rows, slice) else self._rows[rows]

    def _column(self, name: str) -> np.ndarray:
        column = self._table.batch.column(name)
        return column.to_numpy(zero_copy_only=not pa.types.is_boolean(column.type))[self._rows]

    def _value(self, name: str, row: int) -> Any:
        row = range(len(self))[row]
        table_row = row + self._rows.start if isinstance(self._rows, slice) else int(self._rows[row])
        return self._table.word(name, table_row)


def _array(value: Any, kind: pa.DataType, length: int) -> pa.Array:
    each = isinstance(value, (list, tuple, np.ndarray))
    return pa.array(value, kind) if each else pa.repeat(pa.scalar(value, kind), length)


@lru_cache(maxsize=16)
def _reopen(path: str, token: str) -> Table:
    table = Table.open(path)
    if table is None or table.token != token:
        state = "is gone" if table is None else "was built anew since"
        raise ValueError(f"got the index {path}, which {state}; expected it unchanged during a run; start again")
    return table


def _restore(where: pa.RecordBatch | tuple[str, str], rows: Any, first: Any, num_frames: Any) -> Videos:
    table = _reopen(*where) if isinstance(where, tuple) else Table(where)
    return Videos(table, rows, first=first, num_frames=num_frames)
