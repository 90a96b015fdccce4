"""Files that appear whole or not at all, also when several processes write the same one. Standard library only."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name beside the path to write to; it becomes the path if all goes well and is removed if not.

    Who reads, changes and writes a file needs ``locked`` around all three.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with whole_file(path) as part:
        ...     count = part.write_text("whole")
        >>> path.read_text(), len(list(path.parent.iterdir()))
        ('whole', 1)
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")  # threads and machines may share it
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep others who lock the same path waiting while it is read, changed and written.

    They may be threads, processes, or other machines where the file system can lock; where it cannot, nobody waits.

    Args:
        path: The file to be changed; it need not exist, its folder must.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with locked(path):
        ...     count = path.write_text("mine")
        >>> [file.name for file in path.parent.iterdir()]
        ['a.txt']
    """
    lock = Path(path).with_name(f".{Path(path).name}.lock")
    file = _held(lock)
    try:
        yield
    finally:
        lock.unlink(
            missing_ok=True
        )  # before it is let go: whoever waits for it sees that it is gone, and makes another
        os.close(file)


def _held(lock: Path) -> int:
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(ImportError, OSError):  # no such thing on this system, or on this file system
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(lock)):
                return file
        os.close(file)
