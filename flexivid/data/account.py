"""An account of what a run leaves out: files that cannot be decoded, videos that are too short, what is slow.

Imports no Lightning; says what to say, and where it is written, not how it reaches the user.
"""

from collections.abc import Iterator
from pathlib import Path

from flexivid.data.clips import span_of
from flexivid.data.index import BadVideo
from flexivid.data.splits import Splits, name_some, write_bad


class BadFiles:
    """Files of a collection that cannot be decoded, found before a run or during it, and a limit to their share.

    Args:
        root: The collection.
        num_files: Files in it, good and bad ones.
        max_fraction: Largest share that may be bad.
        folder: Where ``bad_videos.jsonl`` is written; None: nowhere.

    >>> bad = BadFiles("v", num_files=4, max_fraction=0.25)
    >>> bad.add(BadVideo("v/a.mp4", "no video stream"))
    >>> bad.message()
    'got 1 of 4 files in v that cannot be decoded and are skipped: v/a.mp4: no video stream'
    >>> bad.add(BadVideo("v/b.mp4", "no video stream"))
    Traceback (most recent call last):
    ...
    ValueError: got 2 of 4 files in v that cannot be decoded (v/a.mp4: no video stream; v/b.mp4: no video stream); \
expected a share of at most 0.25; repair or remove them, or raise data.max_bad_fraction
    """

    def __init__(self, root: str, *, num_files: int, max_fraction: float, folder: str | Path | None = None) -> None:
        self.root, self.num_files, self.max_fraction, self.folder = root, num_files, max_fraction, folder
        self.found: dict[str, BadVideo] = {}

    def add(self, *bad: BadVideo, write: bool = True) -> None:
        """Take note of files; each counts once.

        Args:
            bad: The files.
            write: Whether to append them to the list on disk.

        Raises:
            ValueError: If they are now too many.
        """
        new = [video for video in bad if video.path not in self.found]
        self.found |= {video.path: video for video in new}
        if new and write and self.folder is not None:
            write_bad(new, self.folder, append=True)
        if len(self.found) > self.max_fraction * self.num_files:
            raise ValueError(
                f"{self._share()} ({name_some(list(self.found.values()))}); expected a share of at most "
                f"{self.max_fraction}; repair or remove them, or raise data.max_bad_fraction"
            )

    def message(self) -> str:
        """Name the first of them."""
        listed = "" if self.folder is None else f", all listed in {self.folder}/bad_videos.jsonl"
        return f"{self._share()} and are skipped{listed}: {name_some(list(self.found.values()))}"

    def _share(self) -> str:
        return f"got {len(self.found)} of {self.num_files} files in {self.root} that cannot be decoded"


def remarks(splits: Splits, root: str, *, cache_gib: float, num_workers: int) -> Iterator[str]:
    """Say what else is left out, changed or slow, one message at a time.

    Args:
        splits: The clips.
        root: The collection.
        cache_gib: Memory that decoded frames may take.
        num_workers: Processes that decode clips.
    """
    settings = splits.train.settings
    if splits.num_too_short:
        span = span_of(settings.num_frames, settings.stride)
        length = (
            f"the {span} frames" if settings.fps is None else f"the {settings.num_frames / settings.fps:.3g} seconds"
        )
        fate = {"skip": "skipped; set data.short=loop or data.short=pad to use them", "loop": "looped", "pad": "padded"}
        yield (
            f"got {splits.num_too_short} videos shorter than {length} of a clip, such as {splits.too_short[0]}; "
            f"they are {fate[settings.short]}"
        )
    untimed = sum(int((dataset.videos.fps <= 0).sum()) for dataset in splits.datasets)
    if settings.fps is not None and untimed:
        yield (
            f"got {untimed} videos that do not say how fast they run, with data.fps={settings.fps}; "
            f"expected times in each file; all of their frames are taken, as if they ran at {settings.fps}"
        )
    kept = sum(0 if dataset.cache is None else len(dataset.cache.rows) for dataset in splits.datasets)
    outside = sum(int((dataset.counts > 0).sum()) for dataset in splits.datasets) - kept
    if outside > 0 and num_workers == 0:
        yield (
            f"got {outside} videos that do not fit into data.cache_gib={cache_gib}; they are decoded clip by clip, "
            f"which is slow; raise data.cache_gib or data.num_workers"
        )
    if splits.val is None or len(splits.val) == 0:
        yield f"got too little footage in {root} to hold any out; there is no validation"
