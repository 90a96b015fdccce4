"""Lists of videos in files: CSV, TSV, JSON, JSON lines, Parquet, and the train and test lists of UCF101.

Columns are recognised by their names (``COLUMNS``); others are ignored, whatever they hold. Cells are text: ``2.0`` and
``"2"`` mean the same in every format, and ``nan``, ``NA``, ``null`` and ``None`` are empty (see ``cells``). Paths are
relative to the list. Whether the files exist is not checked here: a missing one is bad when it is probed. Lists may be
anywhere that fsspec reaches.
"""

import gzip
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from flexivid.data.lists.cells import brief, captions_of, text_of, word_of
from flexivid.data.lists.records import Record, csv_records, json_records, jsonl_records, parquet_records
from flexivid.data.lists.row_paths import whole_paths
from flexivid.data.lists.text import read_lines, trimmed
from flexivid.data.lists.text_columns import TextColumns
from flexivid.data.storage.byte_range import open_binary
from flexivid.runtime.paths import is_remote, resolve

COLUMNS = {
    "path": ("path", "video", "video_path", "media_path", "file_name"),
    "caption": ("text", "caption", "cap", "prompt"),
    "label": ("label", "class"),
    "split": ("split",),
}
FORMATS = ("csv", "tsv", "json", "jsonl", "ndjson", "parquet")


def is_table(path: str) -> bool:
    """Return whether a path names a list of videos, by its ending.

    >>> is_table("videos/train.CSV"), is_table("videos/train")
    (True, False)
    """
    return _format(path) in FORMATS


def read_table(path: str) -> pa.Table:
    r"""Read a list of videos, a file or a url: ``path`` and as many of ``caption``, ``label`` and ``split`` as it has.

    ``FileNotFoundError`` if there is no such list; ``ValueError`` if it cannot be read, or its columns are not
    recognised.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/list.csv"
    >>> _ = open(path, "w").write("video,cap\na.mp4,a dog\n")
    >>> read_table(path)["caption"].to_pylist()
    ['a dog']
    """
    path = resolve(path)
    columns = _Table(path)
    try:
        with open_binary(path) as file:
            for record in _READERS[_format(path)](_unpacked(file, path), path, _pick):
                columns.add(record)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"got {path}, which does not exist; expected a list of videos; correct it") from error
    except (pa.ArrowException, EOFError, zlib.error, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"got {path}, which cannot be read: {reason}; expected {_format(path)}; repair it") from error
    table = columns.table()
    if len(table) == 0:
        raise ValueError(f"got {path}, which has no row; expected a path in each row; repair the list")
    return table.set_column(0, "path", whole_paths(path, table["path"]))


def column_name(table: pa.Table, ours: str) -> str:
    """Return what the list calls a column of ``read_table``.

    >>> column_name(pa.table({"label": ["waves"]}), "label")
    'label'
    """
    return (table.schema.metadata or {}).get(ours.encode(), ours.encode()).decode()


def read_ucf101(train_list: str) -> tuple[pa.Table, tuple[str, ...]]:
    """Read the lists of UCF101: ``trainlist01.txt`` (or 02, 03), the test list and ``classInd.txt`` beside it.

    The videos are beside the folder of the lists, or in ``UCF-101`` there. Returns a table with the columns ``path``,
    ``label`` (a name) and ``split``, and the names in the order of their numbers. ``ValueError`` if a line is not
    ``Class/video.avi``.
    """
    lists = Path(train_list).parent
    names = _ucf101_classes(lists / "classInd.txt")
    rows: list[tuple[str, str, str]] = []
    for split, name in (("train", Path(train_list).name), ("test", Path(train_list).name.replace("train", "test"))):
        for number, line in enumerate(read_lines(lists / name), 1):
            match = re.fullmatch(r"(.+?)(?:\s+(\d+))?", line)  # in train lists, the number of the class follows
            video, index = match.groups() if match else (line, None)
            label = video.split("/")[0]
            if "/" not in video or names.get(label) is None or (index and names[label] != int(index)):
                raise ValueError(
                    f"got {line!r}, row {number} of {lists / name}; expected Class/video.avi, with a class of "
                    f"classInd.txt and no number but its own; repair the list"
                )
            rows.append((video, label, split))
    if not rows:
        raise ValueError(f"got {train_list}, which has no row; expected Class/video.avi in each; repair the list")
    homes = [lists.parent / "UCF-101", lists.parent, lists, lists / "UCF-101"]
    home = next((home for home in homes if (home / rows[0][0]).exists()), homes[0])
    paths, labels, splits = zip(*rows, strict=True)
    table = pa.table({"path": [f"{home}/{path}" for path in paths], "label": labels, "split": splits})
    return table, tuple(sorted(names, key=names.__getitem__))


def _ucf101_classes(file: Path) -> dict[str, int]:
    """Return the number of each class, whatever the order of the lines."""
    names: dict[str, int] = {}
    for row, line in enumerate(read_lines(file), 1):
        match = re.fullmatch(r"(\d+)\s+(.+)", line)
        if not match or match[2] in names or int(match[1]) in names.values():
            raise ValueError(
                f"got {line!r}, row {row} of {file}; expected a number and a class, each once; repair the list"
            )
        names[match[2]] = int(match[1])
    return names


class _Table:
    """Collects the records of a list."""

    def __init__(self, path: str) -> None:
        self._path, self._columns = path, TextColumns(*COLUMNS)
        self._names: dict[str, str] = {}  # ours of each column that there is: the list's
        self._num_nameless, self._nameless = 0, ""  # labels that are words for nothing, and the first of them

    def add(self, record: Record) -> None:
        """Add a row; ``ValueError`` if a cell holds what its column cannot, or if there is no path."""
        row: dict[str, list[str | None]] = {}
        for ours in COLUMNS:
            value = record.cells.get(ours)
            try:
                text = None if value is None else _READ_CELL[ours](value)
            except ValueError as error:
                raise ValueError(
                    f"got {record.place(self._path, ours)}, which holds {error}; correct the row"
                ) from error
            if text is None and ours == "path":
                raise ValueError(f"got {record.place(self._path, ours)}, without a path; expected one; correct the row")
            if text is None and ours == "label" and isinstance(value, str) and trimmed(value):
                self._nameless = self._nameless or f"{value!r} in {record.place(self._path, ours)}"
                self._num_nameless += 1
            row[ours] = [text]
        self._columns.add(row)
        self._names.update(record.columns)

    def table(self) -> pa.Table:
        """Return the columns that the list has."""
        if self._num_nameless:
            warnings.warn(
                f"got {self._num_nameless} rows whose class is a word for nothing, the first {self._nameless}; "
                f"they have no class; rename the class if it is one",
                stacklevel=4,
            )
        columns = {ours: column for ours, column in self._columns.arrays().items() if ours in {"path", *self._names}}
        return pa.table(columns).replace_schema_metadata(self._names)


def _format(path: str) -> str:
    name = (path.partition("?")[0] if is_remote(path) else path).lower().removesuffix(".gz")
    return name.rsplit(".", 1)[-1] if "." in name else ""


def _pick(columns: Sequence[str], where: str) -> dict[str, str]:
    """Return which of a list's columns holds what: our name for it -> the list's."""
    picked: dict[str, str] = {}
    for ours, names in COLUMNS.items():
        present = [column for column in columns if trimmed(column).lower() in names]
        if len(present) > 1 or (ours == "path" and not present):
            wrong = f"{len(present)} columns for the {ours} ({', '.join(present)})" if present else "no column of paths"
            raise ValueError(
                f"got {where} with {wrong} among {', '.join(map(brief, columns))}; "
                f"expected one of {', '.join(names)}; rename or remove columns"
            )
        if present:
            picked[ours] = present[0]
    return picked


def _unpacked(file: IO[bytes], path: str) -> Any:
    return gzip.open(file) if path.lower().endswith(".gz") else file


_READERS: dict[str, Callable[..., Iterator[Record]]] = {
    **{"csv": csv_records, "tsv": csv_records, "json": json_records, "parquet": parquet_records},
    **{"jsonl": jsonl_records, "ndjson": jsonl_records},
}
_READ_CELL: dict[str, Any] = {"path": text_of, "caption": captions_of, "label": word_of, "split": word_of}
