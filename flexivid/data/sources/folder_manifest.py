"""List the videos below one folder, which is a part of a collection or a collection without parts.

Classes and captions: see ``manifest``. Lists in the folder above may describe these videos, too.
"""

import os
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from flexivid.data.lists.classes import class_folders, class_numbers, classes_of_folders, number_column, number_folders
from flexivid.data.sources.folders import Found, find_videos
from flexivid.data.sources.layout import SETTING, Layout, refuse_deep_parts
from flexivid.data.sources.leftovers import Leftovers
from flexivid.data.sources.listing import Listing
from flexivid.data.sources.manifest_rows import Manifest, rows_of
from flexivid.data.sources.metadata import look_up, read_metadata
from flexivid.data.sources.shards import class_names as shard_classes
from flexivid.data.sources.shards import is_shards, shard_rows
from flexivid.data.sources.tars import is_tar
from flexivid.data.storage.byte_range import remote
from flexivid.data.storage.video_names import EXTENSIONS
from flexivid.runtime.paths import is_remote


def read_folder(
    folder: str,
    *,
    class_names: Sequence[str] | None = None,
    layout: Layout = "auto",
    above: tuple[str, ...] = (),
    is_root: bool = False,
    listing: Listing | None = None,
) -> tuple[Manifest, pa.ChunkedArray | None]:
    """List a folder or shards; also return the part of each video, if a list beside the videos states it.

    ``class_names`` are those of the training part; ``above`` are lists in the folder above, which may name videos of
    this one; ``is_root`` says whether it is the complete collection. ``FileNotFoundError`` if there is no such folder;
    ``ValueError`` if it is a file or holds no video, or if it can be read in two ways.
    """
    listing = Listing() if listing is None else listing
    if is_shards(folder, listing) and not _refuse_mixed(folder, layout, listing):
        leftovers = Leftovers()
        rows = ((row.path, row.label, row.caption) for row in shard_rows(folder, leftovers, listing))
        table = Manifest.of(rows).table
        if len(table) == 0:
            raise ValueError(f"got {folder}, shards without any video; expected some; look into the files")
        names = shard_classes(folder) or class_numbers(pc.max(table["label"]).as_py())
        return Manifest(table, names, folder, leftovers.notes(folder)), None
    folder, videos = _find(folder, listing)
    if is_root and layout == "auto":
        refuse_deep_parts(folder, videos.parents)
    files = (*above, *videos.metadata)
    metadata = look_up(videos.paths, read_metadata(files), files, below=folder)
    notes = videos.leftovers.notes(folder) + metadata.notes
    if metadata.labels is not None and layout != "classes":
        labels, names = number_column(metadata.labels, class_names, metadata.source, paths=videos.paths)
    else:
        names, more = _class_names(folder, videos, layout) if class_names is None else (tuple(class_names), ())
        labels, notes = number_folders(videos.paths, folder, names), notes + more
    table = rows_of(videos.paths, labels, names, caption=metadata.captions, text=videos.texts)
    name = f"{folder}#pictures" if listing.pictures else folder  # it has an index of its own
    return Manifest(table, names, name, notes), metadata.splits


def _find(folder: str, listing: Listing) -> tuple[str, Found]:
    """List a folder; raise an error that explains why if it has no videos."""
    if is_remote(folder):
        system, path = remote(folder)
        exists, is_folder = system.exists(path), system.isdir(path)
    else:
        exists, is_folder = os.path.exists(folder), os.path.isdir(folder)
    if not exists:
        raise FileNotFoundError(f"got {folder}, which does not exist; expected a folder of videos; correct the path")
    if not is_folder:
        raise ValueError(
            f"got {folder}, a file; expected a folder of videos; name the folder that holds it, or unpack an archive"
        )
    folder = system.unstrip_protocol(path).rstrip("/") if is_remote(folder) else folder
    videos = find_videos(folder, listing)
    if len(videos.paths) == 0:
        listed = f"; there are {videos.leftovers.described()}" if videos.leftovers.num_files else ""
        notes = videos.leftovers.notes(folder, without=frozenset(("text",)))
        raise ValueError(
            f"got {folder}, which holds {videos.leftovers.num_files} other files and no video; expected files "
            f"ending in {', '.join(EXTENSIONS)}, at any depth, or folders of numbered pictures; correct the path, "
            f"convert the files, or name a list of videos that are elsewhere" + "; ".join((listed, *notes))
        )
    return folder, videos


def _refuse_mixed(folder: str, layout: Layout, listing: Listing) -> bool:
    """Return whether to ignore shards in favour of the videos beside them; refuse if that is ambiguous."""
    if is_tar(folder) or not (beside := len(find_videos(folder, listing).paths)):
        return False
    if layout == "auto":
        raise ValueError(
            f"got {folder}, which holds shards, and {beside} videos in files beside them; expected one of two "
            f"readings; name {folder}/*.tar for tars, or set {SETTING} to classes or flat for the files"
        )
    return True


def _class_names(folder: str, videos: Found, layout: Layout) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes, and a note if the folders would be classes but for a few files."""
    if layout == "flat":
        return (), ()
    names = class_folders(folder, videos.parents, any_depth=layout == "classes")
    tops = class_folders(folder, videos.parents - {folder}, any_depth=True)
    nearly = any(parent.rpartition("/")[0] == folder for parent in videos.parents) and len(tops) > 1
    if names or layout == "classes" or not nearly:
        return classes_of_folders(names), ()
    odd = min(p for p in videos.parents if p.rpartition("/")[0] != folder)
    return (), (
        f"got folders that are not taken for classes ({', '.join(tops[:5])} in {folder}), since there are videos in "
        f"{odd} itself; set {SETTING} to classes, for the folders of {folder}, or to flat, for none",
    )
