"""Collections that outgrow a file system: many videos in few large files, addressed by byte range.

Two forms are read. A **litdata** store, as ``write_shards`` makes it: ``index.json``, ``chunk-*.bin``, and
``rows.jsonl.gz`` beside them, which repeats the small fields so that a remote store is listed without reading it all.
**webdataset** tars: ``1.mp4`` with ``1.txt`` (caption), ``1.cls`` (class number) or ``1.json`` beside it.

A store is listed once; then each video is a byte range with random access, as a file is. The cost, compared with
litdata's own reader, is one request for each clip instead of one for each chunk. Reading needs no torch.
"""

import base64
import gzip
import io
import json
import os
import struct
from collections.abc import Iterator
from typing import Any

from flexivid.data.sources.leftovers import Leftovers
from flexivid.data.sources.listing import Listing
from flexivid.data.sources.tars import is_tar, tar_rows, tars_in
from flexivid.data.storage.byte_range import ByteRange, ShardRow, read_range
from flexivid.runtime.paths import is_remote, resolve

INDEX = "index.json"  # litdata's name
ROWS = "rows.jsonl.gz"
CLASSES = "classes.json"
NUM_LEAVES = 3  # of a sample: JSON record, stream info, video
# that is read
CONFIG: dict[str, Any] = {"data_format": ["bytes"] * NUM_LEAVES, "compression": None, "encryption": None}


def is_shards(url: str | os.PathLike[str], listing: Listing | None = None) -> bool:
    """Return whether a path or url holds shards: a litdata store, a tar, or a folder or pattern of tars.

    >>> is_shards("films-{0000..0099}.tar"), is_shards("nowhere")
    (True, False)
    """
    name = resolve(url)
    return is_tar(name) or _is_store(name) or bool(tars_in(name, listing))


def shard_rows(
    url: str | os.PathLike[str], leftovers: Leftovers | None = None, listing: Listing | None = None
) -> Iterator[ShardRow]:
    """List a store, in the order in which it is stored; neighbours lie in the same shard.

    ``leftovers`` counts unused members of tars. ``ValueError`` if there is no store, or one of another form.
    """
    name = resolve(url)
    if tars := tars_in(name, listing):
        for tar in tars:
            yield from tar_rows(tar, leftovers)
    elif _is_store(name):
        yield from _listed(name if is_remote(name) else os.path.abspath(name))
    else:
        raise ValueError(f"got {name}, which holds no shards; expected {INDEX} or *.tar there; correct the path")


def class_names(url: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the names of the classes that ``write_shards`` has stored; empty: none."""
    content = _optional(f"{resolve(url)}/{CLASSES}")
    return tuple(json.loads(content)) if content else ()


def _is_store(folder: str) -> bool:
    """Return whether a folder has litdata's index; other programs write an ``index.json``, too."""
    content = _optional(f"{folder}/{INDEX}")
    try:
        index = json.loads(content or b"null")
    except ValueError:
        return False
    return isinstance(index, dict) and {"config", "chunks"} <= index.keys()


def _listed(store: str) -> Iterator[ShardRow]:
    index = json.loads(read_range(ByteRange(f"{store}/{INDEX}", 0, -1)))
    stated = {name: index["config"].get(name) for name in CONFIG}
    if stated != CONFIG:
        raise ValueError(
            f"got {store}, a litdata store of {stated}; expected {CONFIG}; write it with flexivid.dataset shard"
        )
    listing = _optional(f"{store}/{ROWS}")
    if listing is None:
        for chunk in index["chunks"]:
            yield from chunk_rows(f"{store}/{chunk['filename']}")
        return
    with gzip.open(io.BytesIO(listing), "rt", encoding="utf-8") as lines:
        for line in lines:
            yield from_record(json.loads(line), store)


def chunk_rows(file: str) -> Iterator[ShardRow]:
    """List one chunk of a litdata store from the chunk itself.

    Layout, uint32 little endian: number of samples n, n + 1 offsets, samples; a sample is the sizes of its leaves and
    then the leaves.
    """
    (number,) = struct.unpack("<I", read_range(ByteRange(file, 0, 4)))
    offsets = struct.unpack(f"<{number + 1}I", read_range(ByteRange(file, 4, 4 * (number + 1))))
    for offset in offsets[:-1]:
        begin = offset + 4 * NUM_LEAVES
        sizes = struct.unpack(f"<{NUM_LEAVES}I", read_range(ByteRange(file, offset, 4 * NUM_LEAVES)))
        record = json.loads(read_range(ByteRange(file, begin, sizes[0])))
        info = read_range(ByteRange(file, begin + sizes[0], sizes[1]))
        video = ByteRange(file, begin + sizes[0] + sizes[1], sizes[2])
        yield ShardRow(video.path, record["key"], record.get("label", -1), record.get("caption", ""), info)


def to_record(row: ShardRow, video: ByteRange) -> dict[str, Any]:
    """Return a row as a line of ``rows.jsonl.gz``; the file is named relative to the store, which may move."""
    file = video.file.rpartition("/")[2]
    info = base64.b64encode(row.info).decode()
    location = {"file": file, "offset": video.offset, "size": video.size}
    return {**location, "key": row.key, "label": row.label, "caption": row.caption, "facts": info}


def from_record(record: dict[str, Any], store: str) -> ShardRow:
    """Read a line of ``rows.jsonl.gz`` back.

    >>> row = ShardRow("shard:store/chunk-0-0.bin#36+5", "a", -1, "", b"facts")
    >>> from_record(to_record(row, ByteRange("store/chunk-0-0.bin", 36, 5)), "store") == row
    True
    """
    if "/" in record["file"] or record["file"] in ("", "..") or min(record["offset"], record["size"]) < 0:
        raise ValueError(f"got {record['file']!r} in {store}/{ROWS}; expected a file of that store; write it anew")
    video = ByteRange(f"{store}/{record['file']}", record["offset"], record["size"])
    info = base64.b64decode(record["facts"])
    return ShardRow(video.path, record["key"], record["label"], record["caption"], info)


def _optional(file: str) -> bytes | None:
    try:
        return read_range(ByteRange(file, 0, -1))
    except (FileNotFoundError, NotADirectoryError):
        return None
