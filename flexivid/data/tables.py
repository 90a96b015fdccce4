"""Lists of videos in files: CSV, TSV, JSON, JSON lines, Parquet, and the train and test lists of UCF101.

Columns are recognised by their names (``COLUMNS``); others are ignored. Paths are relative to the list. The files named
are not looked for: one that is missing turns out bad when it is probed. Lists may be anywhere that fsspec reaches.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from flexivid.data.byte_range import open_binary
from flexivid.data.row_paths import whole_paths
from flexivid.files.paths import is_remote, resolve

COLUMNS = {
    "path": ("path", "video", "video_path", "media_path", "file_name"),
    "caption": ("text", "caption", "cap", "prompt"),
    "label": ("label", "class"),
    "split": ("split",),
}
FORMATS = ("csv", "tsv", "json", "jsonl", "ndjson", "parquet")
DELIMITERS = (",", "\t", ";", "|")
BLOCK = 64 << 20  # bytes; a line must fit into a block


def is_table(path: str) -> bool:
    """Return whether a path names a list of videos, by its ending.

    >>> is_table("videos/train.CSV"), is_table("videos/train")
    (True, False)
    """
    return _format(path) in FORMATS


def read_table(path: str) -> pa.Table:
    r"""Read a list of videos.

    Args:
        path: The list, a file or a url.

    Returns:
        A table with the column ``path`` and as many of ``caption``, ``label`` and ``split`` as the list has.

    Raises:
        FileNotFoundError: If there is no such list.
        ValueError: If it cannot be read, or its columns are not recognised.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/list.csv"
    >>> _ = open(path, "w").write("video,cap\na.mp4,a dog\n")
    >>> read_table(path)["caption"].to_pylist()
    ['a dog']
    """
    path = resolve(path)
    try:
        with open_binary(path) as file:
            table = _READERS[_format(path)](file, path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"got {path}, which does not exist; expected a list of videos; correct it") from error
    except (pa.ArrowInvalid, pa.ArrowTypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        kind = _format(path)
        raise ValueError(f"got {path}, which cannot be read: {error}; expected {kind}; repair the list") from error
    paths = pc.cast(table["path"], pa.large_string())
    empty = pc.sum(pc.fill_null(pc.equal(pc.utf8_trim_whitespace(paths), ""), True)).as_py()
    if empty or len(paths) == 0:
        wrong = f"{empty} rows without a path" if empty else "no row"
        raise ValueError(f"got {path}, which has {wrong}; expected a path in each row; repair the list")
    return table.set_column(table.column_names.index("path"), "path", whole_paths(path, paths))


def read_ucf101(train_list: str) -> tuple[pa.Table, tuple[str, ...]]:
    """Read the lists of UCF101: ``trainlist01.txt`` (or 02, 03), the test list and ``classInd.txt`` beside it.

    Args:
        train_list: The train list. The videos are beside the folder of the lists, or in ``UCF-101`` there.

    Returns:
        A table with the columns ``path``, ``label`` (a name) and ``split``; the names in the order of their numbers.

    Raises:
        ValueError: If a line is not ``Class/video.avi``.

    >>> read_ucf101("nowhere/trainlist01.txt")
    Traceback (most recent call last):
    ...
    FileNotFoundError: [Errno 2] No such file or directory: 'nowhere/classInd.txt'
    """
    lists = Path(train_list).parent
    names = tuple(line.split()[1] for line in (lists / "classInd.txt").read_text().splitlines() if line.strip())
    rows: list[tuple[str, str, str]] = []
    for split, name in (("train", Path(train_list).name), ("test", Path(train_list).name.replace("train", "test"))):
        for line in filter(None, map(str.strip, (lists / name).read_text().splitlines())):
            video = line.split()[0]
            if "/" not in video:
                raise ValueError(f"got {line!r} in {lists / name}; expected Class/video.avi; repair the list")
            rows.append((video, video.split("/")[0], split))
    homes = [lists.parent / "UCF-101", lists.parent, lists, lists / "UCF-101"]
    home = next((home for home in homes if (home / rows[0][0]).exists()), homes[0])
    paths, labels, splits = zip(*rows, strict=True)
    return pa.table({"path": [f"{home}/{path}" for path in paths], "label": labels, "split": splits}), names


def _format(path: str) -> str:
    name = (path.partition("?")[0] if is_remote(path) else path).lower().removesuffix(".gz")
    return name.rsplit(".", 1)[-1] if "." in name else ""


def _sniff(columns: Sequence[str], path: str) -> dict[str, str]:
    """Return which of a list's columns holds what: our name for it -> the list's."""
    known = {column.strip().lower(): column for column in columns}
    found: dict[str, str] = {}
    for ours, names in COLUMNS.items():
        present = [known[name] for name in names if name in known]
        if len(present) > 1 or (ours == "path" and not present):
            wrong = f"{len(present)} columns for the {ours} ({', '.join(present)})" if present else "no column of paths"
            raise ValueError(
                f"got {path} with {wrong} among {', '.join(map(repr, columns))}; "
                f"expected one of {', '.join(names)}; rename or remove columns"
            )
        if present:
            found[ours] = present[0]
    return found


def _read_csv(file: IO[bytes], path: str) -> pa.Table:
    file = _unpacked(file, path)
    head = file.readline().decode("utf-8-sig")
    delimiter = "\t" if _format(path) == "tsv" else max(DELIMITERS, key=head.count)
    columns = next(csv.reader([head], delimiter=delimiter), [])
    found = _sniff(columns, path)
    table = pyarrow.csv.read_csv(
        file,
        read_options=pyarrow.csv.ReadOptions(column_names=columns, block_size=BLOCK),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(found.values(), pa.large_string()), include_columns=list(found.values())
        ),
    )
    return table.rename_columns(list(found))


def _read_json(file: IO[bytes], path: str) -> pa.Table:
    rows = json.load(_unpacked(file, path))
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"got {path}, which is no list of objects; expected one object a video; repair the list")
    found = _sniff(list(dict.fromkeys(name for row in rows for name in row)), path)
    return pa.table({ours: pa.array([row.get(name) for row in rows]) for ours, name in found.items()})


def _read_jsonl(file: IO[bytes], path: str) -> pa.Table:
    options = pyarrow.json.ReadOptions(block_size=BLOCK)
    return _renamed(pyarrow.json.read_json(_unpacked(file, path), read_options=options), path)


def _read_parquet(file: IO[bytes], path: str) -> pa.Table:
    parquet = pyarrow.parquet.ParquetFile(file)
    found = _sniff(parquet.schema_arrow.names, path)
    return _renamed(parquet.read(columns=list(found.values())), path)


def _renamed(table: pa.Table, path: str) -> pa.Table:
    found = _sniff(table.column_names, path)
    return table.select(list(found.values())).rename_columns(list(found))


def _unpacked(file: IO[bytes], path: str) -> Any:
    import gzip  # rarely used

    return gzip.open(file) if path.lower().endswith(".gz") else file


_READERS = {
    **{"csv": _read_csv, "tsv": _read_csv, "json": _read_json, "jsonl": _read_jsonl, "ndjson": _read_jsonl},
    "parquet": _read_parquet,
}
