"""Report on a collection: on its training part, and on its held-out part if there is one.

Shares the index of training, so that no file is probed twice. Imports no Lightning.
"""

from collections.abc import Sequence

from flexivid.data.clips.buckets import Bucket
from flexivid.data.clips.dataset import ClipDataset
from flexivid.data.clips.windows import ClipSettings
from flexivid.data.decoding.backends import Choice
from flexivid.data.index.build import VideoIndex
from flexivid.data.inspection.duplicates import find_duplicates
from flexivid.data.inspection.report import Fault, Report, decode_whole, repeats, survey, too_short
from flexivid.data.sources.layout import Collection
from flexivid.data.splits import index_collection
from flexivid.data.workers.pool import DecodePool, num_cores
from flexivid.runtime.console import OnStep


def find_parts(
    root: str | Collection, *, num_workers: int | None = None, decoder: Choice = "auto", square_pixels: bool = True
) -> dict[str, VideoIndex]:
    """Index the parts of a collection: ``train``, and ``held out`` if there are held-out videos.

    New files are probed in separate processes, by default one a core, which a bad file cannot harm. ``ValueError`` if
    there is no video.
    """
    with DecodePool(num_workers or num_cores()) as pool:
        train, held_out = index_collection(root, pool=pool, decoder=decoder, square_pixels=square_pixels)
    return {"train": train} if held_out is None else {"train": train, "held out": held_out}


def inspect(
    parts: dict[str, VideoIndex],
    settings: ClipSettings,
    *,
    buckets: Sequence[Bucket] = (),
    full_workers: int = 0,
    on_step: OnStep = lambda what, done, total: None,
) -> dict[str, Report]:
    """Return a report on each part; a file that repeats one of another part is a fault of the later part.

    ``full_workers`` processes decode every frame; 0 checks only what the index says.
    """
    faults = {name: [Fault(path, "bad", reason) for path, reason in part.bad] for name, part in parts.items()}
    counts = {}
    for name, index in parts.items():
        dataset = ClipDataset(index.videos, settings, buckets=buckets)
        counts[name] = dataset.counts
        if settings.short == "skip":
            faults[name] += too_short(index.videos, dataset.too_short, settings)
        if full_workers:
            total = int(index.videos.num_frames.sum(dtype="int64"))

            def step(done: int, name: str = name, total: int = total) -> None:
                on_step(f"decoding every frame ({name})", done, total)

            faults[name] += decode_whole(index.videos, num_workers=full_workers, on_frames=step)
    # the last part that has each file
    homes = {index.videos.path(row): name for name, index in parts.items() for row in range(len(index.videos))}
    for fault in repeats(find_duplicates(homes, on_read=lambda path: on_step("comparing files of one size", 1, 0))):
        faults[homes[fault.path]].append(fault)
    reports = {}
    for name, index in parts.items():
        report = survey(index.videos, counts[name], faults=faults[name], class_names=index.class_names)
        reports[name] = report._replace(notes=index.notes)
    return reports
