"""List each folder of a collection once: first to interpret it, then to read it.

Links are followed, each folder once; hidden files and folders are skipped. Standard library and fsspec.
"""

import os
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from flexivid.data.sources.leftovers import Leftovers
from flexivid.data.storage.byte_range import remote
from flexivid.runtime.paths import is_hidden, is_remote


class Folder(NamedTuple):
    """The names of the sub-folders and the files of a folder, sorted, without hidden ones."""

    path: str
    folders: list[str]
    files: list[str]  # everything but folders
    no_text: tuple[str, ...] = ()  # names that are not UTF-8; Linux allows any bytes


class Listing:
    """Lists local or remote folders, and caches those that were listed before a walk reaches them.

    With ``pictures``, each picture in them is a video of one frame.

    >>> import tempfile
    >>> root = tempfile.mkdtemp()
    >>> os.makedirs(f"{root}/waves/.cache")
    >>> Listing().folder(root).folders, [folder.path == f"{root}/waves" for folder in Listing().walk(root)]
    (['waves'], [False, True])
    """

    def __init__(self, *, pictures: bool = False) -> None:
        self.pictures = pictures
        self._folders: dict[str, Folder] = {}
        self.videos: dict[str, Any] = {}  # below folders that were walked; see ``folders.find_videos``

    def folder(self, path: str) -> Folder:
        """List one folder; ``OSError`` if it cannot be read."""
        if path not in self._folders:
            self._folders[path] = _remote(path) if is_remote(path) else _local(path)
        return self._folders[path]

    def walk(self, root: str, leftovers: Leftovers | None = None) -> Iterator[Folder]:
        """Yield a folder and all below it, parents first; remote ones do not list their sub-folders.

        ``leftovers`` counts unreadable folders, links to folders that were listed, and names that are not UTF-8.
        """
        leftovers = Leftovers() if leftovers is None else leftovers
        yield from _walk_remote(root) if is_remote(root) else self._walk_local(root, leftovers)

    def _walk_local(self, root: str, leftovers: Leftovers) -> Iterator[Folder]:
        seen: dict[tuple[int, int], str] = {}  # links may lead back up
        pending = [root]
        while pending:
            path = pending.pop()
            try:
                status = os.stat(path)
                first = seen.setdefault((status.st_dev, status.st_ino), path)
                if first != path:
                    if not path.startswith(f"{first.rstrip('/')}/"):
                        leftovers.add("link", path)
                    continue
                folder = self._folders.pop(path, None) or _local(path)
            except OSError:
                leftovers.add("unreadable", path)
                continue
            for name in folder.no_text:
                leftovers.add("encoding", f"{path}/{name}")
            yield folder
            pending.extend(os.path.join(path, name) for name in reversed(folder.folders))


def _local(path: str) -> Folder:
    names: dict[bool, list[str]] = {True: [], False: []}  # whether they are folders
    no_text = []
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.name.isascii() and any("\udc80" <= letter <= "\udcff" for letter in entry.name):
                no_text.append(entry.name)
            elif not is_hidden(entry.name):
                names[_is_folder(entry)].append(entry.name)
    return Folder(path, sorted(names[True]), sorted(names[False]), tuple(no_text))


def _remote(path: str) -> Folder:
    system, folder = remote(path)
    kinds = {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry["type"] for entry in system.ls(folder)}
    names = sorted(name for name in kinds if not is_hidden(name))
    folders = [name for name in names if kinds[name] == "directory"]
    return Folder(path, folders, [name for name in names if kinds[name] != "directory"])


def _walk_remote(root: str) -> Iterator[Folder]:
    system, top = remote(root)
    below = [path for path in system.find(top) if not is_hidden(path[len(top) :])]
    for folder, files in groupby(sorted(path.rsplit("/", 1) for path in below), key=lambda parts: parts[0]):
        yield Folder(system.unstrip_protocol(folder), [], [file for _, file in files])


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to what is not there, or to itself
        return False
