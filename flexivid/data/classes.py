"""Numbers for the classes of a data set, and its parts, from folders or from the columns of a list.

Takes and gives Arrow columns.
"""

import unicodedata
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from flexivid.data.split_names import SPLITS, split_of

MAX_CLASSES = 1_000_000  # larger numbers mean something else


def class_folders(folder: str, parents: set[str], *, any_depth: bool = False) -> tuple[str, ...]:
    """Return the names of the folders that are classes, sorted; none if the folders are no classes.

    Names are in the composed unicode form: a training and a held-out folder may be from different systems.

    Args:
        folder: The root.
        parents: The folders that hold videos.
        any_depth: Whether videos may lie deeper, and beside the folders; the folders of the root are the classes.

    >>> class_folders("v", {"v/wind", "v/waves"}), class_folders("v", {"v", "v/waves"})
    (('waves', 'wind'), ())
    """
    if not any_depth and (len(parents) < 2 or any(parent.rpartition("/")[0] != folder for parent in parents)):
        return ()
    below = (parent[len(folder) :].lstrip("/") for parent in parents)
    return tuple(sorted({unicodedata.normalize("NFC", names.split("/")[0]) for names in below if names}))


def number_folders(paths: pa.ChunkedArray, folder: str, class_names: Sequence[str]) -> pa.Array:
    """Return the class of each video, the folder of the root that it is in, int32; -1 without classes.

    Raises:
        ValueError: If a video is in none of the folders.

    >>> number_folders(pa.chunked_array([["v/b/1.mp4", "v/a/2.mp4"]]), "v", ("a", "b")).to_pylist()
    [1, 0]
    """
    if not class_names:
        return pa.repeat(pa.scalar(-1, pa.int32()), len(paths))
    below = pc.utf8_slice_codeunits(paths, len(folder) + 1)
    names = pc.utf8_normalize(pc.struct_field(pc.extract_regex(below, r"^(?P<name>[^/]+)/"), "name"), "NFC")
    labels = pc.index_in(names, value_set=pa.array(class_names, names.type), skip_nulls=True)
    if labels.null_count:
        path = paths.filter(pc.is_null(labels))[0]
        raise ValueError(
            f"got {path}, whose folder is none of the {len(class_names)} classes; "
            f"expected {folder}/<class>/<video> with the classes {', '.join(class_names)[:200]}; "
            f"move the file, or remove the folder"
        )
    return labels.combine_chunks() if isinstance(labels, pa.ChunkedArray) else labels


def number_column(
    column: pa.ChunkedArray, class_names: Sequence[str] | None, source: str
) -> tuple[pa.ChunkedArray, tuple[str, ...]]:
    """Return the class of each row, int32, and the names of the classes.

    Integers, written as numbers or as words, stay what they are; -1 and nothing mean no class. Names are numbered in
    sorted order.

    Args:
        column: Names or integers.
        class_names: The classes, to be numbered in this order; None takes those of the column.
        source: Where it is from.

    Raises:
        ValueError: If a name is none of the classes, or if the integers can be no classes.

    >>> labels, names = number_column(pa.chunked_array([["wind", "", "waves"]]), None, "list.csv")
    >>> labels.to_pylist(), names
    ([1, -1, 0], ('waves', 'wind'))
    >>> number_column(pa.chunked_array([["2", "0"]]), None, "list.csv")[1]
    ('0', '1', '2')
    """
    words = pc.utf8_trim_whitespace(pc.cast(column, pa.large_string()))
    words = pc.if_else(pc.equal(words, ""), None, words)
    distinct = sorted(word for word in pc.unique(words).to_pylist() if word is not None)
    if class_names is None and distinct and all(word.removeprefix("-").isdecimal() for word in distinct):
        low, high = min(map(int, distinct)), max(map(int, distinct))
        if low < -1 or high >= MAX_CLASSES:
            raise ValueError(
                f"got classes from {low} to {high} in {source}; expected numbers from 0, or names; renumber them"
            )
        return pc.fill_null(pc.cast(words, pa.int32()), -1), tuple(map(str, range(high + 1)))
    names = tuple(distinct if class_names is None else class_names)
    unknown = sorted(set(distinct) - set(names))
    if unknown:
        raise ValueError(
            f"got class {unknown[0]!r} in {source}; expected one of {', '.join(names)[:200]}; correct the list"
        )
    return pc.fill_null(pc.index_in(words, value_set=pa.array(names, words.type), skip_nulls=True), -1), names


def part_by_split(column: pa.ChunkedArray, source: str) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """Return which rows are trained on and which are held out, (n,) bool each; None if none are.

    Raises:
        ValueError: If there is another word in the column, or nothing to train on.

    >>> train, held_out = part_by_split(pa.chunked_array([["train", "Val", "test"]]), "list.csv")
    >>> train.to_pylist(), held_out.to_pylist()
    ([True, False, False], [False, True, False])
    """
    words = pc.fill_null(pc.cast(column, pa.large_string()), "")
    parts: dict[str | None, list[str]] = {}
    for word in sorted(pc.unique(words).to_pylist()):
        parts.setdefault(split_of(word), []).append(word)
    if None in parts or "train" not in parts:
        wrong = f"split {parts[None][0]!r}" if None in parts else "no row of the split train"
        raise ValueError(f"got {wrong} in {source}; expected train, val, test or held_out; correct the column")
    among = {part: pc.is_in(words, value_set=pa.array(some, words.type)) for part, some in parts.items()}
    return among["train"], next((among[part] for part in SPLITS if part in among), None)
