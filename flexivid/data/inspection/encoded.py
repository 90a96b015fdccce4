"""An encoded folder looked at: what it holds, whether its files are complete, and some of its clips, decoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flexivid.data.encoded.clips import EncodedSet
from flexivid.data.encoded.decode import decoded
from flexivid.data.encoded.folder import HELD_OUT, TRAIN
from flexivid.data.encoded.work import check_shards
from flexivid.data.inspection.preview import Clip
from flexivid.runtime.printable import printable


def report(encoded: EncodedSet) -> tuple[list[str], bool]:
    """Lines that say what there is, and whether nothing is damaged or missing."""
    damaged = check_shards(Path(encoded.folder), encoded.encoded)
    lines = [f"{encoded.folder} is encoded: {encoded.encoded}", f"source: {encoded.encoded.source}"]
    lines += [printable(f"bad: {path}: {reason}") for path, reason in encoded.end.bad.items()]
    lines += [f"{encoded.num_missing} clips are missing"] * bool(encoded.num_missing)
    lines += [f"damaged: {name}; remove it and finished.json, and encode again" for name in damaged]
    return lines, not damaged and not encoded.end.bad


def look_decoded(encoded: EncodedSet, split: str, count: int) -> Iterator[Clip]:
    """Yield at most ``count`` clips of a part, spread evenly over it, decoded by the codec that made them.

    ``ValueError`` if there is no such part, or the codec cannot be loaded.
    """
    clips = encoded.part(TRAIN if split == "train" else HELD_OUT)
    if clips is None:
        raise ValueError(f"got --split {split} of {encoded.folder}, which has none; expected train; change it")
    names, count = encoded.encoded.class_names, min(count, len(clips))
    for number, frames in decoded(clips, [i * len(clips) // count for i in range(count)]):
        label = clips.label(number)
        title = f"{encoded.folder}/clip {number}"
        words = {"class_name": names[label] if label >= 0 else "", "caption": clips.caption(number), "note": "decoded"}
        yield Clip(frames, title, None, encoded.encoded.fps, range(len(frames)), **words)
