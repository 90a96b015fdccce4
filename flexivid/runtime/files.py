"""Files and folders that appear whole or not at all, also when several processes write the same one.

Standard library only.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``. It is renamed to ``path`` if the block succeeds, removed if it raises.

    The block may make a file, which replaces an older one, or a folder, where there is none yet. To read, change and
    write a file, put ``locked`` around all three.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")  # threads and machines may share it
    try:
        yield part
        part.replace(path)
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        part.unlink(missing_ok=True)


def save_json(path: str | os.PathLike[str], content: Any, *, indent: int | None = 2) -> None:
    """Write plain data and a line feed, by ``atomic_write``."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


@contextmanager
def locked(path: str | os.PathLike[str], *, wait: bool = True) -> Iterator[bool]:
    """Make others who lock the same path, a file whose folder must exist, wait until the block ends.

    They may be threads, processes, or machines that share a file system with locks. Yields whether the lock is ours:
    False only if another holds it and ``wait`` is False. A process that is killed loses its locks. Without locks on
    this file system, nobody waits.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with locked(path) as first, locked(path, wait=False) as second:
        ...     print(first, second)
        True False
    """
    lock = Path(path).with_name(f".{Path(path).name}.lock")
    descriptor = _acquire(lock, wait=wait)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        lock.unlink(missing_ok=True)  # before releasing it: those who wait see that it is gone, and make a new one
        os.close(descriptor)


def _acquire(lock: Path, *, wait: bool) -> int | None:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except (ImportError, OSError):  # this system or file system has no locks
            pass
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        os.close(descriptor)
