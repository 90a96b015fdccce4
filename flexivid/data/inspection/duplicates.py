"""Files with the same content, whatever they are called.

Files are compared by size, then by samples of their contents, and only then completely: few files are read to the end.
A path that is listed twice counts once, since a file may have two captions. Standard library and fsspec.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from flexivid.data.storage.byte_range import open_binary, remote
from flexivid.runtime.paths import is_hidden, is_remote

SAMPLE_BYTES = 1 << 16
BLOCK_BYTES = 1 << 20


def find_duplicates(
    paths: Iterable[str | os.PathLike[str]], *, on_read: Callable[[str], None] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Return groups of files with the same content, each in the order given; files that cannot be read are in none.

    Paths are files, remote files or folders of pictures. ``on_read`` is called with each before it is read.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name, words in {"a": "waves", "b": "winds", "c": "waves"}.items():
    ...     _ = (folder / name).write_text(words)
    >>> [[Path(path).name for path in group] for group in find_duplicates(sorted(folder.iterdir()))]
    [['a', 'c']]
    """
    tell = on_read or (lambda path: None)
    groups = [list(dict.fromkeys(str(os.fspath(path)) for path in paths))]
    for key in (_num_bytes, _sample_hash, _full_hash):
        groups = [part for group in groups for part in _alike(group, key, tell)]
    return tuple(map(tuple, groups))


def _alike(paths: list[str], key: Callable[[str], object], tell: Callable[[str], None]) -> Iterator[list[str]]:
    parts: dict[object, list[str]] = defaultdict(list)
    for path in paths:
        if key is not _num_bytes:
            tell(path)
        try:
            parts[key(path)].append(path)
        except OSError:
            continue  # decoding it will give the reason
    return (part for part in parts.values() if len(part) > 1)


def _num_bytes(path: str) -> tuple[int, int]:
    """Number of files, and their bytes."""
    files = _files(path)
    return len(files), sum(map(_size, files))


def _sample_hash(path: str) -> bytes:
    """Hash of the first, middle and last bytes; of a folder, those of its first, middle and last file."""
    files, digest = _files(path), hashlib.blake2b(digest_size=16)
    for file in (files[0], files[len(files) // 2], files[-1]):
        num_bytes = _size(file)
        with open_binary(file) as stream:
            for start in (0, num_bytes // 2, max(0, num_bytes - SAMPLE_BYTES)):
                stream.seek(start)
                digest.update(stream.read(SAMPLE_BYTES))
    return digest.digest()


def _full_hash(path: str) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    for file in _files(path):
        with open_binary(file) as stream:
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
    return digest.digest()


def _files(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    files = sorted(str(file) for file in Path(path).iterdir() if file.is_file() and not is_hidden(file.name))
    if not files:
        raise OSError(f"no file in {path}")
    return files


def _size(path: str) -> int:
    if not is_remote(path):
        return os.stat(path).st_size
    filesystem, name = remote(path)
    size: Any = filesystem.size(name)
    return size
