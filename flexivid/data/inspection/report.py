"""Report the faults and the contents of a collection, and write a manifest of its good files.

A file has a *fault* if it cannot be decoded, is too short for a clip, or repeats another file. Variable frame rates are
listed but are no fault, because frames are chosen by time; so are pictures that are displayed differently than stored.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flexivid.data.clips.frame_cache import runs
from flexivid.data.clips.windows import ClipSettings, span_of, step_of
from flexivid.data.decoding.facts import Facts
from flexivid.data.decoding.reader import ClipRequest
from flexivid.data.index.videos import Videos
from flexivid.data.lists.cells import MAX_CLASSES, is_missing, is_number, written
from flexivid.data.lists.classes import class_numbers
from flexivid.data.storage.byte_range import is_byte_range
from flexivid.data.storage.errors import VideoError
from flexivid.data.workers.pool import DecodePool, outcomes
from flexivid.runtime.files import atomic_write
from flexivid.runtime.paths import is_remote, resolve

RUN_FRAMES = 256  # frames of one request, so that a hang is noticed in files of any length
SMALL = (32, 32)  # size of frames that are decoded only as a check


class Fault(NamedTuple):
    """A file that cannot be used, and why."""

    path: str
    kind: str  # "bad", "too short" or "duplicate"
    reason: str


class Report(NamedTuple):
    """Result of ``survey``. Counts include only videos that can be decoded; ``notes`` list ignored files."""

    num_videos: int
    num_clips: int
    num_frames: int
    hours: float
    faults: tuple[Fault, ...] = ()
    variable_rate: tuple[str, ...] = ()
    displays: dict[str, str] = {}  # noqa: RUF012
    classes: dict[str, int] = {}  # noqa: RUF012
    sizes: dict[str, int] = {}  # noqa: RUF012
    durations: dict[str, int] = {}  # noqa: RUF012
    codecs: dict[str, int] = {}  # noqa: RUF012
    decoders: dict[str, int] = {}  # noqa: RUF012
    notes: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether there is something to train on and no file has a fault."""
        return self.num_clips > 0 and not self.faults

    @property
    def num_faults(self) -> dict[str, int]:
        """Files with a fault, by its kind."""
        return dict(Counter(fault.kind for fault in self.faults))

    def to_json(self) -> dict[str, Any]:
        faults = [fault._asdict() for fault in self.faults]
        return {"is_clean": self.is_clean, "num_faults": self.num_faults, **self._asdict(), "faults": faults}


def survey(
    videos: Videos, num_clips: np.ndarray, *, faults: Iterable[Fault] = (), class_names: Sequence[str] = ()
) -> Report:
    """Count what is in an index: videos that can be decoded, and the clips of each in an epoch, (n,).

    >>> videos = Videos.of(["a.mp4", "b.mp4"], num_frames=[250, 50], duration=[10.0, 2.0], height=480, width=640)
    >>> report = survey(videos, np.array([31, 6]))
    >>> report.num_clips, report.sizes, report.durations
    (37, {'640x480': 2}, {'under 10 s': 1, '10 to 60 s': 1})
    """
    labels, counts = np.unique(videos.label, return_counts=True)
    classes = {class_names[label]: 0 for label in range(len(class_names))}
    classes |= {class_names[k]: int(n) for k, n in zip(labels, counts, strict=True) if 0 <= k < len(class_names)}
    sizes, counts = np.unique(np.stack([videos.widths, videos.heights]), axis=1, return_counts=True)
    return Report(
        num_videos=len(videos),
        num_clips=int(np.sum(num_clips)),
        num_frames=int(videos.num_frames.sum(dtype=np.int64)),
        hours=round(float(np.sum(videos.durations)) / 3600, 4),
        faults=tuple(faults),
        variable_rate=tuple(videos.path(int(row)) for row in np.flatnonzero(videos.is_variable_rate)),
        displays={videos.path(row): words for row in range(len(videos)) if (words := videos.display(row))},
        classes=classes,
        sizes=_ordered({f"{w}x{h}": int(n) for (w, h), n in zip(sizes.T, counts, strict=True)}),
        durations=_durations(videos.durations),
        codecs=_ordered(Counter(_codec(videos.facts(row)) for row in range(len(videos)))),
        decoders=_ordered(Counter(videos.decoder(row) or "none" for row in range(len(videos)))),
    )


def too_short(videos: Videos, rows: Iterable[int], settings: ClipSettings) -> list[Fault]:
    """Return a fault for each of the rows, which are too short for a clip.

    >>> too_short(Videos.of(["a.mp4"], num_frames=7), [0], ClipSettings(num_frames=8))[0].reason
    'has 7 of the 8 frames that a clip spans'
    """
    spans = np.broadcast_to(span_of(settings.num_frames, step_of(videos.fps, settings)), len(videos))
    lengths = videos.num_frames
    return [
        Fault(videos.path(row), "too short", f"has {lengths[row]} of the {spans[row]} frames that a clip spans")
        for row in map(int, rows)
    ]


def repeats(groups: Iterable[Sequence[str]]) -> list[Fault]:
    """Return a fault for each file but the first of each group with the same content.

    >>> repeats([("a.mp4", "c.mp4")])
    [Fault(path='c.mp4', kind='duplicate', reason='same content as a.mp4')]
    """
    return [Fault(path, "duplicate", f"same content as {first}") for first, *others in groups for path in others]


def decode_whole(
    videos: Videos, *, num_workers: int, on_frames: Callable[[int], None] = lambda count: None
) -> list[Fault]:
    """Decode every frame of every file, in separate processes, and return a fault for each file that fails.

    ``on_frames`` is called with the number of frames done since the last call.
    """
    faults: dict[int, Fault] = {}

    def asked() -> Iterator[tuple[tuple[int, int], ClipRequest]]:
        for row in range(len(videos)):
            for request in runs(videos, row, SMALL, max_frames=RUN_FRAMES):
                if row not in faults:
                    yield (row, len(request.indices)), request

    with DecodePool(num_workers) as pool:
        for (row, count), result in outcomes(asked(), pool):
            if isinstance(result, VideoError):
                faults.setdefault(row, Fault(result.path, "bad", result.reason))
            on_frames(count)
    return list(faults.values())


def write_manifest(
    path: str | os.PathLike[str], videos: Videos, *, class_names: Sequence[str] = (), leave_out: Iterable[str] = ()
) -> int:
    """Write a manifest: ``path``, ``text`` if there are captions, ``label`` if there are classes; return its rows.

    The file ends in .csv, .jsonl or .parquet; videos below its folder are named relative to it. ``leave_out`` are
    paths. ``ValueError`` if the ending is another one, or a list would not give back the names of the classes.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "good.csv")
    >>> write_manifest(path, Videos.of(["/v/a.mp4", "/v/b.mp4"], caption=["waves", "wind"]), leave_out=["/v/a.mp4"])
    1
    >>> path.read_text().split()
    ['path,text', '/v/b.mp4,wind']
    """
    refuse_ending(path)
    path, left_out = Path(resolve(path)), set(leave_out)
    rows = [row for row in range(len(videos)) if videos.path(row) not in left_out]
    columns = {"path": [_relative(videos.path(row), path.parent) for row in rows]}
    captions = [written(videos.captions(row)) for row in rows]
    if any(captions):
        columns["text"] = captions
    if class_names:
        columns["label"] = [class_names[label] if label >= 0 else "" for label in videos.label[rows].tolist()]
        _refuse_classes(set(columns["label"]) - {""}, class_names)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        _write_columns(part, columns, path.suffix)
    return len(rows)


def refuse_ending(path: str | os.PathLike[str]) -> None:
    """Raise an error, before any work is done, if a manifest cannot have this name.

    >>> refuse_ending("good.txt")
    Traceback (most recent call last):
    ValueError: got good.txt; expected a name ending in .csv, .jsonl or .parquet; rename it
    """
    if Path(path).suffix not in (".csv", ".jsonl", ".parquet"):
        raise ValueError(f"got {os.fspath(path)}; expected a name ending in .csv, .jsonl or .parquet; rename it")


def _refuse_classes(words: set[str], class_names: Sequence[str]) -> None:
    """Refuse class names that would be read back as something else."""
    if lost := sorted(filter(is_missing, words)):
        raise ValueError(
            f"got a class named {lost[0]!r}, which means none in a list; expected another name; rename its folder"
        )
    if words and all(map(is_number, words)) and tuple(class_names) != class_numbers(len(class_names) - 1):
        raise ValueError(
            f"got classes named {', '.join(sorted(words)[:5])}, which a list takes for numbers; expected names, or "
            f"whole numbers from 0 below {MAX_CLASSES}; rename their folders"
        )


def _write_columns(path: Path, columns: dict[str, list[str]], kind: str) -> None:
    if kind == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table(columns), path)
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = list(zip(*columns.values(), strict=True))
        if kind == ".csv":
            bare = any("\r" in cell for row in rows for cell in row)  # which the writer would leave without quotes
            writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL)
            writer.writerows([list(columns), *rows])
        else:
            stream.writelines(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)


def _relative(path: str, folder: Path) -> str:
    if is_remote(path) or is_byte_range(path):
        return path
    absolute = Path(os.path.abspath(path))
    base = Path(os.path.abspath(folder))
    if not absolute.is_relative_to(base):
        return str(absolute)
    name = str(absolute.relative_to(base))
    return f"./{name}" if name.startswith("~") or ":" in name.split("/")[0] else name  # no home, no url


def _codec(info: bytes) -> str:
    if not info:
        return "pictures"
    stream = Facts.from_bytes(info)
    return f"{stream.codec} in {stream.container.split(',')[0]}"


def _durations(seconds: np.ndarray) -> dict[str, int]:
    names = ("under 10 s", "10 to 60 s", "1 to 10 min", "over 10 min")
    counts = np.bincount(np.digitize(seconds, (10, 60, 600)), minlength=4)
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def _ordered(counts: dict[str, int]) -> dict[str, int]:
    """Most frequent first."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
