"""Read the rows of a list one by one from CSV, TSV, JSON, JSON lines or Parquet, without converting cells.

Only the requested columns are read. Every error names the file, the row and, in text formats, the line. Rows are
counted from 1, without the header and without empty lines.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from flexivid.data.lists.text import decode, text_lines, trimmed
from flexivid.data.storage.video_names import EXTENSIONS

DELIMITERS = (",", "\t", ";", "|")
BATCH = 1 << 14  # rows of Parquet at a time
_SPACE = re.compile(r"\s*")

Pick = Callable[[Sequence[str], str], dict[str, str]]  # names of columns, place -> our name of each that counts: theirs


class Record(NamedTuple):
    """One row of a list."""

    number: int  # of the row, from 1
    line: int  # line of the file where it begins, from 1; 0 where there are no lines
    columns: Mapping[str, str]  # our name of each column: the list's
    cells: Mapping[str, Any]  # our name of each column: its value, of whatever type the format has

    def place(self, path: str, column: str) -> str:
        """Return the location of a cell, for messages."""
        return f"{_row(path, self.number, self.line)}, column {self.columns.get(column, column)!r}"


def csv_records(file: IO[bytes], path: str, pick: Pick) -> Iterator[Record]:
    r"""Read the columns of CSV, with any of the usual separators, that ``pick`` chooses by their names.

    ``ValueError`` if it cannot be decoded, a quote is not closed, or a row has too many or too few cells.

    >>> import io
    >>> pick = lambda names, place: {"path": "video"}
    >>> [record.cells for record in csv_records(io.BytesIO(b"video;n\ra.mp4;1\r"), "l.csv", pick)]
    [{'path': 'a.mp4'}]
    """
    lines = text_lines(file, path)
    skipped, head = 0, ""
    for head in lines:
        skipped += 1
        if trimmed(head) and not re.fullmatch(r'"?sep=."?', trimmed(head), re.IGNORECASE):  # as Excel writes
            break
    delimiter = _delimiter(head, pick, path)
    spaced = head.count(f"{delimiter} ") == head.count(delimiter) > 0  # "path, text" and so "a.mp4, "a dog, big""
    reader = csv.reader(chain([head], lines), delimiter=delimiter, strict=True, skipinitialspace=spaced)
    names: list[str] = []
    columns: dict[str, str] = {}
    number, begin = 0, 0
    try:
        for cells in reader:
            line, begin = skipped + begin, reader.line_num
            if not names:
                names, columns = cells, pick(cells, path)
                places = {ours: names.index(theirs) for ours, theirs in columns.items()}
            elif any(map(str.strip, cells)):
                number += 1
                _refuse_cells(cells, len(names), path, number, line)
                if begin + skipped - line > 1:
                    _refuse_swallowed(cells, delimiter, places["path"], _row(path, number, line))
                yield Record(number, line, columns, {ours: cells[column] for ours, column in places.items()})
    except csv.Error as error:
        where = _row(path, number + 1, skipped + begin)
        raise ValueError(
            f"got {where}: {error}; expected cells in quotes that are closed, and quotes in them doubled; correct it"
        ) from error


def json_records(file: IO[bytes], path: str, pick: Pick) -> Iterator[Record]:
    """Read a list of objects; ``ValueError`` if it is no such list."""
    text, rows = decode(file.read(), path), _Objects(path, pick)
    position, counted_to, line, number = _after_space(text, 0), 0, 1, 0
    if text[position : position + 1] != "[":
        raise ValueError(
            f"got {path}, which is no list of objects; expected [ and one object a video; repair the list, or "
            f"call it .jsonl if each line is an object"
        )
    position = _after_space(text, position + 1)
    while number or text[position : position + 1] != "]":
        number += 1
        line, counted_to = line + text.count("\n", counted_to, position), position
        row, position = rows.parse(text, position, number, line)
        yield rows.record(row, number, line)
        position = _after_space(text, position)
        if text[position : position + 1] == "]":
            break
        if text[position : position + 1] != ",":
            raise ValueError(f"got {_row(path, number, line)}, followed by no comma; expected , or ]; repair the list")
        position = _after_space(text, position + 1)
    if text[_after_space(text, position + 1) :]:
        raise ValueError(f"got {path}, which goes on after its ]; expected one list of objects; repair it")


def jsonl_records(file: IO[bytes], path: str, pick: Pick) -> Iterator[Record]:
    """Read one object a line and skip empty lines; ``ValueError`` if a line is no object.

    >>> import io
    >>> pick = lambda names, place: {"path": "video"}
    >>> [record.cells for record in jsonl_records(io.BytesIO(b'{"video": "a.mp4"}'), "l.jsonl", pick)]
    [{'path': 'a.mp4'}]
    """
    rows, number = _Objects(path, pick), 0
    for line, text in enumerate(text_lines(file, path), 1):
        text = trimmed(text)
        if not text:
            continue
        number += 1
        row, end = rows.parse(text, 0, number, line)
        if end != len(text):
            where = _row(path, number, line)
            raise ValueError(f"got {where}, which goes on after its object; expected one object a line; repair it")
        yield rows.record(row, number, line)


def parquet_records(file: IO[bytes], path: str, pick: Pick) -> Iterator[Record]:
    """Read some columns of a Parquet file.

    ``ValueError`` if a text in it is not UTF-8; ``pyarrow.ArrowException`` if it is damaged.
    """
    parquet = pyarrow.parquet.ParquetFile(file)
    columns = pick(parquet.schema_arrow.names, path)
    number = 0
    for batch in parquet.iter_batches(BATCH, columns=list(columns.values())):
        cells = [_values(batch.column(theirs), theirs, path, number) for theirs in columns.values()]
        for row in zip(*cells, strict=True):
            number += 1
            yield Record(number, 0, columns, dict(zip(columns, row, strict=True)))


class _Object(dict[str, Any]):
    """An object of JSON that names a column twice."""

    doubled: frozenset[str] = frozenset()


class _Objects:
    """Parses the objects of a list, whose columns may differ from row to row."""

    def __init__(self, path: str, pick: Pick) -> None:
        self._path, self._pick = path, pick
        self._decoder = json.JSONDecoder(object_pairs_hook=_as_object, parse_int=str, parse_float=str)
        self._picked: dict[tuple[str, ...], dict[str, str]] = {}
        self._first_names: dict[str, str] = {}

    def parse(self, text: str, position: int, number: int, line: int) -> tuple[dict[str, Any], int]:
        """Return the object that begins at a place, and where it ends."""
        where = _row(self._path, number, line)
        try:
            row, end = self._decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:  # of an integer with too many digits, too
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise ValueError(f"got {where}, which cannot be read: {reason}; expected an object; repair it") from error
        if not isinstance(row, dict):
            raise ValueError(f"got {where}, which is no object; expected one object a video; repair the list")
        return row, end

    def record(self, row: dict[str, Any], number: int, line: int) -> Record:
        where = _row(self._path, number, line)
        names = tuple(row)
        columns = self._picked.get(names)
        if columns is None:
            columns = self._picked[names] = self._pick(names, where)
            for ours, theirs in columns.items():
                if (before := self._first_names.setdefault(ours, theirs)) != theirs:
                    raise ValueError(
                        f"got {where} with {theirs!r} for the {ours}, which rows before it call {before!r}; "
                        f"expected one name; rename one"
                    )
        if isinstance(row, _Object) and (twice := row.doubled.intersection(columns.values())):
            raise ValueError(f"got {where}, column {min(twice)!r} twice; expected it once; correct the row")
        return Record(number, line, columns, {ours: row[theirs] for ours, theirs in columns.items()})


def _as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) == len(pairs):
        return row
    names = [name for name, _ in pairs]
    marked = _Object(row)
    marked.doubled = frozenset(name for name in row if names.count(name) > 1)
    return marked


def _row(path: str, number: int, line: int) -> str:
    return f"{path}, row {number}" + (f" (line {line})" if line else "")


def _after_space(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    return space.end() if space else position


def _delimiter(head: str, pick: Pick, path: str) -> str:
    """Return the separator with which the header has a column of paths; else the most frequent one."""
    likely = sorted(DELIMITERS, key=head.count, reverse=True)
    for delimiter in likely:
        try:
            pick(next(csv.reader([head], delimiter=delimiter, skipinitialspace=True)), path)
        except (ValueError, csv.Error, StopIteration):
            continue
        return delimiter
    return likely[0]


def _refuse_cells(cells: list[str], width: int, path: str, number: int, line: int) -> None:
    if len(cells) < width or any(map(str.strip, cells[width:])):
        raise ValueError(
            f"got {_row(path, number, line)} with {len(cells)} cells; expected {width}, as the header has; "
            f"put cells that hold the separator into quotes"
        )


def _refuse_swallowed(cells: list[str], delimiter: str, path_column: int, where: str) -> None:
    """Refuse a cell whose lines look like rows: two quotes that were not closed close each other."""
    for line in chain.from_iterable(re.split(r"[\r\n]+", cell)[1:] for cell in cells):
        parts = line.split(delimiter)
        name = parts[path_column] if len(parts) > max(1, path_column) else ""
        if name.rpartition(".")[2].strip().lower() in EXTENSIONS:
            raise ValueError(
                f"got {where}, with a cell of several lines that holds {line[:60]!r}, which looks like a row; "
                f"expected quotes that are closed; correct it"
            )


def _values(column: pa.Array, name: str, path: str, before: int) -> list[Any]:
    try:
        return column.to_pylist()
    except ValueError:  # UnicodeDecodeError is one
        for row, scalar in enumerate(column):
            try:
                scalar.as_py()
            except ValueError as error:
                where = f"{_row(path, before + row + 1, 0)}, column {name!r}"
                reason = str(error).split(". ")[0]
                if isinstance(error, UnicodeDecodeError):
                    reason = f"byte {error.start} (0x{error.object[error.start]:02x}) is not UTF-8"
                raise ValueError(f"got {where}, which cannot be read: {reason}; expected text; correct it") from error
        raise
