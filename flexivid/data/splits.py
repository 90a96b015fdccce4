"""From a folder to clips to train on and clips to validate on, and an account of what is left out.

Imports no Lightning: the data module and the programs that look at data sets share this.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flexivid.data.clips import span_of
from flexivid.data.dataset import ClipDataset, ClipSettings
from flexivid.data.footage import BadVideo, Footage, Video, hold_out, prepare
from flexivid.data.manifest import find_splits, scan

NUM_NAMED = 10  # files that a message names; a list on disk has them all


class Splits(NamedTuple):
    """Clips to train on and to validate on.

    Args:
        train: Random windows.
        val: Fixed windows of other videos; None where the folder has too little footage for both.
        class_names: The classes, empty if there are none.
        bad: Files that cannot be decoded.

    >>> Splits._fields
    ('train', 'val', 'class_names', 'bad')
    """

    train: ClipDataset
    val: ClipDataset | None
    class_names: tuple[str, ...]
    bad: tuple[BadVideo, ...]

    @property
    def videos(self) -> list[Video]:
        """All videos that have clips; a single one that was cut in two appears twice."""
        return self.train.videos + ([] if self.val is None else self.val.videos)

    @property
    def too_short(self) -> tuple[Path, ...]:
        """Videos that are shorter than a clip."""
        return tuple(video.path for video in self.train.too_short + ([] if self.val is None else self.val.too_short))

    @property
    def fps(self) -> float:
        """Median frames a second of the training clips, 0 where unknown."""
        return float(np.median([video.fps for video in self.train.videos])) / self.train.settings.stride


def load_splits(root: str, settings: ClipSettings, *, max_bytes: int, progress: bool = True) -> Splits:
    """Find and decode the videos of a folder.

    Args:
        root: The folder, with or without ``train`` and held-out folders (see ``manifest.find_splits``). Without
            held-out videos, some of the training ones are held out (see ``footage.hold_out``).
        settings: How clips are cut out of them.
        max_bytes: Memory for decoded frames.
        progress: Whether to show a progress bar.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is nothing to train on.

    >>> load_splits("nowhere", ClipSettings(), max_bytes=0)
    Traceback (most recent call last):
    ...
    FileNotFoundError: got nowhere, which does not exist; expected a folder of videos; correct the path
    """
    train_folder, held_out_folder = find_splits(root)
    manifest = scan(train_folder)
    footage = prepare(manifest.items, size=settings.size, max_bytes=max_bytes, progress=progress)
    whole = ClipDataset(footage.videos, settings)
    if len(whole) == 0:
        raise ValueError(explain_nothing(train_folder, footage, settings))
    fixed = settings._replace(fixed=True)
    if held_out_folder is not None:
        items = scan(held_out_folder, class_names=manifest.class_names).items
        room = max_bytes - footage.num_bytes
        held_out = prepare(items, size=settings.size, max_bytes=room, progress=progress)
        return Splits(whole, ClipDataset(held_out.videos, fixed), manifest.class_names, footage.bad + held_out.bad)
    train, val = hold_out(whole.videos, min_frames=span_of(settings.num_frames, stride=settings.stride))
    dataset = ClipDataset(train, settings)
    dataset.too_short += whole.too_short
    return Splits(dataset, ClipDataset(val, fixed) if val else None, manifest.class_names, footage.bad)


def explain_nothing(folder: Path, footage: Footage, settings: ClipSettings) -> str:
    """Say why a folder with videos gives no clip.

    >>> bad = Footage(videos=(), bad=(BadVideo("v/a.mp4", "no video stream"),))
    >>> explain_nothing(Path("v"), bad, ClipSettings())[:69]
    'got 0 clips from v: all 1 videos fail to decode (v/a.mp4: no video st'
    """
    bad = f"{len(footage.bad)} videos fail to decode ({name_some(footage.bad)})"
    if not footage.videos:
        return f"got 0 clips from {folder}: all {bad}; expected videos; convert them, or correct data.root"
    longest = max(footage.videos, key=lambda video: video.num_frames)
    span = span_of(settings.num_frames, stride=settings.stride)
    short = f"all {len(footage.videos)} videos{' that decode' if footage.bad else ''} are too short"
    return (
        f"got 0 clips from {folder}: {short}, the longest, {longest.path}, has {longest.num_frames} frames"
        f"{f', and {bad}' if footage.bad else ''}; expected at least {span} frames for data.num_frames="
        f"{settings.num_frames} and data.stride={settings.stride}; lower one of these, or set data.short=loop"
    )


def name_some(bad: Sequence[BadVideo]) -> str:
    """Name the first few bad files, with reasons.

    >>> name_some([BadVideo("a.mp4", "no video stream")] * 12)[-36:]
    'a.mp4: no video stream; and 2 others'
    """
    named = [f"{path}: {reason}" for path, reason in bad[:NUM_NAMED]]
    return "; ".join(named + [f"and {len(bad) - NUM_NAMED} others"] * (len(bad) > NUM_NAMED))


def write_bad(bad: Sequence[BadVideo], folder: str | Path) -> Path:
    r"""Write ``bad_videos.jsonl``, one file a line with ``path`` and ``reason``, and return where it is.

    >>> import tempfile
    >>> write_bad([BadVideo("a.mp4", "no video stream")], tempfile.mkdtemp()).read_text()
    '{"path": "a.mp4", "reason": "no video stream"}\n'
    """
    path = Path(folder) / "bad_videos.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(video._asdict()) + "\n" for video in bad))
    return path
