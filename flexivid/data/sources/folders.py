"""Find the videos below a folder, local or remote, by their names.

A video is a file with one of ``EXTENSIONS``, in any letter case, or a folder of numbered pictures ("frames/0001.png").
Pictures beside video files are assumed to be previews and ignored, unless each is to be a video of one frame. Hidden
files and folders are skipped; other unused files are counted (see ``leftovers``). Order: the files of a folder by
name, then its sub-folders by name. Standard library and Arrow.
"""

import os
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

from flexivid.data.lists.text_columns import TextColumns
from flexivid.data.sources.leftovers import Leftovers
from flexivid.data.sources.listing import Folder, Listing
from flexivid.data.storage.video_names import EXTENSIONS, PICTURES
from flexivid.runtime.paths import is_remote

TEXTS = ("txt", "caption")  # beside a video; of several, the first is used
_VIDEO = re.compile(rf".+\.({'|'.join(EXTENSIONS)})", re.IGNORECASE | re.DOTALL)
_STILL = re.compile(rf".+\.({'|'.join(PICTURES)})", re.IGNORECASE | re.DOTALL)
_PICTURE = re.compile(rf".*\d\.({'|'.join(PICTURES)})", re.IGNORECASE | re.DOTALL)
_METADATA = re.compile(r"metadata\.(csv|tsv|jsonl|ndjson|parquet)", re.IGNORECASE)


class Found(NamedTuple):
    """The contents of a folder and its sub-folders."""

    paths: pa.ChunkedArray  # the videos, (n,) strings
    texts: pa.ChunkedArray  # name of the caption file of each, (n,) strings for ``text_beside``; empty: none
    parents: set[str]  # the folders that hold them
    metadata: tuple[str, ...]  # lists called ``metadata.csv`` and the like, about the videos in their folders
    leftovers: Leftovers


def is_video(name: str, *, pictures: bool = False) -> bool:
    """Return whether a file is a video, by its name; with ``pictures``, each picture is one of one frame.

    >>> is_video("00001.MTS"), is_video("mp4"), is_video("cat.png"), is_video("cat.png", pictures=True)
    (True, False, False, True)
    """
    return _VIDEO.fullmatch(name) is not None or (pictures and is_still(name))


def is_still(name: str) -> bool:
    """Return whether a file is a picture, numbered or not, by its name.

    >>> is_still("cover.PNG"), is_still("cover.mp4")
    (True, False)
    """
    return _STILL.fullmatch(name) is not None


def is_picture(name: str) -> bool:
    """Return whether a file is a numbered picture, by its name.

    >>> is_picture("0001.PNG"), is_picture("cover.png")
    (True, False)
    """
    return _PICTURE.fullmatch(name) is not None


def is_metadata(name: str) -> bool:
    """Return whether a file is a list that says more about the videos in its folder, by its name.

    >>> is_metadata("metadata.csv"), is_metadata("captions.csv")
    (True, False)
    """
    return _METADATA.fullmatch(name) is not None


def find_videos(root: str, listing: Listing | None = None) -> Found:
    """List the videos below a folder, unless ``listing`` has them already; links are followed, each folder once.

    >>> import tempfile
    >>> root = tempfile.mkdtemp()
    >>> for name in ("b.MP4", "b.TXT", ".c.mp4", "notes.md"):
    ...     open(os.path.join(root, name), "w").close()
    >>> found = find_videos(root)
    >>> [os.path.basename(path.as_py()) for path in found.paths], found.texts.to_pylist()
    (['b.MP4'], ['.TXT'])
    >>> found.leftovers.described()
    '1 .txt, 1 .md'
    """
    listing = Listing() if listing is None else listing
    if root not in listing.videos:
        finder = _Finder(root, pictures=listing.pictures)
        for folder in listing.walk(root, finder.leftovers):
            finder.add(folder)
        listing.videos[root] = finder.found()
    return listing.videos[root]


class _Finder:
    """Collects the videos of one folder after the other."""

    def __init__(self, root: str, *, pictures: bool) -> None:
        self.leftovers = Leftovers()
        self._videos, self._parents, self._metadata = TextColumns("path", "text"), set[str](), list[str]()
        self._reels: list[str] = []
        self._reel_texts: dict[str, str] = {}  # of all folders that have a text beside them
        self._pictures = pictures
        self._takes_reels = not pictures and not is_remote(root)

    def add(self, listed: Folder) -> None:
        folder, folders, names, _ = listed
        videos = [name for name in names if is_video(name, pictures=self._pictures)]
        others = sorted({*names} - {*videos})
        texts = _texts(others)
        captions = [_text_of(name.rsplit(".", 1)[0], texts) or _text_of(name, texts) for name in videos]
        of_folders = {f"{folder}/{name}": text for name in folders if (text := _text_of(name, texts))}
        self._reel_texts |= of_folders
        if videos:
            endings = [_shortened(text, name.rsplit(".", 1)[0]) for text, name in zip(captions, videos, strict=True)]
            self._videos.add({"path": [f"{folder}/{name}" for name in videos], "text": endings})
            self._parents.add(folder)
        elif self._takes_reels and sum(map(is_picture, names)) > 1:
            self._reels.append(folder)
            others = [name for name in others if not is_picture(name)]
        used = {*captions, *of_folders.values()}
        for name in others:
            if is_metadata(name):
                self._metadata.append(f"{folder}/{name}")
            else:
                self.leftovers.add_file(folder, name, is_caption=name in used)

    def found(self) -> Found:
        if self._parents:
            for folder in self._reels:
                self.leftovers.add("pictures", folder)
        else:
            texts = (_shortened(self._reel_texts.get(reel, ""), os.path.basename(reel)) for reel in self._reels)
            self._videos.add({"path": self._reels, "text": texts})
            self._parents = {os.path.dirname(reel) for reel in self._reels}
        paths, texts = self._videos.arrays().values()
        return Found(paths, texts, self._parents, tuple(self._metadata), self.leftovers)


def _texts(names: Iterable[str]) -> dict[str, str]:
    """Return the text files by their stems; of several with one stem, lower-case endings win."""
    endings = {name: name.rpartition(".")[2] for name in names}
    texts = [name for name, ending in endings.items() if ending.lower() in TEXTS]
    texts.sort(key=lambda name: (TEXTS.index(endings[name].lower()), endings[name] != endings[name].lower()))
    return {_form(name.rpartition(".")[0]): name for name in reversed(texts)}


def _text_of(stem: str, texts: dict[str, str]) -> str:
    return texts.get(_form(stem), "") if texts else ""


def _shortened(text: str, stem: str) -> str:
    """Shorten the name of a text file to its ending if it has the stem of its video, so that most are equal."""
    return text.removeprefix(stem) if text.startswith(f"{stem}.") else text


def _form(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)
