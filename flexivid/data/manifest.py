"""What a folder of videos holds: which files, which class each belongs to.

Looks at names only; nothing is opened. Class folders: when every video sits in an immediate sub-folder of the root and
there are at least two such folders, the folders are the classes, numbered in sorted order. Otherwise the set has no
classes and every label is -1. Standard library only.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

EXTENSIONS = (
    *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg"),
    *("ts", "m2ts", "wmv", "flv", "3gp", "gif", "ogv"),
)
HELD_OUT_FOLDERS = ("held_out", "val", "test")


class VideoItem(NamedTuple):
    """One video of a data set.

    Args:
        path: The file.
        label: Number of its class, or -1 when the set has no classes.
        caption: Words for it: the name of its class, or empty.

    >>> VideoItem(Path("videos/waves/1.mp4"), label=3, caption="waves").label
    3
    """

    path: Path
    label: int
    caption: str


class Manifest(NamedTuple):
    """The videos of a folder, sorted by path, and the names of the classes (empty: no classes).

    >>> Manifest(items=(), class_names=("waves", "wind")).class_names.index("wind")
    1
    """

    items: tuple[VideoItem, ...]
    class_names: tuple[str, ...]


def scan(root: str | os.PathLike[str], *, class_names: Sequence[str] | None = None) -> Manifest:
    """Find every video below a folder, at any depth, in any letter case; hidden files and folders are skipped.

    Args:
        root: The folder; links are followed.
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
    folder = Path(root)
    if not folder.exists():
        raise FileNotFoundError(f"got {folder}, which does not exist; expected a folder of videos; correct the path")
    if not folder.is_dir():
        raise ValueError(f"got {folder}, a file; expected a folder of videos; name the folder that holds it")
    files = _files_below(folder)
    videos = [path for path in files if path.suffix.lower().lstrip(".") in EXTENSIONS]
    if not videos:
        raise ValueError(
            f"got {folder}, which holds {len(files)} other files and no video; "
            f"expected files ending in {', '.join(EXTENSIONS)}, at any depth; correct the path or convert the files"
        )
    if class_names is None:
        class_names = _class_names(folder, videos)
    return Manifest(tuple(_item(path, class_names, folder) for path in videos), tuple(class_names))


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
    folder = Path(root)
    held_out = next((folder / name for name in HELD_OUT_FOLDERS if (folder / name).is_dir()), None)
    if (folder / "train").is_dir():
        return folder / "train", held_out
    if held_out is not None:
        raise ValueError(
            f"got {held_out} but no {folder / 'train'}; expected both or neither; "
            f"move the training videos into {folder / 'train'}, or the held-out ones elsewhere"
        )
    return folder, None


def _files_below(folder: Path) -> list[Path]:
    files: list[Path] = []
    seen: set[str] = set()  # links may lead back up
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _class_names(folder: Path, videos: Sequence[Path]) -> tuple[str, ...]:
    parents = {path.parent for path in videos}
    if len(parents) < 2 or any(parent.parent != folder for parent in parents):
        return ()
    return tuple(sorted(parent.name for parent in parents))


def _item(path: Path, class_names: Sequence[str], folder: Path) -> VideoItem:
    if not class_names:
        return VideoItem(path, label=-1, caption="")
    name = path.parent.name
    if name not in class_names or path.parent.parent != folder:
        raise ValueError(
            f"got {path}, whose folder is none of the {len(class_names)} classes; "
            f"expected {folder}/<class>/<video> with the classes {', '.join(class_names)[:200]}; "
            f"move the file, or remove the folder"
        )
    return VideoItem(path, label=list(class_names).index(name), caption=name)
