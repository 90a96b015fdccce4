"""Cut Taichi-HD out of its YouTube videos: some 3,000 square clips of people doing tai-chi.

    python data/taichi.py --output data/taichi --videos my_downloads
    python -m flexivid.train fit --config conf/... --data.root data/taichi/manifest.csv

Taichi-HD is no archive but a list of video ids, time ranges and boxes
(https://github.com/AliaksandrSiarohin/video-preprocessing); many of the videos are gone by now, so two copies made at
different times differ, and scores on them compare only roughly. Put the videos into --videos as ``<id>.mp4`` (or .mkv,
.webm), or let --fetch ask yt-dlp for them, if it is installed and you may. Neither the address of the list nor YouTube
was tried. What is missing is listed in ``missing.txt``; run again when there is more: clips already cut are kept.

Without a column ``partition`` in the list, one video in twenty is held out, by its id.
"""

import argparse
import csv
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from flexivid.data import VideoError, open_video
from flexivid.data.storage.dataset_script import Row, add_flags, run, write_manifest
from flexivid.data.storage.download import download
from flexivid.runtime.paths import resolve_path

URL = "https://raw.githubusercontent.com/AliaksandrSiarohin/video-preprocessing/master/taichi-metadata.csv"
EXTENSIONS = (".mp4", ".mkv", ".webm", ".mov", ".avi")
FRAMES_AT_ONCE = 32
ROUNDING = 1e-3  # seconds: containers round times
YT_DLP = ("yt-dlp", "-q", "-f", "b[ext=mp4]/bv*[ext=mp4]/b")


class Clip(NamedTuple):
    """A line of the list: which part of which video.

    Args:
        video: YouTube's id.
        first: Number of the first frame, counted at ``fps``; ``last`` is the first one after the clip.
        last: See there.
        box: (left, top, right, bottom) in pixels of a picture of ``size``.
        fps: Frames a second that the list assumes.
        size: (height, width) that the list assumes.
        split: "train" or "test".
    """

    video: str
    first: int
    last: int
    box: tuple[int, int, int, int]
    fps: float
    size: tuple[int, int]
    split: str

    @property
    def path(self) -> str:
        """Where it goes, relative to the output."""
        return f"{self.split}/{self.video}#{self.first:06d}#{self.last:06d}.mp4"


def read_clips(metadata: Path) -> list[Clip]:
    """Read the list; ``ValueError`` if it has other columns."""
    with open(metadata, newline="", encoding="utf-8") as stream:
        lines = csv.DictReader(stream)
        wanted = {"video_id", "start", "end", "bbox", "fps", "width", "height"}
        missing = sorted(wanted - set(lines.fieldnames or ()))
        if missing:
            raise ValueError(
                f"got {metadata} without {', '.join(missing)}; expected the list of Taichi-HD; correct --metadata"
            )
        return [_clip(line) for line in lines]


def _clip(line: dict[str, str]) -> Clip:
    video = line["video_id"].split("#")[0]
    left, top, right, bottom = (int(side) for side in line["bbox"].split("-"))
    held_out = hashlib.sha256(video.encode()).digest()[0] % 20 == 0
    split = line.get("partition") or ("test" if held_out else "train")
    size = (int(float(line["height"])), int(float(line["width"])))
    return Clip(
        video, int(line["start"]), int(line["end"]), (left, top, right, bottom), float(line["fps"]), size, split
    )


def cut(video: Path, clip: Clip, output: Path, *, size: int) -> None:
    """Write one clip: the frames of its time range, its box, resized to a square.

    Raises:
        VideoError: If the video cannot be decoded.
        ValueError: If it ends before the clip begins.
    """
    with open_video(video) as reader:
        times = reader.timestamps - reader.timestamps[0]
        first, last = clip.first / clip.fps - ROUNDING, clip.last / clip.fps - ROUNDING
        wanted = np.flatnonzero((times >= first) & (times < last))
        if len(wanted) == 0:
            raise ValueError(f"got {video}, which ends before {clip.path}; expected the whole video; fetch it again")
        fps = (len(times) - 1) / times[-1] if len(times) > 1 else clip.fps
        new = output.with_name(f".{output.stem}.{os.getpid()}.mp4")
        try:
            with av.open(str(new), "w") as container:
                stream = container.add_stream(
                    "libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "14"}
                )
                stream.width = stream.height = size
                stream.pix_fmt = "yuv420p"
                for start in range(0, len(wanted), FRAMES_AT_ONCE):
                    for image in reader.frames(wanted[start : start + FRAMES_AT_ONCE]):
                        frame = av.VideoFrame.from_ndarray(_square(image, clip, size), format="rgb24")
                        container.mux(stream.encode(frame))
                container.mux(stream.encode())
            new.rename(output)
        finally:
            new.unlink(missing_ok=True)


def _square(image: np.ndarray, clip: Clip, size: int) -> np.ndarray:
    down, across = image.shape[0] / clip.size[0], image.shape[1] / clip.size[1]
    left, top, right, bottom = (round(side * scale) for side, scale in zip(clip.box, (across, down) * 2, strict=True))
    picture = Image.fromarray(image[top:bottom, left:right])
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS))


def find(videos: Path, name: str, *, fetch: bool) -> Path | None:
    """Return the file of a video, or None; ask yt-dlp for it if ``fetch``."""
    known = next((videos / (name + end) for end in EXTENSIONS if (videos / (name + end)).is_file()), None)
    if known or not fetch:
        return known
    target = ("-o", str(videos / f"{name}.%(ext)s"), f"https://www.youtube.com/watch?v={name}")
    subprocess.run([*YT_DLP, *target], check=False, stdout=subprocess.DEVNULL)
    return find(videos, name, fetch=False)


def _limited(clips: list[Clip], limit: int | None) -> list[Clip]:
    return [clip for split in ("train", "test") for clip in [one for one in clips if one.split == split][:limit]]


def make(options: argparse.Namespace) -> Iterator[Row]:
    """Cut what can be cut; yield its rows, and leave ``missing.txt``."""
    if options.fetch and not shutil.which("yt-dlp"):
        raise ValueError(
            "got --fetch without yt-dlp; expected it on the PATH; pip install yt-dlp, or use --videos alone"
        )
    metadata = options.metadata
    if metadata is None:
        metadata = options.output / "downloads" / "taichi-metadata.csv"
        download(options.url, metadata, progress=not options.quiet)
    options.videos.mkdir(parents=True, exist_ok=True)
    missing: dict[str, str] = {}
    clips = _limited(sorted(read_clips(metadata)), options.limit)
    for clip in track(clips, description="tai-chi", console=Console(stderr=True), disable=options.quiet):
        path = options.output / clip.path
        path.parent.mkdir(parents=True, exist_ok=True)
        video = (
            None if path.exists() or clip.video in missing else find(options.videos, clip.video, fetch=options.fetch)
        )
        if video is not None:
            try:
                cut(video, clip, path, size=options.size)
            except (VideoError, ValueError) as error:
                missing[clip.path] = str(error)
        elif not path.exists():
            missing.setdefault(clip.video, f"no {clip.video}.mp4 in {options.videos}")
        if path.exists():
            yield clip.path, "", clip.split
    (options.output / "missing.txt").write_text("".join(f"{name}\t{why}\n" for name, why in missing.items()))
    print(f"missing: {len(missing)} videos or clips, see {options.output / 'missing.txt'}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    show_defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=show_defaults)
    add_flags(parser, Path(__file__).resolve().parent / "taichi")
    parser.add_argument(
        "--videos", type=resolve_path, default=None, help="folder of the whole videos; <output>/videos if not given"
    )
    parser.add_argument("--fetch", action="store_true", help="ask yt-dlp for videos that are not in --videos")
    parser.add_argument("--metadata", type=resolve_path, help="the list, if it is here already")
    parser.add_argument("--url", default=URL, help="address of the list")
    parser.add_argument("--size", type=int, default=256, help="side of the clips in pixels, even")
    options = parser.parse_args(arguments)
    options.videos = options.videos or options.output / "videos"
    return run(lambda given: write_manifest(make(given), given.output, limit=given.limit), options)


if __name__ == "__main__":
    sys.exit(main())
