"""Decide whether the folders of a collection are its parts, its classes, or neither, by their names or by a setting.

``auto`` first looks for parts: a training and a held-out folder under any of their usual names (see ``split_of``).
Otherwise, folders that all hold videos are classes. Ambiguous names are refused with both readings. Videos beside the
parts are counted and reported. Standard library and fsspec.
"""

import os
from typing import Literal, NamedTuple

from flexivid.data.lists.classes import SPLITS, resembles_split, split_of
from flexivid.data.sources.folders import find_videos, is_metadata, is_video
from flexivid.data.sources.listing import Listing
from flexivid.data.sources.shards import is_shards, shard_rows
from flexivid.runtime.paths import resolve

Layout = Literal["auto", "splits", "classes", "flat"]
LAYOUTS = ("auto", "splits", "classes", "flat")
SETTING = "data.layout (or --layout)"
MAX_NAMED = 5


class Collection(NamedTuple):
    """The location of videos, and how its folders are interpreted."""

    root: str  # a folder, a list of videos, shards, or a url of these
    # what folders of ``root`` are: parts, as train and val ("splits"), "classes" whatever their names, nothing
    # ("flat"), or what their names say ("auto")
    layout: Layout = "auto"
    pictures: bool = False  # whether a picture is a video of one frame; else folders of numbered pictures are videos

    def __str__(self) -> str:
        return self.root


class Parts(NamedTuple):
    """The training and the validation folder of a collection, and notes on ignored videos."""

    train: str
    held_out: str | None
    notes: tuple[str, ...] = ()  # a sentence on each group of ignored videos
    metadata: tuple[str, ...] = ()  # lists in the root folder that describe videos of the parts


def collection_of(root: "str | os.PathLike[str] | Collection") -> Collection:
    """Return a collection whose root is resolved (see ``runtime.paths``); ``ValueError`` if there is no such layout.

    >>> collection_of("videos/")
    Collection(root='videos', layout='auto', pictures=False)
    """
    collection = root if isinstance(root, Collection) else Collection(os.fspath(root))
    if collection.layout not in LAYOUTS:
        raise ValueError(f"got data.layout={collection.layout}; expected one of {', '.join(LAYOUTS)}; change it")
    return collection._replace(root=resolve(collection.root))


def find_parts(folder: str, layout: Layout = "auto", listing: Listing | None = None) -> Parts:
    """Find the folders of a collection, whose root is resolved, that are its parts.

    ``ValueError`` if the names of the folders can be read in two ways, or if there is nothing to train on.

    >>> import tempfile
    >>> root = tempfile.mkdtemp()
    >>> for name in ("Training", "DEV"):
    ...     os.mkdir(f"{root}/{name}")
    >>> [part.removeprefix(root) for part in find_parts(root)[:2]]
    ['/Training', '/DEV']
    """
    if layout in ("classes", "flat"):
        return Parts(folder, None)
    listing = Listing() if listing is None else listing
    folders, num_loose, metadata = _contents(folder, listing)
    means = split_of if layout == "auto" else resembles_split
    parts: dict[str, list[str]] = {}
    for name in folders:
        parts.setdefault(means(name) or "", []).append(name)
    names_beside = parts.pop("", [])
    if not parts:
        _refuse_resemblance(folder, folders, layout)
        return Parts(folder, None)
    chosen = {part: _one_folder(folder, part, names, listing) for part, names in parts.items()}
    held_out = next((chosen[part] for part in SPLITS if part in chosen), None)
    if "train" not in chosen:
        raise ValueError(
            f"got {folder}/{held_out} but no {folder}/train; expected both or neither; move the training videos into "
            f"{folder}/train, name {folder}/{held_out} itself to read nothing else, or set {SETTING} to classes or flat"
        )
    beside = {name: count for name in names_beside if (count := _count(folder, name, listing))}
    listed = _listed(beside, num_loose)
    if held_out is None and layout == "auto" and listed:
        raise ValueError(_ambiguity(folder, chosen["train"], list(beside), listed))
    notes = [
        f"got {name}/ beside {held_out}/ in {folder}, with {_count(folder, name, listing)} videos, which are left out: "
        f"one part is held out; name {folder}/{name} itself to read it"
        for part, name in chosen.items()
        if part != "train" and name != held_out
    ]
    if listed:
        notes.append(
            f"got {listed} beside the parts of {folder}, which are left out; move them into a part, or set {SETTING} to"
            " classes or flat"
        )
    held_out_folder = None if held_out is None else f"{folder}/{held_out}"
    return Parts(f"{folder}/{chosen['train']}", held_out_folder, tuple(notes), metadata)


def _ambiguity(folder: str, train: str, beside: list[str], listed: str) -> str:
    """Explain the two readings of a training folder beside other folders and videos."""
    names = ", ".join(sorted([train, *beside], key=str.lower)[:MAX_NAMED])
    reading = f"classes ({names}: all are trained on)" if beside else "videos at any depth (all are trained on)"
    return (
        f"got {train}/ in {folder} beside {listed}; expected one of two readings: parts of a data set ({train}/ alone"
        f" is trained on, the rest is left out) or {reading}; set {SETTING} to splits for the first,"
        f" {'classes, or flat,' if beside else 'flat'} for the second"
    )


def _listed(counts: dict[str, int], num_loose: int) -> str:
    """Name folders with the number of their videos, and the number of videos in no folder; empty if there are none."""
    named = [f"{name}/ ({count} videos)" for name, count in list(counts.items())[:MAX_NAMED]]
    named += [f"{len(counts) - MAX_NAMED} other folders"] * (len(counts) > MAX_NAMED)
    return ", ".join(named + [f"{num_loose} videos in no folder"] * bool(num_loose))


def refuse_deep_parts(folder: str, parents: set[str]) -> None:
    """Refuse a training and a held-out folder in a sub-folder, which would be mixed silently.

    ``parents`` are the folders below the root that hold videos.

    >>> refuse_deep_parts("v", {"v/sky/train", "v/sea/test"})
    >>> refuse_deep_parts("v", {"v/sky/train", "v/sky/test"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: got test, train in v/sky; expected parts of a data set in v itself; name v/sky, or set data.layout ...
    """
    parts: dict[str, dict[str, str]] = {}
    for parent in parents:
        names = parent.removeprefix(folder).strip("/").split("/")
        for depth, name in enumerate(names[1:], 1):
            if (part := split_of(name)) is not None:
                parts.setdefault("/".join(names[:depth]), {})[part] = name
    home = min((home for home, names in parts.items() if "train" in names and len(names) > 1), default=None)
    if home is not None:
        raise ValueError(
            f"got {', '.join(sorted(parts[home].values()))} in {folder}/{home}; expected parts of a data set in "
            f"{folder} itself; name {folder}/{home}, or set {SETTING} to classes, for the folders of {folder}, or to "
            f"flat, to train on all of it"
        )


def _contents(folder: str, listing: Listing) -> tuple[list[str], int, tuple[str, ...]]:
    """Return the sub-folders of a folder, sorted, how many videos and tars lie in it itself, and its metadata."""
    try:
        _, folders, files, _ = listing.folder(folder)
    except (OSError, KeyError):
        return [], 0, ()  # listing the videos will raise the right error
    metadata = tuple(f"{folder}/{name}" for name in files if is_metadata(name))
    videos = (is_video(name, pictures=listing.pictures) or name.lower().endswith(".tar") for name in files)
    return folders, sum(videos), metadata


def _count(folder: str, name: str, listing: Listing) -> int:
    """Return how many videos lie in a sub-folder, which may be shards."""
    path = f"{folder}/{name}"
    if is_shards(path, listing):
        return sum(1 for _ in shard_rows(path, listing=listing))
    return len(find_videos(path, listing).paths)


def _one_folder(folder: str, part: str, names: list[str], listing: Listing) -> str:
    """Return the folder of a part; of several, empty ones are ignored."""
    full = names if len(names) == 1 else [name for name in names if _count(folder, name, listing)]
    if len(full) > 1:
        raise ValueError(
            f"got {' and '.join(full)} in {folder}, which all mean {part}; expected one folder for each part; merge or "
            f"rename them, or set {SETTING} to classes or flat"
        )
    return (full or names)[0]


def _refuse_resemblance(folder: str, names: list[str], layout: Layout) -> None:
    """Refuse folders whose names only resemble parts, and ``splits`` where there are none."""
    if layout == "splits":
        raise ValueError(
            f"got {SETTING}=splits for {folder} with the folders {', '.join(names[:MAX_NAMED]) or '(none)'}; expected "
            f"train, and held_out, val or test; rename them, or leave the setting out"
        )
    parts = {part: name for name in names if (part := resembles_split(name)) is not None}
    if "train" in parts and len(parts) > 1:
        raise ValueError(
            f"got the folders {', '.join(sorted(parts.values()))} in {folder}; expected one of two readings: "
            f"parts of a data set, or classes (all are trained on); set {SETTING} to splits for the first, to classes "
            f"for the second"
        )
