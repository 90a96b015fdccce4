"""Build the index of a collection: one row for each video, so that no file is probed twice.

The index is an Arrow file in a cache folder, because the folder of the videos may be read-only. The next run compares
names, sizes and modification times, and probes only new files. Files that cannot be decoded have rows with a reason. An
interrupted build resumes where it stopped.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flexivid.data.decoding.display import as_asked
from flexivid.data.decoding.probe import Facts, VideoError
from flexivid.data.index.table import LOOK, TABLE, Parts, Table
from flexivid.data.index.videos import Videos
from flexivid.data.sources.manifest import Manifest, read_caption, text_beside
from flexivid.data.storage.changes import fingerprints
from flexivid.runtime.console import track
from flexivid.runtime.paths import cache_folder, is_remote

ProbeMany = Callable[[list[str]], Iterator[Facts | VideoError]]
Check = Literal["stat", "contents", "names"]

CHUNK = 1 << 17  # names looked up together


class BadVideo(NamedTuple):
    """A file that cannot be decoded, and why."""

    path: str
    reason: str


class VideoIndex(NamedTuple):
    """The videos that can be decoded, and the files that cannot, both in the order of the manifest.

    ``num_probed`` files were probed for it, the others before; ``notes`` name unused files beside the videos.
    """

    videos: Videos
    bad: tuple[BadVideo, ...]
    class_names: tuple[str, ...]
    path: Path
    num_probed: int = 0
    notes: tuple[str, ...] = ()


def index_path(root: str, decoder: str = "auto", *, square_pixels: bool = True) -> Path:
    """Return the file of the index of a collection, in ``$FLEXIVID_CACHE/index`` or ``~/.cache/flexivid/index``.

    A decoder that must be exact has an index of its own, since it refuses other files, and so have pictures whose
    pixels are not made square.

    >>> index_path("videos").suffix
    '.arrow'
    """
    name = root if is_remote(root) else os.path.abspath(root)
    name += "" if decoder == "auto" else f"\0{decoder}"
    name += "" if square_pixels else "\0pixels as stored"
    return cache_folder("index") / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:20]}.arrow"


def build_index(
    manifest: Manifest,
    *,
    probe_many: ProbeMany,
    path: str | os.PathLike[str] | None = None,
    progress: bool = True,
    check: Check = "stat",
    square_pixels: bool = True,
) -> VideoIndex:
    """Return the index of a manifest; probe the videos that are new or have changed.

    Args:
        manifest: The videos.
        probe_many: Takes paths and yields, in their order, what ``probe`` returns or the error that it raises.
        path: File of the index; None for the one in the cache folder that belongs to the manifest's root.
        check: How to tell that a file has changed: "stat" by size and time; "contents" by size and its first and last
            64 KiB; "names" trusts an index that has the names of the manifest.
        square_pixels: Whether pictures are resized so that their pixels are square; False keeps the file's own.

    >>> import tempfile
    >>> manifest, path = Manifest.of([("a.mp4", -1, "")]), tempfile.mkdtemp() + "/index.arrow"
    >>> probe_many = lambda paths: (VideoError(path, "no video stream") for path in paths)
    >>> build_index(manifest, probe_many=probe_many, path=path, progress=False).bad
    (BadVideo(path='a.mp4', reason='no video stream'),)
    """
    file = Path(path) if path is not None else index_path(manifest.root, square_pixels=square_pixels)
    old = Table.open(file)
    if check == "names" and old is not None and _same_names(old, manifest):
        return _as_index(old, file)
    prints = _prints(manifest.table["path"], contents=check == "contents")
    stamps = _caption_stamps(manifest)
    if old is not None and _is_fresh(old, manifest, prints, stamps):
        return _as_index(old, file)
    captions = _captions(manifest)  # before hours of probing: a text that cannot be read is an error
    parts = Parts(file)
    rows = _probed_rows(parts, old)
    missing = np.flatnonzero(_match(manifest, prints, rows) < 0)
    new = dict(zip(manifest.table["path"].take(pa.array(missing)).to_pylist(), missing, strict=True))  # each path once
    with parts:
        outcomes = probe_many(list(new))
        shown = track(outcomes, "probing videos", total=len(new), hidden=not progress or len(new) == 0)
        for (name, row), look in zip(new.items(), shown, strict=True):
            parts.add(_row(name, prints[row], look, square_pixels=square_pixels))
    rows = _probed_rows(parts, old)
    _assemble(manifest, rows.take(_match(manifest, prints, rows)), (captions, stamps), file)
    parts.clear()
    table = Table.open(file)
    assert table is not None
    return _as_index(table, file)._replace(num_probed=len(new))


def _row(path: str, fingerprint: np.ndarray, look: Facts | VideoError, *, square_pixels: bool) -> dict[str, object]:
    if isinstance(look, Facts):
        try:
            look = as_asked(path, look, square_pixels=square_pixels)
        except VideoError as error:
            look = error
    row: dict[str, object] = dict.fromkeys(LOOK.names, 0)
    row |= {"path": path, "size": int(fingerprint[0]), "stamp": int(fingerprint[1])}
    if isinstance(look, VideoError):
        row |= {"decoder": "", "is_variable_rate": False, "display": "", "facts": b""}
        return row | {"reason": look.reason or "unknown"}
    row |= {"num_frames": int(look.num_frames), "fps": float(look.fps), "duration": float(look.duration)}
    row |= {"height": int(look.size[0]), "width": int(look.size[1]), "decoder": look.decoder}
    row |= {"display": look.display_words}
    return row | {"is_variable_rate": bool(look.is_variable_rate), "facts": look.to_bytes(), "reason": ""}


def _probed_rows(parts: Parts, old: Table | None) -> pa.Table:
    """Return the rows of this build and of the old index, the latest first."""
    tables = parts.read()
    if old is not None:
        tables.append(pa.Table.from_batches([old.batch]).select(LOOK.names).replace_schema_metadata(None))
    return pa.concat_tables(tables) if tables else LOOK.empty_table()


def _match(manifest: Manifest, prints: np.ndarray, rows: pa.Table) -> np.ndarray:
    """Return for each row of the manifest which row of ``rows`` describes it, -1 for none, (n,) int64."""
    if len(rows) == 0:
        return np.full(len(manifest), -1, np.int64)
    where = pc.index_in(manifest.table["path"], value_set=rows["path"].combine_chunks())
    row_of = pc.fill_null(where, -1).to_numpy().astype(np.int64)
    same = (rows["size"].to_numpy()[row_of] == prints[:, 0]) & (rows["stamp"].to_numpy()[row_of] == prints[:, 1])
    return np.where((row_of >= 0) & same, row_of, -1)


def _prints(paths: pa.ChunkedArray, *, contents: bool = False) -> np.ndarray:
    """Return the fingerprints of many files, (n, 2) int64; names are converted chunk by chunk, to save memory."""
    parts = (paths.slice(begin, CHUNK).to_pylist() for begin in range(0, len(paths), CHUNK))
    return np.concatenate([np.empty((0, 2), np.int64), *(fingerprints(part, contents=contents) for part in parts)])


def _caption_stamps(manifest: Manifest) -> np.ndarray:
    stamps = np.zeros(len(manifest), np.int64)
    rows = manifest.rows_with_text
    if len(rows):
        some = manifest.table.take(pa.array(rows))
        sizes = fingerprints(list(map(text_beside, some["path"].to_pylist(), some["text"].to_pylist())))
        stamps[rows] = sizes[:, 1] ^ (sizes[:, 0] << 1)  # an edit within the clock's tick mostly changes the size
    return stamps


def _same_names(old: Table, manifest: Manifest) -> bool:
    if old.batch.num_rows != len(manifest) or old.class_names != manifest.class_names:
        return False
    number = old.batch.column("number")
    is_in_order = old.num_good == len(manifest)  # bad files come last in an index
    ordered = manifest.table if is_in_order else manifest.table.take(number)
    has_text = pc.not_equal(ordered["text"], "")
    old_captions = pc.if_else(has_text, ordered["caption"], pa.chunked_array([old.batch.column("caption")]))
    return (
        ordered["path"].equals(pa.chunked_array([old.batch.column("path")]))
        and ordered["label"].equals(pa.chunked_array([old.batch.column("label")]))
        and ordered["caption"].equals(old_captions)
    )


def _is_fresh(old: Table, manifest: Manifest, prints: np.ndarray, stamps: np.ndarray) -> bool:
    if not _same_names(old, manifest):
        return False
    number = old.batch.column("number").to_numpy()
    now = {"size": prints[:, 0], "stamp": prints[:, 1], "caption_stamp": stamps}
    return all(np.array_equal(old.batch.column(name).to_numpy(), column[number]) for name, column in now.items())


def _captions(manifest: Manifest) -> pa.ChunkedArray | pa.Array:
    """Return the captions, reading those in text files beside the videos."""
    rows = manifest.rows_with_text
    if len(rows) == 0:
        return manifest.table["caption"]
    some = manifest.table.take(pa.array(rows))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        words = list(pool.map(read_caption, some["path"].to_pylist(), some["text"].to_pylist()))
    has_text = pc.not_equal(manifest.table["text"], "").combine_chunks()
    stated = manifest.table["caption"].combine_chunks()
    return pc.replace_with_mask(stated, has_text, pa.array(words, pa.large_string()))


def _assemble(manifest: Manifest, looks: pa.Table, captions: tuple[Any, np.ndarray], file: Path) -> None:
    """Write the index, the files that can be decoded first: their columns are then in one piece.

    ``captions``: the words, and the stamps of the files that they are from.
    """
    columns = {name: looks[name] for name in LOOK.names}
    columns |= {"label": manifest.table["label"], "caption": captions[0], "caption_stamp": captions[1]}
    columns["number"] = np.arange(len(manifest))
    table = pa.table(columns, schema=TABLE)
    good = pc.equal(table["reason"], "").to_numpy()
    if not good.all():
        table = table.take(pa.array(np.concatenate([np.flatnonzero(good), np.flatnonzero(~good)])))
    Table.write(table, file, class_names=manifest.class_names, num_good=int(good.sum()))


def _as_index(table: Table, file: Path) -> VideoIndex:
    bad = table.batch.slice(table.num_good).select(["path", "reason"])
    named: Iterable[dict[str, str]] = bad.to_pylist()
    videos = Videos(table, slice(0, table.num_good))
    return VideoIndex(videos, tuple(BadVideo(**row) for row in named), table.class_names, file)
