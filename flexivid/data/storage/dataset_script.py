"""Shared parts of the programs in ``data/``: download and unpack an archive once, and list its videos.

Downloads are in ``<output>/downloads`` and may be removed afterwards. The list, ``manifest.csv``, is written last: a
data set without it is not finished.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from flexivid.data.storage.archives import extract
from flexivid.data.storage.download import DownloadError, download
from flexivid.runtime.files import atomic_write
from flexivid.runtime.paths import resolve_path
from flexivid.runtime.printable import printable

Row = tuple[str, str, str]  # path relative to the output, class or empty, split
MANIFEST = "manifest.csv"


def add_flags(parser: argparse.ArgumentParser, output: Path) -> None:
    """Add the options that every script takes: ``--output``, ``--limit``, ``--quiet``.

    >>> parser = argparse.ArgumentParser()
    >>> add_flags(parser, Path("data/films"))
    >>> parser.parse_args(["--limit", "5"]).limit
    5
    """
    parser.add_argument("--output", type=resolve_path, default=output, help="folder to make")
    parser.add_argument("--limit", type=int, default=None, help="list so many videos of each split only")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(make: Callable[[argparse.Namespace], dict[str, int]], options: argparse.Namespace) -> int:
    """Make a data set and say so, or say what is wrong; return the exit status.

    >>> run(lambda options: {"train": 3}, argparse.Namespace(output=Path("films")))
    0
    """
    try:
        counts = make(options)
    except (DownloadError, ValueError, OSError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    print(f"{options.output / MANIFEST}: {counts}", file=sys.stderr)
    return 0


def unpacked(
    url: str, folder: Path, *, archive: Path | None = None, name: str = "", checksum: str = "", progress: bool = True
) -> Path:
    """Return a folder with the contents of an archive; download and unpack it if the folder does not exist.

    Nothing is downloaded if the ``archive`` is here already. The downloaded file is called as the last part of the url,
    or by ``name``; it must have the ``checksum`` (see ``download``).

    >>> import tempfile, zipfile
    >>> root = Path(tempfile.mkdtemp())
    >>> with zipfile.ZipFile(root / "films.zip", "w") as content:
    ...     content.writestr("1.mp4", "video")
    >>> [path.name for path in unpacked((root / "films.zip").as_uri(), root / "films", progress=False).iterdir()]
    ['1.mp4']
    """
    if folder.is_dir():
        return folder
    if archive is None:
        archive = folder.parent / "downloads" / (name or url.rstrip("/").rpartition("/")[2])
        download(url, archive, checksum=checksum, progress=progress)
    elif not archive.is_file():
        raise FileNotFoundError(f"got --archive {archive}, which does not exist; expected a file; correct the path")
    extract(archive, folder, progress=progress)
    return folder


def write_manifest(rows: Iterable[Row], output: Path, *, limit: int | None = None) -> dict[str, int]:
    """Write ``manifest.csv`` with the columns path, class, split; return how many videos each split has.

    Rows are (path relative to ``output``, class, split). With a ``limit``, so many of each split are taken, evenly
    spread over it, so that each class keeps its share. ``ValueError`` if there is no video.

    >>> import tempfile
    >>> rows = [(f"{number}.mp4", "", "train") for number in range(10)]
    >>> write_manifest(rows, Path(tempfile.mkdtemp()), limit=3)
    {'train': 3}
    """
    splits: dict[str, list[Row]] = {}
    for row in rows:
        splits.setdefault(row[2], []).append(row)
    if not splits:
        raise ValueError(f"got no video for {output}; expected at least one; see whether the archive is the right one")
    for split, members in splits.items():
        count = len(members) if limit is None else min(limit, len(members))
        splits[split] = [members[number * len(members) // count] for number in range(count)]
    output.mkdir(parents=True, exist_ok=True)
    with atomic_write(output / MANIFEST) as part, open(part, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "class", "split"))
        for members in splits.values():
            writer.writerows(members)
    return {split: len(members) for split, members in splits.items()}
