"""How every path that a user writes is read: roots, rows of lists, shards, runs, checkpoints, outputs, caches.

The rules, in this order:

1. ``$NAME`` and ``${NAME}`` stand for variables that are set, unless a file of exactly that name exists.
2. ``scheme://...`` is a url for fsspec, ``scheme::scheme://...`` a chain of them. ``file://`` names a local file.
3. Everything else is a local path. ``~`` at its beginning is a home folder (``./~`` is a folder of that name). No other
   character has a meaning: ``2024::trip``, ``[set] 1``, ``50%``, ``a#b`` are names like any other.
4. A name with accents that does not exist is looked for in other unicode forms: macOS writes other bytes than Linux.

Relative paths stay relative. Standard library only.
"""

import os
import re
import unicodedata
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

HUB_ID = r"[\w.-]+/[\w.-]+"  # of a model on the Hugging Face hub
_URL = re.compile(r"(?:shard:)?(?:[a-z][a-z0-9+.-]*::)*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_LOCAL_URL = re.compile(r"(?:file|local)://(?:localhost(?=/))?|file:(?=/)", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:([A-Z_][A-Z0-9_]*)|\{([A-Za-z_]\w*)\})")
_HIDDEN = frozenset(  # files of operating systems and tools: thumbnails, bins, indexes
    ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin", "lost+found")
) | {"system volume information"}


def is_remote(path: object) -> bool:
    """Say whether a path is a url for fsspec, or a range of bytes at one.

    >>> is_remote("s3://films/1.mp4"), is_remote("simplecache::s3://films/1.mp4"), is_remote("shard:s3://f.tar#0+9")
    (True, True, True)
    >>> is_remote("2024::trip/1.mp4"), is_remote(b"://")
    (False, False)
    """
    return isinstance(path, str) and _URL.match(path) is not None


def is_hidden(path: str) -> bool:
    """Say whether a path below a root is hidden: it, or a folder above it, starts with a dot or belongs to a system.

    >>> is_hidden("waves/._1.mp4"), is_hidden("__MACOSX/1.mp4"), is_hidden("./waves/1.mp4")
    (True, True, False)
    """
    names = [name for name in path.split("/") if name not in (".", "..")]
    return any(name.startswith(".") or name.lower() in _HIDDEN for name in names)


def resolve(path: str | os.PathLike[str]) -> str:
    """Return the path that a user means, by the rules above; it need not exist. Resolving twice changes nothing.

    An empty path, or one that names a variable that is not set, is a ``ValueError``.

    >>> resolve("./2024::trip//a/"), resolve("S3://films/a"), resolve("$HOME/a") == resolve("~/a")
    ('./2024::trip/a', 's3://films/a', True)
    """
    text = os.fsdecode(path)
    if not text.strip():
        raise ValueError(
            "got an empty path; expected a file, a folder or a url; look at the setting or variable it is from"
        )
    if "\0" in text:
        raise ValueError(f"got path {text!r} with a null character; expected none; correct the path")
    meant = expand(text)
    if (unset := _VARIABLE.search(meant)) and not os.path.lexists(meant):
        name = unset[1] or unset[2]
        raise ValueError(f"got {text}, but no variable {name}; expected it to be set; set it, or write the path out")
    return meant if is_remote(meant) else Names().existing(meant)


def resolve_path(path: str | os.PathLike[str]) -> Path:
    """Return ``resolve(path)`` as a ``Path``, where no url is possible."""
    return Path(resolve(path))


def expand(path: str) -> str:
    """Replace variables, the home folder and ``file://`` in a path; variables that are not set stay.

    >>> expand("file:///films/my%20trip"), expand("a~b$"), expand("shard:s3://films/1.tar#512+9")
    ('/films/my trip', 'a~b$', 'shard:s3://films/1.tar#512+9')
    """
    if "$" in path and not os.path.lexists(path):
        path = os.path.expandvars(path)
    if (local := _LOCAL_URL.match(path)) is not None:
        path = path[local.end() :]
        path = path if os.path.lexists(path) else unquote(path)
    if (url := _URL.match(path)) is not None:
        scheme, rest = path[: url.end()].lower(), path[url.end() :]
        return scheme + (rest if scheme.startswith("http") else rest.rstrip("/"))  # a web address may end in a slash
    if path.startswith("~"):
        path = os.path.expanduser(path)
    return tidy(path)


def tidy(path: str) -> str:
    """Return a local path without redundant slashes and dots; ``..`` stays, since it may follow a link.

    >>> tidy("a//b/./c/"), tidy("//"), tidy("./a/../b")
    ('a/b/c', '/', './a/../b')
    """
    return re.sub(r"/(?:\.?/)+", "/", path).rstrip("/") or "/"


def cache_folder(name: str) -> Path:
    """Return a folder of the cache: ``$FLEXIVID_CACHE/name`` or ``~/.cache/flexivid/name``."""
    return Path(resolve(os.environ.get("FLEXIVID_CACHE") or "~/.cache/flexivid"), name)


class Names:
    """Finds files whose names have another unicode form on disk; lists each folder once."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, str]] = {}

    def existing(self, path: str) -> str:
        """Return a local path as it is written on disk, or unchanged if there is no such file."""
        if path.isascii():
            return path
        head, slash, name = path.rpartition("/")
        parent = (self.existing(head) if head else head) + slash
        if name.isascii():
            return parent + name
        if parent not in self._folders:
            self._folders[parent] = _accented(parent or ".")
        names = self._folders[parent]
        return parent + names.get(name, names.get(_form(name), name))


def _accented(folder: str) -> dict[str, str]:
    """Names in a folder that are not ASCII, by the name itself and by its composed form."""
    names: list[str] = []
    with suppress(OSError):
        names = [name for name in os.listdir(folder) if not name.isascii()]
    return {_form(name): name for name in names} | {name: name for name in names}


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)
