"""What a run leaves out: files that cannot be decoded, and videos that are too short. Also warns of what is slow.

Each rank finds bad files on its own. Ranks exchange them every ``BATCHES_APART`` training batches, since an exchange at
every batch would be slow. Imports no Lightning: the caller shows the messages.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import distributed

from flexivid.data.clips.windows import span_of
from flexivid.data.index.build import BadVideo
from flexivid.data.splits import Splits, name_some, write_bad
from flexivid.runtime.distributed import gathered
from flexivid.runtime.printable import printable

BATCHES_APART = 50


def agree(failed: Iterable[BadVideo]) -> list[BadVideo]:
    """Return the files that fail on any rank, each once and in the same order on all.

    >>> agree([BadVideo("a.mp4", "no video stream")] * 2)
    [BadVideo(path='a.mp4', reason='no video stream')]
    """
    return list({bad.path: bad for bads in gathered(list(failed)) for bad in bads}.values())


class BadFiles:
    """Files of a collection that cannot be decoded, found before a run or during it, and a limit to their share.

    The share is that of all ranks. Those that one of them finds count when ranks exchange theirs, so that all stop
    together; without other ranks, the run stops at once. ``num_files`` are good and bad ones; ``folder`` is where
    ``bad_videos.jsonl`` is written.

    >>> bad = BadFiles("v", num_files=4, max_fraction=0.25)
    >>> bad.add(BadVideo("v/a.mp4", "no video stream"))
    >>> bad.message()
    'got 1 of 4 files in v that cannot be decoded and are skipped: v/a.mp4: no video stream'
    >>> bad.add(BadVideo("v/b.mp4", "no video stream"))
    Traceback (most recent call last):
    ...
    ValueError: got 2 of 4 files in v that cannot be decoded (v/a.mp4: no video stream; v/b.mp4: no video stream); \
expected a share of at most 0.25; repair or remove them, or raise data.max_bad_fraction (or --max-bad-fraction)
    """

    def __init__(self, root: str, *, num_files: int, max_fraction: float, folder: str | Path | None = None) -> None:
        self.root, self.num_files, self.max_fraction, self.folder = root, num_files, max_fraction, folder
        self.by_path: dict[str, BadVideo] = {}
        self._not_shared: dict[str, BadVideo] = {}
        self._num_batches, self._has_grown = 0, False

    def add(self, *bad: BadVideo, write: bool = True) -> None:
        """Count files, each once; ``write`` appends them to the list on disk. ``ValueError`` if they are too many."""
        new = [video for video in bad if video.path not in self.by_path]
        self.by_path |= {video.path: video for video in new}
        if new and write and self.folder is not None:
            write_bad(new, self.folder, append=True)
        if len(self.by_path) > self.max_fraction * self.num_files:
            raise ValueError(
                f"{self._share()} ({name_some(list(self.by_path.values()))}); expected a share of at most "
                f"{self.max_fraction}; repair or remove them, or raise data.max_bad_fraction (or --max-bad-fraction)"
            )

    def report(self, bad: BadVideo) -> bool:
        """Count a file that fails during the run, on this rank; return whether it is new.

        ``ValueError`` if there are too many now, and no other rank; with others, when ranks meet.
        """
        if bad.path in self.by_path or bad.path in self._not_shared:
            return False
        if not (distributed.is_available() and distributed.is_initialized()):
            self.add(bad)
            return True
        self._not_shared[bad.path] = bad
        if self.folder is not None:
            write_bad([bad], self.folder, append=True)  # at once: the run may end before ranks meet
        return True

    def count_batch(self) -> None:
        """Meet the other ranks every so many training batches."""
        self._num_batches += 1
        if self._num_batches % BATCHES_APART == 0:
            self.meet()

    def meet(self) -> None:
        """Exchange new files with the other ranks, all of which must call this; ``ValueError`` on all if too many."""
        shared, self._not_shared = agree(self._not_shared.values()), {}
        self._has_grown |= bool(shared)
        self.add(*shared, write=False)

    def end(self, *, is_first: bool) -> None:
        """Meet once more; the first rank rewrites the list if several ranks may have written to it."""
        self.meet()
        if self._has_grown and is_first and self.folder is not None:
            write_bad(list(self.by_path.values()), self.folder)

    def message(self) -> str:
        """Name the first of them."""
        listed = "" if self.folder is None else f", all listed in {self.folder}/bad_videos.jsonl"
        named = name_some([*self.by_path.values(), *self._not_shared.values()])
        return f"{self._share()} and are skipped{listed}: {named}"

    def _share(self) -> str:
        number = len(self.by_path.keys() | self._not_shared.keys())
        return f"got {number} of {self.num_files} files in {self.root} that cannot be decoded"


def remarks(splits: Splits, root: str, *, cache_gib: float | None, num_workers: int) -> Iterator[str]:
    """Yield a message on each other thing that is left out, changed or slow.

    ``cache_gib`` is the memory that decoded frames may take; None if that was left open.

    >>> from flexivid.data.clips.dataset import ClipDataset, ClipSettings
    >>> from flexivid.data.index.videos import Videos
    >>> splits = Splits(ClipDataset(Videos.of(["a.mp4"] * 9, num_frames=8), ClipSettings()), None, (), ())
    >>> print(*remarks(splits, "v", cache_gib=0, num_workers=0), sep=chr(10))
    got 9 videos that do not fit into data.cache_gib=0; they are decoded clip by clip, which is slow; raise \
data.cache_gib or data.num_workers
    got too little footage in v to hold any out; there is no validation
    """
    settings = splits.train.settings
    if splits.num_too_short:
        span = span_of(settings.num_frames, settings.stride)
        length = (
            f"the {span} frames" if settings.fps is None else f"the {settings.num_frames / settings.fps:.3g} seconds"
        )
        fate = {"skip": "skipped; set data.short=loop or data.short=pad to use them", "loop": "looped", "pad": "padded"}
        yield (
            f"got {splits.num_too_short} videos shorter than {length} of a clip, such as "
            f"{printable(splits.too_short[0])}; they are {fate[settings.short]}"
        )
    untimed = sum(int((dataset.videos.fps <= 0).sum()) for dataset in splits.datasets)
    if settings.fps is not None and untimed:
        yield (
            f"got {untimed} videos that do not say how fast they run, with data.fps={settings.fps}; "
            f"expected times in each file; all of their frames are taken, as if they ran at {settings.fps}"
        )
    num_cached = sum(0 if dataset.cache is None else len(dataset.cache.rows) for dataset in splits.datasets)
    outside = sum(int((dataset.counts > 0).sum()) for dataset in splits.datasets) - num_cached
    if outside > 0 and num_workers == 0:
        limit = "would take minutes to read into memory" if cache_gib is None else "do not fit"
        limit += f" into data.cache_gib={cache_gib}" * (cache_gib is not None)
        yield (
            f"got {outside} videos that {limit}; they are decoded clip by clip, which is slow; "
            f"raise data.cache_gib or data.num_workers"
        )
    if splits.val is None or len(splits.val) == 0:
        yield f"got too little footage in {root} to hold any out; there is no validation"
