"""The file of an index, one Arrow record batch mapped into memory, and the files of one that is not finished."""

import json
import mmap
import os
import shutil
import struct
import time
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from flexivid.data.decoding.facts import Facts
from flexivid.runtime.files import atomic_write

LOOK = pa.schema(  # from probing a file
    [
        ("path", pa.large_string()),
        ("size", pa.int64()),
        ("stamp", pa.int64()),
        ("num_frames", pa.int32()),
        ("fps", pa.float32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("duration", pa.float64()),
        ("decoder", pa.large_string()),
        ("is_variable_rate", pa.bool_()),
        ("display", pa.large_string()),
        ("facts", pa.large_binary()),
        ("reason", pa.large_string()),
    ]
)
TABLE = pa.schema(  # and from the manifest
    [
        *LOOK,
        ("label", pa.int32()),
        ("caption", pa.large_string()),
        ("caption_stamp", pa.int64()),
        ("number", pa.int64()),
    ]
)
FORMAT = "flexivid index 2: " + ",".join([*TABLE.names, *Facts._fields])  # an index of another format is built again
MAX_ROWS = 2048  # of a part of an index that is being built
MAX_SECONDS = 5.0  # until it is written


class Table(NamedTuple):
    """Rows of an index, mapped into memory; those of files that cannot be decoded come last.

    >>> Table.open("nowhere.arrow") is None
    True
    """

    batch: pa.RecordBatch
    path: Path | None = None
    file: FileIO | None = None
    base: int = 0  # address that the file is mapped to

    @staticmethod
    def open(path: str | os.PathLike[str]) -> "Table | None":
        """Return the table in a file; None if there is none, or one of another format."""
        try:
            file = FileIO(path)
            mapped = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            batch = pa.ipc.open_file(pa.BufferReader(mapped)).get_batch(0)
        except (OSError, ValueError):
            return None
        table = Table(batch, Path(path), file, mapped.address)
        return table if table._note("format") == FORMAT else None

    @staticmethod
    def write(columns: pa.Table, path: Path, *, class_names: Sequence[str] = (), num_good: int) -> None:
        """Write a table in one piece, so that its columns can be mapped; other processes see it whole or not at all."""
        notes = {"format": FORMAT, "class_names": json.dumps(list(class_names)), "num_good": str(num_good)}
        notes["token"] = os.urandom(8).hex()
        batches = columns.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], TABLE)]
        assert len(batches) == 1
        write_batch(batches[0].replace_schema_metadata(notes), path)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their labels."""
        return tuple(json.loads(self._note("class_names")))

    @property
    def num_good(self) -> int:
        """How many rows, the first ones, can be decoded."""
        return int(self._note("num_good"))

    @property
    def token(self) -> str:
        """Tells this table from every other, a later one in the same file too."""
        return self._note("token")

    def has_words(self, name: str) -> bool:
        """Return whether a column of strings holds any that is not empty."""
        if self.batch.num_rows == 0:
            return False
        ends = np.frombuffer(self.batch.column(name).buffers()[1], np.int64)
        return bool(ends[self.batch.num_rows] > ends[0])

    def word(self, name: str, row: int) -> Any:
        """Return a string or bytes from one row.

        It is read from the file: touching mapped memory maps what lies around as well, and rows taken at random would
        soon make most of the table count as memory of this process.
        """
        column = self.batch.column(name)
        if self.file is None or not hasattr(os, "pread"):
            return column[row].as_py()
        _, ends, data = column.buffers()
        begin, end = struct.unpack("<qq", os.pread(self.file.fileno(), 16, ends.address - self.base + 8 * row))
        raw = os.pread(self.file.fileno(), end - begin, data.address - self.base + begin) if end > begin else b""
        return raw.decode() if pa.types.is_large_string(column.type) else raw

    def _note(self, name: str) -> str:
        return (self.batch.schema.metadata or {}).get(name.encode(), b"").decode()


def write_batch(batch: pa.RecordBatch, path: Path) -> None:
    """Write rows to an Arrow file, which appears whole or not at all."""
    with atomic_write(path) as part, pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


class Parts:
    """Rows of an index that is being built, in small files, so that an interrupted build loses seconds of work at most.

    They are in a folder beside the file of the index until they are cleared; ``OSError`` if it cannot be written. In a
    ``with`` block, rows are on disk at the end whatever happens.
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
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
