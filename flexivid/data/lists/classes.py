"""Number the classes of a data set and find its parts, from folders or from the columns of a list.

Folders and lists follow the same rules: names are numbered in sorted order; if all names are whole numbers, they are
the numbers of the classes. Takes and returns Arrow columns.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from flexivid.data.lists.cells import class_number, class_number_or_none, is_number

TRAIN = ("train", "training")
SPLITS = {  # of several parts that are held out, the first is used
    "held_out": ("held_out", "heldout", "hold_out", "holdout"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
_MEANINGS = {name: "train" for name in TRAIN} | {name: part for part, names in SPLITS.items() for name in names}
_BESIDE = frozenset(("video", "videos", "clip", "clips", "frames", "rawframes", "set", "split", "data"))


def class_folders(folder: str, parents: set[str], *, any_depth: bool = False) -> tuple[str, ...]:
    """Return the names of the folders that are classes, sorted; none if the folders are no classes.

    Names are in the composed unicode form: a training and a held-out folder may be from different systems. ``parents``
    are the folders that hold videos; with ``any_depth``, these may lie deeper, and beside the folders of the root.

    >>> class_folders("v", {"v/wind", "v/waves"}), class_folders("v", {"v", "v/waves"})
    (('waves', 'wind'), ())
    """
    if not any_depth and (len(parents) < 2 or any(parent.rpartition("/")[0] != folder for parent in parents)):
        return ()
    below = (parent[len(folder) :].lstrip("/") for parent in parents)
    return tuple(sorted({unicodedata.normalize("NFC", names.split("/")[0]) for names in below if names}))


def classes_of_folders(folders: Iterable[str]) -> tuple[str, ...]:
    """Return the classes that folders stand for, in the order of their labels.

    Numbers that cannot be classes, such as dates, are names.

    >>> classes_of_folders(["wind", "waves"]), classes_of_folders(["10", "007", "1"])[-4:]
    (('waves', 'wind'), ('7', '8', '9', '10'))
    >>> classes_of_folders(["20240131", "20240201"])
    ('20240131', '20240201')
    """
    names = sorted(folders)
    numbers = [number for name in names if (number := class_number_or_none(name)) is not None]
    return class_numbers(max(numbers)) if names and len(numbers) == len(names) else tuple(names)


def number_folders(paths: pa.ChunkedArray, folder: str, class_names: Sequence[str]) -> pa.Array:
    """Return the class of each video by the folder of the root that it is in, int32; -1 without classes.

    ``ValueError`` if a video is in none of the folders.

    >>> number_folders(pa.chunked_array([["v/b/1.mp4", "v/a/2.mp4"]]), "v", ("a", "b")).to_pylist()
    [1, 0]
    """
    if not class_names:
        return pa.repeat(pa.scalar(-1, pa.int32()), len(paths))
    below = pc.utf8_slice_codeunits(paths, len(folder) + 1)
    names = pc.utf8_normalize(pc.struct_field(pc.extract_regex(below, r"^(?P<name>[^/]+)/"), "name"), "NFC")
    labels = _labels(names, class_names)
    if labels.null_count:
        path = paths.filter(pc.is_null(labels))[0]
        raise ValueError(
            f"got {path}, whose folder is none of the {len(class_names)} classes; "
            f"expected {folder}/<class>/<video> with the classes {', '.join(class_names)[:200]}; "
            f"move the file, or remove the folder"
        )
    return labels.combine_chunks()


def number_column(
    column: pa.ChunkedArray,
    class_names: Sequence[str] | None,
    source: str,
    *,
    name: str = "label",
    paths: pa.ChunkedArray | None = None,
) -> tuple[pa.ChunkedArray, tuple[str, ...]]:
    """Return the class of each row, int32, and the names of the classes.

    Whole numbers, ``2`` or ``2.0``, stay what they are, if there are only numbers; -1 and nothing mean no class. Names
    are numbered in sorted order, or as in ``class_names``. ``ValueError`` if a name is none of these, or if the numbers
    can be no classes; it says the ``source`` and the column, or the video where ``paths`` has that of each row.

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
    if class_names is not None:
        names = tuple(class_names)
    elif distinct and all(map(is_number, distinct)):
        numbers = [class_number(word, f"{source}, {_place(words, word, name, paths)}") for word in distinct]
        names = class_numbers(max(numbers))
    else:
        names = tuple(distinct)
    labels = _labels(words, names)
    unknown = words.filter(pc.and_(pc.is_null(labels), pc.is_valid(words)))
    if len(unknown):
        word = min(unknown.to_pylist())
        raise ValueError(
            f"got class {word!r} in {source}; expected one of {', '.join(names)[:200]}; "
            f"correct {_place(words, word, name, paths)}"
        )
    return pc.fill_null(labels, -1), names


def class_numbers(largest: int) -> tuple[str, ...]:
    """Return the names of classes that have none: their numbers, up to the largest that occurs.

    >>> class_numbers(2), class_numbers(-1)
    (('0', '1', '2'), ())
    """
    return tuple(map(str, range(largest + 1)))


def part_by_split(
    column: pa.ChunkedArray, source: str, *, name: str = "split", paths: pa.ChunkedArray | None = None
) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """Return which rows are trained on and which are held out, (n,) bool each; None if none are.

    The column has a word for the part of each row (see ``split_of``). ``ValueError`` if there is another word, or
    nothing to train on; it names the row as ``number_column`` does.

    >>> train, held_out = part_by_split(pa.chunked_array([["train", "Val", "test"]]), "list.csv")
    >>> train.to_pylist(), held_out.to_pylist()
    ([True, False, False], [False, True, False])
    """
    words = pc.fill_null(pc.cast(column, pa.large_string()), "")
    parts: dict[str | None, list[str]] = {}
    for word in sorted(pc.unique(words).to_pylist()):
        parts.setdefault(split_of(word), []).append(word)
    if None in parts or "train" not in parts:
        word = parts[None][0] if None in parts else None
        wrong = "no row of the split train" if word is None else f"split {word!r}"
        where = "the column" if word is None else _place(words, word, name, paths)
        raise ValueError(f"got {wrong} in {source}; expected train, val, test or held_out; correct {where}")
    among = {part: pc.is_in(words, value_set=pa.array(some, words.type)) for part, some in parts.items()}
    return among["train"], next((among[part] for part in SPLITS if part in among), None)


def _labels(words: pa.ChunkedArray, class_names: Sequence[str]) -> pa.ChunkedArray:
    """Return which class each word names, int32, null for none; where classes are numbers, ``007`` names class 7."""
    distinct = [word for word in pc.unique(words).to_pylist() if word is not None]
    if tuple(class_names) == class_numbers(len(class_names) - 1):
        numbers = (class_number_or_none(word) for word in distinct)
        labels = [None if number is None or number >= len(class_names) else number for number in numbers]
    else:
        class_of = {name: label for label, name in enumerate(class_names)}
        labels = [class_of.get(word) for word in distinct]
    where = pc.index_in(words, value_set=pa.array(distinct, words.type), skip_nulls=True)
    return pc.take(pa.array(labels, pa.int32()), where)


def _place(words: pa.ChunkedArray, word: str, name: str, paths: pa.ChunkedArray | None) -> str:
    """Say which is the first row with a word in it, counted from 1."""
    row = pc.index(words, pa.scalar(word, words.type)).as_py()
    return f"row {row + 1}, column {name!r}" if paths is None else f"the row of {paths[row]}"


def split_of(name: str) -> str | None:
    """Return "train", "held_out", "val" or "test" for any of their names, in any letter case; None for another word.

    >>> [split_of(name) for name in ("Training", "DEV", "held-out", "train station")]
    ['train', 'val', 'held_out', None]
    """
    return _MEANINGS.get(re.sub(r"[\s-]+", "_", name.strip()).lower())


def resembles_split(name: str) -> str | None:
    """Return which part a longer name seems to mean, as ``videos_train``, ``val-set`` and ``train_256``; None for none.

    >>> [resembles_split(name) for name in ("videos_train", "testset", "train_256", "test drive")]
    ['train', 'test', 'train', None]
    """
    joined = re.sub(r"(?<=[a-z])(set|split)$", r"_\1", re.sub(r"[\s.-]+", "_", name.strip()).lower())
    words = [word for word in re.split(r"_+|(?<=[a-z])(?=\d)", joined) if not word.isdecimal()]
    return split_of("_".join(word for word in words if word and word not in _BESIDE))
