"""List webdataset tars as byte ranges; members that share a name up to the first dot are one sample.

A tar holds its files uncompressed, so their offsets give random access. Only headers and texts are read. Hidden members
(``._1.mp4``, which macOS writes) are skipped. Standard library, and fsspec for remote tars.
"""

import glob
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from flexivid.data.lists.cells import captions_of, class_number, word_of
from flexivid.data.lists.text import decode
from flexivid.data.sources.folders import TEXTS
from flexivid.data.sources.leftovers import Leftovers
from flexivid.data.sources.listing import Listing
from flexivid.data.storage.byte_range import ByteRange, ShardRow, open_binary, remote
from flexivid.data.storage.video_names import EXTENSIONS
from flexivid.runtime.paths import is_hidden, is_remote, resolve

CAPTION_FIELDS = ("text", "caption", "cap", "prompt")
LABEL_FIELDS = ("label", "class", "cls")
WORDS = (*TEXTS, "cls", "json")  # members that say something of a video
MAX_TEXT = 1 << 20  # bytes of a caption, label or JSON


def is_tar(url: str) -> bool:
    """Return whether a path names a tar or a pattern of tars, and is no folder.

    >>> is_tar("films.tar"), is_tar("films/*.tar"), is_tar("films.tar.gz"), is_tar("films")
    (True, True, False, False)
    """
    return url.lower().endswith(".tar") and not os.path.isdir(url)


def tars_in(url: str, listing: Listing | None = None) -> list[str]:
    """Return the tars that a folder, a tar, or a pattern (``*``, ``?``, ``{0000..0099}``) stands for, sorted.

    ``ValueError`` if a pattern fits no file.

    >>> tars_in("films-{08..10}.tar")
    ['films-08.tar', 'films-09.tar', 'films-10.tar']
    """
    url = resolve(url)
    if not is_tar(url):
        try:
            names = (listing or Listing()).folder(url).files
        except (OSError, KeyError):
            return []
        return [f"{url}/{name}" for name in names if name.lower().endswith(".tar")]
    literal = _literal(url)
    pattern = url[len(literal) :]
    braces = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if braces:
        first, last = braces.groups()
        before, after = literal + pattern[: braces.start()], pattern[braces.end() :]
        numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        return [tar for number in numbers for tar in tars_in(before + number + after)]
    if not re.search(r"[*?\[]", pattern):
        return [url]
    paths = _glob(url, literal)
    if not paths:
        raise ValueError(f"got {url}, which fits no file; expected a pattern of tars; correct it")
    return paths


def tar_rows(tar: str, leftovers: Leftovers | None = None) -> Iterator[ShardRow]:
    """List the videos of one tar, a file or url; hidden files and samples without a video are skipped.

    ``leftovers`` counts skipped samples, texts that do not follow their video, and further videos of a sample.
    ``FileNotFoundError`` if there is no such tar; ``ValueError`` if the tar is damaged or compressed, a text in it
    cannot be decoded, or a label is no number.
    """
    tar = tar if is_remote(tar) else os.path.abspath(tar)
    counted = Leftovers() if leftovers is None else leftovers
    bare: set[str] = set()  # videos without a text beside them
    try:
        # headers are far apart: long read-ahead is waste
        with open_binary(tar, block_size=1 << 16) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            files = (member for member in archive if member.isfile() and not is_hidden(member.name))
            for stem, group in groupby(files, key=lambda member: _split(member.name)[0]):
                members = {_split(member.name)[1]: member for member in group}
                texts = [member.name for name, member in members.items() if name in WORDS]
                rows = list(_sample(tar, archive, members, counted))
                bare |= {stem} if rows and not texts else set()
                if not rows:
                    kind = "apart" if texts and stem in bare else "sample"
                    counted.add(kind, f"{tar}/{(texts or [next(iter(members.values())).name])[0]}")
                yield from rows
                archive.members = []  # type: ignore[attr-defined]  # else every header stays in memory
    except FileNotFoundError as error:
        raise FileNotFoundError(f"got {tar}, which does not exist; expected a tar; correct the path") from error
    except tarfile.TarError as error:
        raise ValueError(f"got {tar}: {error}; expected an uncompressed, whole tar; unpack or write it anew") from error


def _sample(
    tar: str, archive: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], leftovers: Leftovers
) -> Iterator[ShardRow]:
    videos = [members[name] for name in members if name.rpartition(".")[2] in EXTENSIONS]
    if not videos:
        return
    for extra in videos[1:]:
        leftovers.add("second", f"{tar}/{extra.name}")
    video = videos[0]
    texts = {name: _text(tar, archive, members[name]) for name in WORDS if name in members}
    fields = _fields(tar, video.name, texts.get("json", "{}"))
    try:
        captions = (captions_of(value) for value in (*map(texts.get, TEXTS), *map(fields.get, CAPTION_FIELDS)))
        labels = (word_of(value) for value in (texts.get("cls"), *map(fields.get, LABEL_FIELDS)))
        caption, label = (next((word for word in words if word is not None), None) for words in (captions, labels))
    except ValueError as error:
        raise ValueError(f"got a caption or label of {video.name} in {tar}, which holds {error}; correct it") from error
    number = -1 if label is None else class_number(label, f"{tar}, for {video.name}")
    yield ShardRow(ByteRange(tar, video.offset_data, video.size).path, video.name, number, caption or "", b"")


def _fields(tar: str, name: str, text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"got the JSON of {name} in {tar}: {error}; expected an object; write it anew") from error
    if not isinstance(fields, dict):
        raise ValueError(f"got the JSON of {name} in {tar}, which is no object; expected one; write it anew")
    return fields


def _text(tar: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > MAX_TEXT:
        raise ValueError(
            f"got {member.name} of {member.size} bytes in {tar}; expected a text of at most {MAX_TEXT}; leave it out"
        )
    content = archive.extractfile(member)
    return decode(content.read(), f"{member.name} in {tar}") if content else ""


def _split(name: str) -> tuple[str, str]:
    folder, _, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}/{stem}", extension.lower()


def _literal(pattern: str) -> str:
    """Return the longest beginning of a local pattern that exists literally, so that its brackets are no pattern."""
    path = "" if is_remote(pattern) else pattern
    while path and not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _glob(pattern: str, literal: str) -> list[str]:
    if is_remote(pattern):
        filesystem, name = remote(pattern)
        names = [path for path in filesystem.glob(name) if not is_hidden(path.rpartition("/")[2])]
        return sorted(map(filesystem.unstrip_protocol, names))
    return sorted(glob.glob(glob.escape(literal) + pattern[len(literal) :]))
