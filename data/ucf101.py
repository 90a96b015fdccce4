"""Fetch UCF101: 13,320 videos of 101 human actions, 320x240, 25 fps, with the official train and test lists.

    python data/ucf101.py --output data/ucf101
    python -m flexivid.train fit --config conf/... --data.root data/ucf101/manifest.csv

The archive has some 6.5 GB and is a rar: one of unrar, bsdtar or 7z must be installed. A run that was interrupted goes
on where it stopped. The addresses are those of the dataset's page (https://www.crcv.ucf.edu/data/UCF101.php); that they
still answer was not checked, nor is an official checksum known: pass one with --checksum if you have it. If the
certificate of the server is refused, fetch the files with a browser and pass them with --archive and --lists.

Splits are the lists of one of three folds; train and test share no group of videos (one group = one scene and actor).
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from flexivid.data.storage.dataset_script import Row, add_flags, run, unpacked, write_manifest
from flexivid.runtime.paths import resolve_path

URL = "https://www.crcv.ucf.edu/data/UCF101/UCF101.rar"
LISTS_URL = "https://www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip"


def rows(output: Path, fold: int) -> Iterator[Row]:
    """Yield (path, class, split) of each video on the lists of a fold.

    Raises:
        ValueError: If lists or videos are not where they should be.
    """
    lists = _only(output / "lists", f"trainlist0{fold}.txt").parent
    videos = _only(output / "videos", "*/v_*.avi", many=True).parent.parent
    for split, name in (("train", f"trainlist0{fold}.txt"), ("test", f"testlist0{fold}.txt")):
        for line in filter(None, map(str.strip, (lists / name).read_text().splitlines())):
            path = videos / line.split()[0]
            if not path.is_file():
                raise ValueError(
                    f"got {line.split()[0]} on {lists / name}, but no {path}; expected every listed video; "
                    f"remove {output / 'videos'} and start again"
                )
            yield path.relative_to(output).as_posix(), path.parent.name, split


def _only(folder: Path, pattern: str, *, many: bool = False) -> Path:
    found = sorted(folder.rglob(pattern))
    if not found or (len(found) > 1 and not many):
        raise ValueError(
            f"got {len(found)} files {pattern} below {folder}; expected one; see whether the archive is right"
        )
    return found[0]


def make(options: argparse.Namespace) -> dict[str, int]:
    """Fetch, unpack, list; return the number of videos of each split."""
    show = not options.quiet
    unpacked(options.lists_url, options.output / "lists", archive=options.lists, progress=show)
    unpacked(options.url, options.output / "videos", archive=options.archive, checksum=options.checksum, progress=show)
    return write_manifest(rows(options.output, options.fold), options.output, limit=options.limit)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    show_defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=show_defaults)
    add_flags(parser, Path(__file__).resolve().parent / "ucf101")
    parser.add_argument("--fold", type=int, choices=(1, 2, 3), default=1, help="which train and test lists")
    parser.add_argument("--url", default=URL, help="address of the videos")
    parser.add_argument("--lists-url", default=LISTS_URL, help="address of the lists")
    parser.add_argument("--archive", type=resolve_path, help="the archive of the videos, if it is here already")
    parser.add_argument("--lists", type=resolve_path, help="likewise, of the lists")
    parser.add_argument("--checksum", default="", help="of the archive of the videos: sha256:... or md5:...")
    return run(make, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
