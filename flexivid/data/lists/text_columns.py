"""Columns of text in Arrow. Imports nothing else: decode processes load this file."""

from collections.abc import Iterable, Mapping

import pyarrow as pa

PIECE = 1 << 16  # rows that become Arrow at a time


class TextColumns:
    """Columns of text that become Arrow piece by piece, to save memory.

    >>> columns = TextColumns("path")
    >>> columns.add({"path": ["a.mp4"]})
    >>> columns.arrays()["path"].to_pylist()
    ['a.mp4']
    """

    def __init__(self, *names: str) -> None:
        self._pending: dict[str, list[str | None]] = {name: [] for name in names}
        self._pieces: dict[str, list[pa.Array]] = {name: [] for name in names}

    def add(self, rows: Mapping[str, Iterable[str | None]]) -> None:
        """Add equally many cells to each column."""
        for name, cells in rows.items():
            self._pending[name].extend(cells)
        if len(self._pending["path"]) >= PIECE:
            self._flush()

    def arrays(self) -> dict[str, pa.ChunkedArray]:
        self._flush()
        return {name: pa.chunked_array(pieces, pa.large_string()) for name, pieces in self._pieces.items()}

    def _flush(self) -> None:
        for name, pending in self._pending.items():
            self._pieces[name].append(pa.array(pending, pa.large_string()))
            pending.clear()
