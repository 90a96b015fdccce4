"""Write a litdata store out of any list of videos, into a folder or to a remote address.

A sample is a list of three byte strings: a JSON record (key, label, caption), the stream info of the video, its file.
``shards.chunk_rows`` has the layout of a chunk; ``rows.jsonl.gz`` (see ``shards``) is taken from the finished chunks.
``index.json`` comes last, so a store that was cut short is not mistaken for a complete one. Memory and, for a remote
store, disk: one chunk. Written without litdata, whose writer is not public; its ``StreamingDataset`` reads the result.
"""

import gzip
import json
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import IO, Any, NamedTuple

from flexivid.data.lists.cells import pack
from flexivid.data.sources.shards import CLASSES, CONFIG, INDEX, NUM_LEAVES, ROWS, chunk_rows, to_record
from flexivid.data.storage.byte_range import parse_byte_range, read_bytes, remote
from flexivid.data.storage.errors import VideoError
from flexivid.runtime.console import track
from flexivid.runtime.files import save_json
from flexivid.runtime.paths import is_remote, resolve

Source = tuple[str, int, str, bytes]  # path, label, caption, stream info
MAX_VIDEO_BYTES = (1 << 32) - (1 << 24)  # litdata counts the bytes of a chunk with 32 bits
LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
SPEC = json.dumps([1, {"type": "builtins.list", "context": "null", "children_spec": [LEAF] * NUM_LEAVES}])  # of torch


class ShardReport(NamedTuple):
    """Counts of a new store, and the videos that are missing from it."""

    num_videos: int
    num_chunks: int
    num_bytes: int
    bad: tuple[tuple[str, str], ...]  # (path, reason) of each video that could not be read and was left out


def sources_of(videos: Any) -> Iterator[Source]:
    """Yield (path, label, packed captions, packed facts) of each row of an index (``Videos``)."""
    for row in range(len(videos)):
        yield videos.path(row), int(videos.label[row]), pack(videos.captions(row)), videos.facts(row)


def write_shards(
    videos: Iterable[Source],
    output: str | os.PathLike[str],
    *,
    chunk_bytes: int = 64 << 20,
    class_names: Sequence[str] = (),
    progress: bool = True,
) -> ShardReport:
    """Copy videos into a new store, in their order; sort or shuffle them before.

    Paths of videos may be remote or byte ranges of other shards; ``output`` is a folder, or an address for fsspec
    (``s3://...`` needs s3fs). Files are of about ``chunk_bytes``. ``ValueError`` if ``output`` is in use, if no video
    can be read, or if ``chunk_bytes`` is out of range.

    >>> write_shards([], "store", chunk_bytes=0)
    Traceback (most recent call last):
    ValueError: got chunk_bytes 0; expected 1 to 4278190080; 67108864 suits most collections
    """
    if not 1 <= chunk_bytes <= MAX_VIDEO_BYTES:
        raise ValueError(
            f"got chunk_bytes {chunk_bytes}; expected 1 to {MAX_VIDEO_BYTES}; {64 << 20} suits most collections"
        )
    target = _Target(resolve(output))
    with tempfile.TemporaryDirectory(dir=target.near) as folder:
        bad: list[tuple[str, str]] = []
        with gzip.open(os.path.join(folder, ROWS), "wt", encoding="utf-8") as listing:
            samples = _samples(track(videos, "shards", hidden=not progress), bad)
            chunks = [_finish(chunk, listing, target) for chunk in _write_chunks(samples, folder, chunk_bytes)]
        if not chunks:
            first = f"{bad[0][0]}: {bad[0][1]}" if bad else "an empty list"
            raise ValueError(f"got no video that can be read ({first}); expected at least one; correct the list")
        save_json(os.path.join(folder, CLASSES), list(class_names), indent=None)
        config = {**CONFIG, "chunk_bytes": chunk_bytes, "chunk_size": None, "data_spec": SPEC}
        config["item_loader"] = "PyTreeLoader"
        save_json(os.path.join(folder, INDEX), {"chunks": chunks, "config": config}, indent=None)
        for name in (ROWS, CLASSES, INDEX):
            target.take(os.path.join(folder, name))
    num_videos, num_bytes = (sum(chunk[name] for chunk in chunks) for name in ("chunk_size", "chunk_bytes"))
    return ShardReport(num_videos, len(chunks), num_bytes, tuple(bad))


class _Target:
    """The store that receives finished files: a local folder, or a remote address to upload to."""

    def __init__(self, output: str) -> None:
        self.output, self._filesystem = output, None
        self.near: str | None = None
        if is_remote(output):
            self._filesystem, self._name = remote(self.output)
            used = self._filesystem.exists(f"{self._name}/{INDEX}")
        else:
            used = os.path.exists(output) and (not os.path.isdir(output) or bool(os.listdir(output)))
        if used:
            raise ValueError(f"got {output}, which is in use; expected a new folder; name another, or remove it")
        if self._filesystem is None:
            os.makedirs(output, exist_ok=True)
            self.near = os.path.dirname(os.path.abspath(output))  # the same disk: moving costs nothing

    def take(self, file: str) -> None:
        name = os.path.basename(file)
        if self._filesystem is None:
            os.replace(file, os.path.join(self.output, name))
        else:
            self._filesystem.put_file(file, f"{self._name}/{name}")
            os.remove(file)


def _samples(videos: Iterable[Source], bad: list[tuple[str, str]]) -> Iterator[bytes]:
    """Yield each video as a sample; add (path, reason) to ``bad`` for those that cannot be read."""
    for path, label, caption, info in videos:
        try:
            content = read_bytes(path)
            if len(content) > MAX_VIDEO_BYTES:
                raise VideoError(path, f"has {len(content)} bytes, more than the {MAX_VIDEO_BYTES} a chunk can hold")
        except VideoError as error:
            bad.append((error.path, error.reason))
            continue
        record = json.dumps({"key": path, "label": label, "caption": caption}).encode()
        yield struct.pack(f"<{NUM_LEAVES}I", len(record), len(info), len(content)) + record + info + content


def _write_chunks(samples: Iterable[bytes], folder: str, chunk_bytes: int) -> Iterator[str]:
    """Yield the path of each chunk once it is on disk; it may be moved away then."""
    pending: list[bytes] = []
    number = 0
    for sample in chain(samples, [None]):
        if pending and (sample is None or sum(map(len, pending)) + len(sample) > chunk_bytes):
            path = os.path.join(folder, f"chunk-0-{number}.bin")
            ends = accumulate(map(len, pending), initial=4 * (len(pending) + 2))
            with open(path, "wb") as stream:
                stream.write(struct.pack(f"<{len(pending) + 2}I", len(pending), *ends))
                stream.writelines(pending)
            yield path
            pending, number = [], number + 1
        if sample is not None:
            pending.append(sample)


def _finish(chunk: str, listing: IO[str], target: _Target) -> dict[str, Any]:
    """List a chunk, move it to where it belongs, and return its entry of ``index.json``."""
    num_bytes, rows = os.path.getsize(chunk), list(chunk_rows(chunk))
    listing.writelines(json.dumps(to_record(row, parse_byte_range(row.path))) + "\n" for row in rows)
    target.take(chunk)
    return {"filename": os.path.basename(chunk), "chunk_bytes": num_bytes, "chunk_size": len(rows), "dim": None}
