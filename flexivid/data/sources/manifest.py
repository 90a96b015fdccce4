"""List the videos of a data set with their classes and captions, from a folder or a list; no video is opened.

Folders: ``layout`` finds the parts of the data set. In a part, if every video is in an immediate sub-folder and there
are at least two such folders, the folders are the classes: numbered in sorted order, or by their names if all of these
are numbers. Otherwise there are no classes and every label is -1. The caption comes from ``metadata.csv`` (see
``metadata``), else from the text beside a video (``x.mp4`` and ``x.txt``), else it is the name of the class. Lists: see
``tables``. Rows are in an Arrow table. Unused files are reported in the notes, and by a ``LeftOutWarning``.
"""

import os
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from flexivid.data.lists.classes import number_column, part_by_split
from flexivid.data.lists.tables import column_name, is_table, read_table, read_ucf101
from flexivid.data.sources.folder_manifest import read_folder
from flexivid.data.sources.folders import find_videos
from flexivid.data.sources.layout import SETTING, Collection, Layout, collection_of, find_parts
from flexivid.data.sources.leftovers import LeftOutWarning
from flexivid.data.sources.listing import Listing
from flexivid.data.sources.manifest_rows import Manifest, read_caption, rows_of, text_beside
from flexivid.runtime.paths import is_remote
from flexivid.runtime.printable import printable

__all__ = ["LeftOutWarning", "Manifest", "Manifests", "read_caption", "read_manifests", "text_beside"]


class Manifests(NamedTuple):
    """A collection that has been listed: once in a run, then passed on instead of its root."""

    train: Manifest
    held_out: Manifest | None  # classes have the same numbers as in ``train``
    root: str = ""  # where the collection is, for messages

    def __str__(self) -> str:
        return self.root


Listed = str | os.PathLike[str] | Collection | Manifests  # a collection, listed already or to be listed


def read_manifests(root: Listed) -> Manifests:
    r"""List the videos of a data set of any kind; ``Manifests`` are returned as they are.

    ``root`` is a folder, with or without training and held-out folders in it (see ``layout``); a list (see ``tables``),
    whose column ``split`` is honoured; a folder or a train list of UCF101; or a url of these. A ``Collection`` also
    says how folders are read. ``FileNotFoundError`` if there is nothing; ``ValueError`` if there is no video, if a list
    cannot be made sense of, or if folders can be read in two ways.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/list.csv"
    >>> _ = open(path, "w").write("path,class,split\na.mp4,wind,train\nb.mp4,waves,val\n")
    >>> manifests = read_manifests(path)
    >>> [part.table["label"].to_pylist() for part in manifests[:2]], manifests.train.class_names
    ([[1], [0]], ('waves', 'wind'))
    """
    if isinstance(root, Manifests):
        return root
    collection = collection_of(root)
    path, layout, _ = collection
    if is_table(path) and not os.path.isdir(path):
        if layout != "auto":
            warnings.warn(f"got {SETTING}={layout} for the list {path}; it has no effect; leave it out", stacklevel=2)
        manifests = _by_split(read_table(path), path, None)
    elif layout == "auto" and (train_list := _ucf101_list(path)) is not None:
        table, class_names = read_ucf101(train_list)
        manifests = _by_split(table, path, class_names, notes=_unlisted(table, path))
    else:
        manifests = _read_folders(collection)
    for note in dict.fromkeys(note for part in manifests[:2] if part for note in part.notes):
        warnings.warn(printable(note), LeftOutWarning, stacklevel=1)  # from one place: once a run
    return manifests._replace(root=path)


def _read_folders(collection: Collection) -> Manifests:
    path, layout, pictures = collection
    listing = Listing(pictures=pictures)
    parts = find_parts(path, layout, listing)
    inner: Layout = "auto" if layout == "splits" else layout
    if parts.train == path:
        manifest, split = read_folder(path, layout=inner, is_root=True, listing=listing)
        return Manifests(manifest, None) if split is None else _parted(manifest, split)
    train, _ = read_folder(parts.train, layout=inner, above=parts.metadata, listing=listing)
    train = Manifest(train.table, train.class_names, train.root, parts.notes + train.notes)
    if parts.held_out is None:
        return Manifests(train, None)
    names, above = train.class_names, parts.metadata
    return Manifests(train, read_folder(parts.held_out, class_names=names, above=above, listing=listing)[0])


def _parted(manifest: Manifest, split: pa.ChunkedArray) -> Manifests:
    """Split a folder by the column of its list; videos that the list does not name are ignored."""
    is_listed = pc.is_valid(split)
    rows, names, root, notes = manifest
    rows = rows.filter(is_listed)
    parts = part_by_split(split.filter(is_listed), f"the metadata of {root}", paths=rows["path"])
    return _divided(Manifest(rows, names, root, notes), *parts)


def _divided(manifest: Manifest, train: pa.ChunkedArray, held_out: pa.ChunkedArray | None) -> Manifests:
    rows, names, root, notes = manifest
    part = None if held_out is None else Manifest(rows.filter(held_out), names, f"{root}#held_out")
    return Manifests(Manifest(rows.filter(train), names, f"{root}#train", notes), part)


def _ucf101_list(root: str) -> str | None:
    """Return the train list of UCF101 at a path, or None."""
    if is_remote(root):
        return None
    names = [root] if os.path.basename(root).startswith("trainlist") else []
    names += [f"{root}/{folder}trainlist01.txt" for folder in ("", "ucfTrainTestlist/")]
    beside = (name for name in names if os.path.isfile(os.path.join(os.path.dirname(name), "classInd.txt")))
    return next((name for name in beside if os.path.isfile(name)), None)


def _unlisted(table: pa.Table, root: str) -> tuple[str, ...]:
    """Return a note on videos in a folder that its own lists do not name."""
    if not os.path.isdir(root):
        return ()
    paths = find_videos(root).paths
    rest = paths.filter(
        pc.invert(pc.is_in(paths, value_set=pc.cast(table["path"], pa.large_string()).combine_chunks()))
    )
    named = f"got {len(rest)} videos in {root} that its train and test lists do not name, such as"
    return (f"{named} {rest[0]}; they are left out; set {SETTING} to classes to read the folders",) if len(rest) else ()


def _by_split(table: pa.Table, root: str, class_names: Sequence[str] | None, notes: tuple[str, ...] = ()) -> Manifests:
    table, hidden = _without_hidden(table, root)
    notes += hidden
    columns = set(table.column_names)
    labels, names = pa.nulls(len(table), pa.int32()), tuple(class_names or ())
    if "label" in columns:
        labels, names = number_column(table["label"], class_names, root, name=column_name(table, "label"))
    words = table["caption"] if "caption" in columns else None
    rows = rows_of(table["path"], labels, names if words is None else (), caption=words)
    manifest = Manifest(rows, names, root, notes)
    if "split" not in columns:
        return Manifests(manifest, None)
    return _divided(manifest, *part_by_split(table["split"], root, name=column_name(table, "split")))


def _without_hidden(table: pa.Table, root: str) -> tuple[pa.Table, tuple[str, ...]]:
    """Leave out the hidden files of macOS, which programs that list folders take for videos."""
    hidden = pc.match_substring_regex(table["path"], r"(^|/)(\._[^/]*$|__MACOSX/)")
    number = pc.sum(hidden).as_py()
    if not number:
        return table, ()
    first = table["path"].filter(hidden)[0]
    return table.filter(pc.invert(hidden)), (
        f"got {number} hidden files in {root}, such as {first}; they are left out; remove the rows",
    )
