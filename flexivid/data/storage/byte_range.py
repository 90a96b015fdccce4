"""Read the bytes of a video: from a file, a remote address, or a range of bytes inside a shard.

A range is written as a path, ``shard:<file or url>#<offset>+<size>``, so that manifests, indices and requests can hold
it. Decode processes need only that path: no library, no open store, no state. Standard library; fsspec for urls.
"""

import os
from typing import IO, Any, NamedTuple

from flexivid.data.storage.errors import VideoError
from flexivid.runtime.paths import is_remote

PREFIX = "shard:"


class ByteRange(NamedTuple):
    """Bytes inside a file.

    >>> ByteRange("s3://films/chunk-0-0.bin", 32, 1000).path
    'shard:s3://films/chunk-0-0.bin#32+1000'
    """

    file: str  # path or url
    offset: int
    size: int

    @property
    def path(self) -> str:
        return f"{PREFIX}{self.file}#{self.offset}+{self.size}"


class ShardRow(NamedTuple):
    """One video of a store."""

    path: str  # its byte range, as a path
    key: str  # its name in the store
    label: int  # -1: no class
    caption: str  # empty: none
    info: bytes  # ``Facts.to_bytes()`` from when it was stored; empty: not known


def is_byte_range(path: object) -> bool:
    """Return whether a path is a range of bytes inside a shard.

    >>> is_byte_range("shard:films.tar#512+1000"), is_byte_range("films/1.mp4"), is_byte_range(b"shard:")
    (True, False, False)
    """
    return isinstance(path, str) and path.startswith(PREFIX)


def parse_byte_range(path: str) -> ByteRange:
    """Read a range back from its path; ``ValueError`` if the path has another form.

    >>> parse_byte_range("shard:films #1.tar#512+1000")
    ByteRange(file='films #1.tar', offset=512, size=1000)
    """
    file, _, numbers = path.removeprefix(PREFIX).rpartition("#")
    offset, _, size = numbers.partition("+")
    if not (path.startswith(PREFIX) and file and offset.isdecimal() and size.isdecimal()):
        raise ValueError(
            f"got {path}; expected {PREFIX}<file>#<offset>+<size>; take the path from an index of the shards"
        )
    return ByteRange(file, int(offset), int(size))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a whole video file: a range of a shard, a plain file, or a remote address.

    Remote addresses need the package of their protocol (s3fs for ``s3://``). ``VideoError`` if it cannot be read, or if
    the shard ends too early.

    >>> import tempfile
    >>> file = tempfile.mkdtemp() + "/shard.bin"
    >>> with open(file, "wb") as stream:
    ...     print(stream.write(b"0123456789"))
    10
    >>> read_bytes(ByteRange(file, 3, 4).path), read_bytes(file), read_range(ByteRange(file, 8, 100))
    (b'3456', b'0123456789', b'89')
    """
    name = os.fspath(path)
    part = parse_byte_range(name) if is_byte_range(name) else ByteRange(name, 0, -1)
    try:
        content = read_range(part)
    except Exception as error:  # each remote protocol has errors of its own
        raise VideoError(name, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if part.size >= 0 and len(content) != part.size:
        raise VideoError(name, f"the shard ends early: {len(content)} of {part.size} bytes are there")
    return content


def read_range(part: ByteRange) -> bytes:
    """Read the bytes of a range that exist; a size of -1 means up to the end. Errors are those of the file system."""
    if is_remote(part.file):
        filesystem, name = remote(part.file)
        end = None if part.size < 0 else part.offset + part.size
        return filesystem.cat_file(name, start=part.offset, end=end) if part.size else b""
    with open(part.file, "rb") as stream:
        stream.seek(part.offset)
        return stream.read(part.size)


def open_binary(path: str, *, block_size: int | None = None) -> IO[bytes]:
    """Open a local file or a url to read its bytes, of a url in blocks of a size; a local name is used literally.

    >>> try:
    ...     open_binary("2024::trip/1.txt")
    ... except FileNotFoundError as error:
    ...     error.filename
    '2024::trip/1.txt'
    """
    if not is_remote(path):
        return open(path, "rb")
    filesystem, name = remote(path)
    return filesystem.open(name, "rb", block_size=block_size)


def remote(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a url and the name of the file in it; ``ValueError`` if nothing here reads it.

    >>> remote("memory://films/1.mp4")[1]
    '/films/1.mp4'
    """
    from fsspec.core import url_to_fs  # a tenth of a second, and local files do without

    try:
        return url_to_fs(url)
    except ImportError as error:
        raise ValueError(f"got {url}; expected a protocol whose package is installed; {error}") from error
