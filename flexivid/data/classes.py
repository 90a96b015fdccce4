"""Numbers for the classes of a data set, and its parts, from folders or from the columns of a list.

Takes and gives Arrow columns.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from flexivid.data.cells import class_number, is_number

SPLITS = {  # what a list may call its parts; of several that are held out, the first is used
    "held_out": ("held_out", "heldout", "held-out"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
TRAIN = ("train", "training")


def class_folders(folder: str, parents: set[str]) -> tuple[str, ...]:
    """Return the names of the folders that are classes, sorted; none if the folders are no classes.

    Args:
        folder: The root.
        parents: The folders that hold videos.

    >>> class_folders("v", {"v/wind", "v/waves"}), class_folders("v", {"v", "v/waves"})
    (('waves', 'wind'), ())
    """
    if len(parents) < 2 or any(parent.rpartition("/")[0] != folder for parent in parents):
        return ()
    return tuple(sorted(parent.rsplit("/", 1)[1] for parent in parents))


def number_folders(paths: pa.ChunkedArray, folder: str, class_names: Sequence[str]) -> pa.Array:
    """Return the class of each video, the folder that it is in, int32; -1 without classes.

    Raises:
        ValueError: If a video is in none of the folders.

    >>> number_folders(pa.chunked_array([["v/b/1.mp4", "v/a/2.mp4"]]), "v", ("a", "b")).to_pylist()
    [1, 0]
    """
    if not class_names:
        return pa.repeat(pa.scalar(-1, pa.int32()), len(paths))
    below = pc.utf8_slice_codeunits(paths, len(folder) + 1)
    names = pc.struct_field(pc.extract_regex(below, r"^(?P<name>[^/]+)/[^/]+$"), "name")
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
    column: pa.ChunkedArray, class_names: Sequence[str] | None, source: str, *, name: str = "label"
) -> tuple[pa.ChunkedArray, tuple[str, ...]]:
    """Return the class of each row, int32, and the names of the classes.

    Whole numbers, ``2`` or ``2.0``, stay what they are, if there are only numbers; -1 and nothing mean no class. Names
    are numbered in sorted order.

    Args:
        column: Names or integers.
        class_names: The classes, to be numbered in this order; None takes those of the column.
        source: Where it is from.
        name: What it is called there.

    Raises:
        ValueError: If a name is none of the classes, or if the numbers can be no classes.

    >>> labels, names = number_column(pa.chunked_array([["wind", "", "waves"]]), None, "list.csv")
    >>> labels.to_pylist(), names
    ([1, -1, 0], ('waves', 'wind'))
    >>> labels, names = number_column(pa.chunked_array([["2.0", "0.0"]]), None, "list.csv")
    >>> labels.to_pylist(), names
    ([2, 0], ('0', '1', '2'))
    """
    words = pc.utf8_trim_whitespace(pc.cast(column, pa.large_string()))
    words = pc.if_else(pc.equal(words, ""), None, words)
    distinct = sorted(word for word in pc.unique(words).to_pylist() if word is not None)
    if class_names is None and distinct and all(map(is_number, distinct)):
        return _numbered(words, distinct, source, name)
    names = tuple(distinct if class_names is None else class_names)
    unknown = sorted(set(distinct) - set(names))
    if unknown:
        raise ValueError(
            f"got class {unknown[0]!r} in {source}; expected one of {', '.join(names)[:200]}; "
            f"correct row {_row(words, unknown[0])}, column {name!r}"
        )
    return pc.fill_null(pc.index_in(words, value_set=pa.array(names, words.type), skip_nulls=True), -1), names


def _numbered(
    words: pa.ChunkedArray, distinct: Sequence[str], source: str, name: str
) -> tuple[pa.ChunkedArray, tuple[str, ...]]:
    """Return the numbers that words are."""
    numbers = [class_number(word, f"{source}, row {_row(words, word)}, column {name!r}") for word in distinct]
    where = pc.index_in(words, value_set=pa.array(distinct, words.type), skip_nulls=True)
    labels = pc.take(pa.array(numbers, pa.int32()), where)
    return pc.fill_null(labels, -1), class_numbers(max(numbers))


def class_numbers(largest: int) -> tuple[str, ...]:
    """Return the names of classes that have none: their numbers, up to the largest that occurs.

    >>> class_numbers(2), class_numbers(-1)
    (('0', '1', '2'), ())
    """
    return tuple(map(str, range(largest + 1)))


def _row(words: pa.ChunkedArray, word: str) -> int:
    """Return the first row with a word in it, from 1."""
    return pc.index(words, pa.scalar(word, words.type)).as_py() + 1


def part_by_split(
    column: pa.ChunkedArray, source: str, *, name: str = "split"
) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """Return which rows are trained on and which are held out, (n,) bool each; None if none are.

    Raises:
        ValueError: If there is another word in the column, or nothing to train on.

    >>> train, held_out = part_by_split(pa.chunked_array([["train", "Val", "test"]]), "list.csv")
    >>> train.to_pylist(), held_out.to_pylist()
    ([True, False, False], [False, True, False])
    """
    words = pc.utf8_lower(pc.utf8_trim_whitespace(pc.fill_null(pc.cast(column, pa.large_string()), "")))
    present = set(pc.unique(words).to_pylist())
    unknown = sorted(present - set(TRAIN).union(*SPLITS.values()))
    if unknown or not present & set(TRAIN):
        row = f"row {_row(words, unknown[0])}, column {name!r}" if unknown else "the column"
        wrong = f"split {unknown[0]!r}" if unknown else "no row of the split train"
        raise ValueError(f"got {wrong} in {source}; expected train, val, test or held_out; correct {row}")
    held_out = next((names for names in SPLITS.values() if present & set(names)), None)
    among = pc.is_in(words, value_set=pa.array(TRAIN, words.type))
    return among, None if held_out is None else pc.is_in(words, value_set=pa.array(held_out, words.type))
