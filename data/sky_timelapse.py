"""Fetch Sky Time-lapse: 2,392 training and 225 test clips of moving skies, 640x360, as folders of JPEG frames.

    python data/sky_timelapse.py --output data/sky_timelapse
    python -m flexivid.train fit --config conf/... --data.root data/sky_timelapse/manifest.csv

The default address is the authors' file on Google Drive (linked from https://github.com/weixiong-ur/mdgan), asked for
directly. That it still answers was not checked, and no checksum is known: Drive refuses popular files for hours and
then sends a web page, which is refused. Fetch the file with a browser then, and pass it with --archive; any zip, tar or
rar with the folders ``sky_train`` and ``sky_test`` will do. A run that was interrupted goes on where it stopped.

Clips are cut from 997 long videos for training and 111 others for testing (the archive's readme). Frames carry no time:
choose ``stride``, not ``fps``. The videos are from YouTube; their rights are their authors'.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from flexivid.data.storage.dataset_script import Row, add_flags, run, unpacked, write_manifest
from flexivid.runtime.paths import resolve_path

URL = "https://drive.usercontent.google.com/download?id=1t3g6lBxKgRfXz66BAxNBy225Sr6r09pM&export=download&confirm=t"
SPLITS = {"train": "sky_train", "test": "sky_test"}
PICTURES = (".jpg", ".jpeg", ".png")


def rows(output: Path, min_frames: int) -> Iterator[Row]:
    """Yield (path, "", split) of each folder that directly holds at least ``min_frames`` pictures.

    Raises:
        ValueError: If a split is missing.
    """
    for split, name in SPLITS.items():
        roots = [path for path in sorted((output / "videos").rglob(name)) if path.is_dir()]
        if not roots:
            raise ValueError(
                f"got no folder {name} below {output / 'videos'}; expected one; see whether the archive is right"
            )
        for folder in sorted(path for path in roots[0].rglob("*") if path.is_dir()):
            pictures = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES]
            if len(pictures) >= max(1, min_frames):
                yield folder.relative_to(output).as_posix(), "", split


def make(options: argparse.Namespace) -> dict[str, int]:
    """Fetch, unpack, list; return the number of videos of each split."""
    unpacked(
        options.url,
        options.output / "videos",
        archive=options.archive,
        name="sky_timelapse.archive",
        checksum=options.checksum,
        progress=not options.quiet,
    )
    return write_manifest(rows(options.output, options.min_frames), options.output, limit=options.limit)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    show_defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=show_defaults)
    add_flags(parser, Path(__file__).resolve().parent / "sky_timelapse")
    parser.add_argument("--min-frames", type=int, default=16, help="leave out clips that are shorter")
    parser.add_argument("--url", default=URL, help="address of the archive")
    parser.add_argument("--archive", type=resolve_path, help="the archive, if it is here already")
    parser.add_argument("--checksum", default="", help="of the archive: sha256:... or md5:...")
    return run(make, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
