"""The videos of a data set, their classes and captions, from a folder or a list; no video is opened.

Folders: when every video sits in an immediate sub-folder of the root and there are at least two such folders, the
folders are the classes, numbered in sorted order. Otherwise the set has no classes and every label is -1. The caption
is the text beside a video (``x.mp4`` and ``x.txt``), or the name of its class. Lists: see ``tables``. Rows are kept in
an Arrow table, not as objects.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from flexivid.data.byte_range import is_remote
from flexivid.data.classes import class_folders, class_numbers, number_column, number_folders, part_by_split
from flexivid.data.folders import EXTENSIONS, find_videos
from flexivid.data.rows import ROWS, Items, Manifest, VideoItem, read_caption, text_beside
from flexivid.data.shards import class_names as shard_classes
from flexivid.data.shards import is_shards, shard_rows
from flexivid.data.tables import column_name, is_table, read_table, read_ucf101

__all__ = ["Items", "Manifest", "Manifests", "VideoItem", "find_splits", "read_caption", "read_manifests", "scan"]
__all__ += ["text_beside"]

HELD_OUT_FOLDERS = ("held_out", "val", "test")


class Manifests(NamedTuple):
    """What to train on, and what is held out, if anything is; classes have the same numbers in both.

    >>> Manifests(Manifest.of([]), None).held_out is None
    True
    """

    train: Manifest
    held_out: Manifest | None


def read_manifests(root: str | os.PathLike[str]) -> Manifests:
    r"""Find the videos of a data set, wherever it is and however it is kept.

    Args:
        root: A folder, with or without training and held-out folders in it (see ``find_splits``); a list (see
            ``tables``), whose column ``split`` is honoured; a folder or a train list of UCF101; or a url of these.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If there is no video, or a list cannot be made sense of.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/list.csv"
    >>> _ = open(path, "w").write("path,class,split\na.mp4,wind,train\nb.mp4,waves,val\n")
    >>> manifests = read_manifests(path)
    >>> manifests.train.items[0].label, manifests.held_out.items[0].label, manifests.train.class_names
    (1, 0, ('waves', 'wind'))
    """
    place = os.fspath(root)
    if (train_list := _ucf101_list(place)) is not None:
        table, class_names = read_ucf101(train_list)
        return _by_split(table, place, class_names)
    if is_table(place):
        return _by_split(read_table(place), place, None)
    train, held_out = _split_folders(place)
    manifest = scan(train)
    return Manifests(manifest, scan(held_out, class_names=manifest.class_names) if held_out is not None else None)


def scan(root: str | os.PathLike[str], *, class_names: Sequence[str] | None = None) -> Manifest:
    """Find every video below a folder, at any depth, in any letter case; hidden files and folders are skipped.

    Args:
        root: The folder, or its url; links are followed. Or shards (see ``shards``), which name their own classes.
        class_names: The classes to use, so that a held-out folder gets the numbers of its training folder;
            None lets the folders decide.

    Returns:
        The videos and their classes.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is a file, holds no video, or holds a class that ``class_names`` lacks.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ("wind/a.MP4", "waves/b.webm", "waves/.c.mp4", "waves/notes.txt"):
    ...     (root / name).parent.mkdir(exist_ok=True)
    ...     (root / name).touch()
    >>> [(item.path.name, item.label) for item in scan(root).items]
    [('b.webm', 0), ('a.MP4', 1)]
    """
    folder = os.fspath(root).rstrip("/") or "/"
    if is_shards(folder):
        rows = ((row.path, row.label, row.caption) for row in shard_rows(folder))
        manifest = Manifest.of(rows, class_names=shard_classes(folder), root=folder)
        largest = -1 if len(manifest) == 0 else pc.max(manifest.table["label"]).as_py()
        return Manifest(manifest.table, manifest.class_names or class_numbers(largest), folder)
    system, place = fsspec.core.url_to_fs(folder)
    if not system.exists(place):
        raise FileNotFoundError(f"got {folder}, which does not exist; expected a folder of videos; correct the path")
    if not system.isdir(place):
        raise ValueError(f"got {folder}, a file; expected a folder of videos; name the folder that holds it")
    folder = system.unstrip_protocol(place).rstrip("/") if is_remote(folder) else folder
    found = find_videos(folder)
    if len(found.paths) == 0:
        raise ValueError(
            f"got {folder}, which holds {found.num_others} other files and no video; expected files ending in "
            f"{', '.join(EXTENSIONS)}, at any depth, or folders of numbered pictures; correct the path, convert the "
            f"files, or name a list of videos that are elsewhere"
        )
    names = class_folders(folder, found.parents) if class_names is None else tuple(class_names)
    labels = number_folders(found.paths, folder, names)
    return Manifest(_rows(found.paths, labels, names, has_text=found.has_text), names, folder)


def find_splits(root: str | os.PathLike[str]) -> tuple[Path, Path | None]:
    """Return the folder to train on and the held-out folder, if there is one.

    ``root/train`` is trained on where it exists, and the first of ``root/held_out``, ``root/val`` and ``root/test`` is
    held out. Without ``root/train`` the root itself is trained on.

    Raises:
        ValueError: If there is a held-out folder but no training folder: it would be trained on.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> for split in ("train", "val"):
    ...     (root / split).mkdir()
    >>> [folder.name for folder in find_splits(root)]
    ['train', 'val']
    """
    train, held_out = _split_folders(os.fspath(root))
    return Path(train), None if held_out is None else Path(held_out)


def _split_folders(root: str) -> tuple[str, str | None]:
    system, place = fsspec.core.url_to_fs(root)
    place, folder = place.rstrip("/"), root.rstrip("/") or "/"
    held_out = next((f"{folder}/{name}" for name in HELD_OUT_FOLDERS if system.isdir(f"{place}/{name}")), None)
    if system.isdir(f"{place}/train"):
        return f"{folder}/train", held_out
    if held_out is not None:
        raise ValueError(
            f"got {held_out} but no {folder}/train; expected both or neither; "
            f"move the training videos into {folder}/train, or the held-out ones elsewhere"
        )
    return folder, None


def _ucf101_list(root: str) -> str | None:
    """Return the train list of UCF101 that a path means, if it does."""
    if is_remote(root):
        return None
    names = [root] if os.path.basename(root).startswith("trainlist") else []
    names += [f"{root}/{folder}trainlist01.txt" for folder in ("", "ucfTrainTestlist/")]
    beside = (name for name in names if os.path.isfile(os.path.join(os.path.dirname(name), "classInd.txt")))
    return next((name for name in beside if os.path.isfile(name)), None)


def _by_split(table: pa.Table, root: str, class_names: Sequence[str] | None) -> Manifests:
    columns = set(table.column_names)
    labels, names = pa.nulls(len(table), pa.int32()), tuple(class_names or ())
    if "label" in columns:
        labels, names = number_column(table["label"], class_names, root, name=column_name(table, "label"))
    words = table["caption"] if "caption" in columns else None
    rows = _rows(table["path"], labels, names if words is None else (), caption=words)
    if "split" not in columns:
        return Manifests(Manifest(rows, names, root), None)
    train, held_out = part_by_split(table["split"], root, name=column_name(table, "split"))
    part = None if held_out is None else Manifest(rows.filter(held_out), names, f"{root}#held_out")
    return Manifests(Manifest(rows.filter(train), names, f"{root}#train"), part)


def _rows(
    paths: pa.ChunkedArray,
    labels: pa.Array,
    names: Sequence[str],
    *,
    caption: pa.ChunkedArray | None = None,
    has_text: pa.ChunkedArray | None = None,
) -> pa.Table:
    """Put columns together; without captions, they are the names of the classes, unless these are numbers."""
    number = len(paths)
    if caption is None:
        spoken = pa.array(["" if name.isdecimal() else name for name in names], pa.large_string())
        caption = spoken.take(pc.if_else(pc.less(labels, 0), None, labels)) if len(names) else pa.nulls(number)
    columns = {
        "path": paths,
        "label": pc.fill_null(labels, -1),
        "caption": pc.fill_null(pc.cast(caption, pa.large_string()), ""),
        "has_text": pa.repeat(pa.scalar(False), number) if has_text is None else has_text,
    }
    return pa.table(columns, schema=ROWS)
