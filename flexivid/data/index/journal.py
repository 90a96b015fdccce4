"""Rows of an unfinished index in small files, so that an interrupted build loses seconds of work at most."""

import os
import shutil
import time
from pathlib import Path

import pyarrow as pa

from flexivid.data.index.table import FORMAT, LOOK, write_batch

MAX_ROWS = 2048
MAX_SECONDS = 5.0


class Parts:
    """Rows of an index that is being built. In a ``with`` block, rows are on disk at the end whatever happens.

    They are in a folder beside the file of the index until they are cleared; ``OSError`` if it cannot be written.
    """

    def __init__(self, index: Path) -> None:
        self.folder = index.with_name(index.name + ".parts")
        self._rows: list[dict[str, object]] = []
        self._flushed = time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"got {index.parent}, which cannot be written ({error.strerror}); expected a folder for the index; "
                f"set FLEXIVID_CACHE to one"
            ) from error

    def add(self, row: dict[str, object]) -> None:
        """Add a row; it is written with others after a few seconds."""
        self._rows.append(row)
        if len(self._rows) >= MAX_ROWS or time.monotonic() - self._flushed > MAX_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        if self._rows:
            self.folder.mkdir(parents=True, exist_ok=True)  # another process may have finished and cleared it
            name = f"{time.time_ns():020d}-{os.getpid()}.arrow"
            batch = pa.RecordBatch.from_pylist(self._rows, schema=LOOK)
            write_batch(batch.replace_schema_metadata({"format": FORMAT}), self.folder / name)
        self._rows, self._flushed = [], time.monotonic()

    def read(self) -> list[pa.Table]:
        """Return what was written, in this build or before, the latest first; parts of another format are left out."""
        tables = []
        for path in sorted(self.folder.glob("*.arrow"), reverse=True):
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            if (table.schema.metadata or {}).get(b"format") == FORMAT.encode():
                tables.append(table.replace_schema_metadata(None))
        return tables

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
