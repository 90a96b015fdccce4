"""Read ``metadata.csv`` (or .tsv, .jsonl, .parquet) in a folder of videos, as Hugging Face's ``videofolder``.

The files in the folder are the videos; the list adds captions and classes to them. Videos without a row and rows
without a video are reported. Takes and returns Arrow columns.
"""

import os
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from flexivid.data.lists.tables import read_table
from flexivid.runtime.printable import printable

NUM_EXAMPLES = 3


class Metadata(NamedTuple):
    """Captions, classes and parts of some videos."""

    captions: pa.ChunkedArray | None  # (n,) strings, null where there is none; None if no list has captions
    labels: pa.ChunkedArray | None  # likewise; names or numbers of classes
    splits: pa.ChunkedArray | None  # likewise; the part of each video
    source: str  # the lists, for messages
    notes: tuple[str, ...]  # a sentence on each mismatch


def read_metadata(files: Sequence[str]) -> tuple[pa.Table, ...]:
    """Read lists beside videos; ``ValueError`` if a folder has two of them, or one cannot be read.

    >>> read_metadata(["v/metadata.csv", "v/metadata.jsonl"])
    Traceback (most recent call last):
    ...
    ValueError: got v/metadata.csv and v/metadata.jsonl; expected one list in a folder; remove or rename the other
    """
    for folder, count in Counter(map(os.path.dirname, files)).items():
        if count > 1:
            some = " and ".join(file for file in files if os.path.dirname(file) == folder)
            raise ValueError(f"got {some}; expected one list in a folder; remove or rename the other")
    return tuple(_read(file) for file in files)


def look_up(paths: pa.ChunkedArray, tables: Sequence[pa.Table], files: Sequence[str], *, below: str) -> Metadata:
    """Look up videos in the tables of ``read_metadata``; rows on files that are not ``below`` their folder are ignored.

    >>> table = pa.table({"path": pa.array(["v/b.mp4", "v/c.mp4"], pa.large_string()), "caption": ["sea", "sky"]})
    >>> paths = pa.chunked_array([["v/a.mp4", "v/b.mp4"]], pa.large_string())
    >>> found = look_up(paths, [table], ["v/metadata.csv"], below="v")
    >>> found.captions.to_pylist(), len(found.notes)
    ([None, 'sea'], 2)
    """
    if not tables:
        return Metadata(None, None, None, "", ())
    source, table = ", ".join(files), pa.concat_tables(map(_as_text, tables), promote_options="default")
    table = table.filter(pc.starts_with(table["path"], f"{below.rstrip('/')}/"))
    rows = pc.index_in(paths, value_set=table["path"].combine_chunks())
    columns = {name: table[name].take(rows) for name in ("caption", "label", "split") if name in table.column_names}
    unlisted = paths.filter(pc.is_null(rows))
    missing = table["path"].filter(pc.invert(pc.is_in(table["path"], value_set=paths.combine_chunks())))
    repeated = len(table) - len(pc.unique(table["path"]))
    notes = [f"got {len(unlisted)} videos that {source} does not name: {_some(unlisted)}; add them"] * bool(unlisted)
    notes += [f"got {len(missing)} rows of {source} without a video: {_some(missing)}; correct them"] * bool(missing)
    notes += [f"got {repeated} rows of {source} for videos that other rows name; the first is used"] * bool(repeated)
    return Metadata(columns.get("caption"), columns.get("label"), columns.get("split"), source, tuple(notes))


def _read(file: str) -> pa.Table:
    try:
        return read_table(file)
    except ValueError as error:
        raise ValueError(f"{error}; or rename {os.path.basename(file)}, if it is no list of the videos") from error


def _as_text(table: pa.Table) -> pa.Table:
    """Cast the columns of lists of different formats to one type."""
    text = pa.large_string()
    names = [name for name in ("path", "caption", "label", "split") if name in table.column_names]
    return pa.table({name: pc.cast(table[name], text) for name in names})


def _some(paths: pa.ChunkedArray) -> str:
    named = [printable(path) for path in paths.slice(0, NUM_EXAMPLES).to_pylist()]
    return ", ".join(named) + ", ..." * (len(paths) > len(named))
