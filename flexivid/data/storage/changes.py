"""Fingerprints that show whether files have changed, for many files at once and without opening them.

A fingerprint is the size in bytes and a stamp: the modification time in nanoseconds or, for remote files, a hash of the
version that their store reports. Standard library and fsspec.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from flexivid.data.storage.byte_range import is_byte_range, open_binary, parse_byte_range, remote
from flexivid.runtime.paths import is_remote

MISSING = (-1, 0)
VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
ENDS = 1 << 16  # bytes at either end of a file that are hashed
NUM_THREADS = 16  # looking up names waits for a disk or a network, not for the processor
CHUNK = 4096


def fingerprints(paths: Sequence[str], *, contents: bool = False) -> np.ndarray:
    """Return size and stamp of every file, folder of pictures or url, (n, 2) int64; -1 and 0 where there is none.

    With ``contents``, the stamp is a hash of both ends of a file, for file systems without modification times.

    >>> fingerprints(["nowhere.mp4"]).tolist()
    [[-1, 0]]
    """
    result = np.empty((len(paths), 2), np.int64)
    is_url = [not contents and is_remote(path) and not is_byte_range(path) for path in paths]
    rows, look = [row for row in range(len(paths)) if not is_url[row]], _contents if contents else _stat
    chunks = [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        results = pool.map(lambda chunk: [look(paths[row]) for row in chunk], chunks)
        for chunk, prints in zip(chunks, results, strict=True):
            result[chunk] = prints
    urls = [row for row in range(len(paths)) if is_url[row]]
    if urls:
        listed = _listed([paths[row] for row in urls])
        result[urls] = [listed.get(paths[row], MISSING) for row in urls]
    return result


def _stat(path: str) -> tuple[int, int]:
    if is_byte_range(path):  # shards are written once: a changed one has other ranges
        return parse_byte_range(path).size, 1
    try:
        status = os.stat(path)
    except OSError:
        return MISSING
    return status.st_size, status.st_mtime_ns


def _contents(path: str) -> tuple[int, int]:
    if is_byte_range(path):
        return _stat(path)
    try:
        with open_binary(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            ends = file.read(ENDS)
            file.seek(max(0, size - ENDS))
            return size, _number(ends + file.read(ENDS))
    except OSError:  # a folder of pictures is one, too
        return _stat(path)


def _listed(urls: list[str]) -> dict[str, tuple[int, int]]:
    """Look up remote files folder by folder: a store lists a thousand files as fast as it describes one."""
    folders: dict[str, list[str]] = defaultdict(list)
    for url in urls:
        folders[url.rsplit("/", 1)[0]].append(url)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        parts = pool.map(lambda folder: _one_folder(folder, folders[folder]), folders)
        return {url: fingerprint for part in parts for url, fingerprint in part.items()}


def _one_folder(folder: str, urls: list[str]) -> dict[str, tuple[int, int]]:
    system, path = remote(folder)
    if folder.startswith(("http://", "https://")):  # which have no folders
        return {url: _described(partial(system.info, url)) for url in urls}
    try:
        entries = {entry["name"].rsplit("/", 1)[-1]: entry for entry in system.ls(path, detail=True)}
    except OSError:
        return {}
    return {url: _described(partial(entries.__getitem__, url.rsplit("/", 1)[-1])) for url in urls}


def _described(find: Callable[[], dict[str, Any]]) -> tuple[int, int]:
    try:
        entry = find()
    except (OSError, KeyError):
        return MISSING
    version = next((entry[name] for name in VERSIONS if entry.get(name)), "")
    return int(entry.get("size") or 0), _number(str(version).encode())


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)
