"""Writing videos and pictures of them. Frames are uint8 (t, h, w, 3); a file appears whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from flexivid.media.pixels import to_bytes
from flexivid.runtime.files import atomic_write
from flexivid.runtime.paths import resolve_path

GAP = 2  # pixels between the tiles of a grid
LINE, TITLE_WIDTH = 24, 640  # pixels of a line of text, and of a title even if the pictures are narrower
CRF = 10  # near lossless: samples are also measured from their files


def to_frames(video: Tensor) -> np.ndarray:
    """(3, t, h, w) in [-1, 1] -> uint8 (t, h, w, 3)."""
    return to_bytes(video).permute(1, 2, 3, 0).contiguous().cpu().numpy()


def write_video(path: str | Path, frames: np.ndarray, fps: float) -> Path:
    """Write frames, uint8 (t, h, w, 3), as an H.264 mp4 into a folder that exists; return its path.

    An odd side gets one more row or column, since H.264's 4:2:0 needs even ones.
    """
    path = resolve_path(path)
    odd = [(0, side % 2) for side in frames.shape[1:3]]
    frames = np.pad(frames, ((0, 0), *odd, (0, 0)), mode="edge")
    with atomic_write(path) as part, av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": str(CRF)}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return path


def enlarge(frames: np.ndarray, least: int = 128) -> np.ndarray:
    """Repeat pixels by a whole factor until the shorter side has at least ``least`` pixels, for people to look at."""
    factor = max(1, -(-least // min(frames.shape[1:3])))
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def tile(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Put videos (or pictures with one frame) of equal size side by side: a list of rows -> uint8 (t, h, w, 3).

    Example:
        >>> tile([[np.zeros((8, 32, 32, 3), np.uint8)] * 3] * 2).shape
        (8, 66, 100, 3)
    """
    height, width = rows[0][0].shape[1:3]
    columns = max(len(row) for row in rows)
    shape = (rows[0][0].shape[0], len(rows) * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3)
    canvas = np.full(shape, 40, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, frames in enumerate(row):
            y, x = i * (height + GAP), j * (width + GAP)
            canvas[:, y : y + height, x : x + width] = frames
    return canvas


def film_strip(frames: np.ndarray, count: int) -> np.ndarray:
    """``count`` frames of a video spread evenly over it, side by side: uint8 (1, h, w', 3)."""
    chosen = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    return tile([[frames[i : i + 1] for i in chosen]])


def write_grid(
    path: str | Path, rows: Sequence[tuple[str, Sequence[np.ndarray]]], fps: float, captions: Sequence[str] = ()
) -> tuple[Path, Path]:
    """Write a grid as a video, and as a picture of film strips: ``path`` with ``.mp4`` and ``.png``; return both paths.

    ``rows`` are titles and videos, uint8 (t, h, w, 3), all of one size; ``captions`` stand below the film strips of
    each row.
    """
    path = Path(path)
    big = [[enlarge(frames) for frames in videos] for _, videos in rows]
    video = write_video(path.with_suffix(".mp4"), tile(big), fps)
    picture = titled([title for title, _ in rows], [_strips(videos, captions) for _, videos in rows])
    return video, write_picture(path.with_suffix(".png"), np.asarray(picture))


def write_picture(path: str | Path, frame: np.ndarray) -> Path:
    """Write a frame, uint8 (h, w, 3), as a PNG; returns the path."""
    path = resolve_path(path)
    with atomic_write(path) as part:
        Image.fromarray(frame).save(part, format="png")
    return path


def _strips(videos: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """Film strips of videos, in two columns so that the picture stays handy: uint8 (h, w, 3)."""
    strips = [film_strip(enlarge(frames, 48), 8) for frames in videos]
    if captions:
        strips = [_with_caption(strip, words) for strip, words in zip(strips, captions, strict=True)]
    return tile([strips[i : i + 2] for i in range(0, len(strips), 2)])[0]


def _with_caption(strip: np.ndarray, words: str) -> np.ndarray:
    """A film strip, uint8 (1, h, w, 3), above as much of its caption as there is room for."""
    font, (height, width) = ImageFont.load_default(size=13), strip.shape[1:3]
    while words and font.getlength(words) > width - 8:
        words = words[:-4].rstrip() + "..." if len(words) > 4 else ""
    canvas = Image.new("RGB", (width, height + LINE), "white")
    canvas.paste(Image.fromarray(strip[0]), (0, 0))
    ImageDraw.Draw(canvas).text((4, height + 3), words, fill="black", font=font)
    return np.asarray(canvas)[None]


def titled(titles: Sequence[str], pictures: Sequence[np.ndarray]) -> Image.Image:
    """Pictures, uint8 (h, w, 3), below each other, each under its title; a long title loses its start.

    Example:
        >>> titled(["a.mp4", "b.mp4"], [np.zeros((64, 700, 3), np.uint8)] * 2).size
        (700, 176)
    """
    font = ImageFont.load_default(size=15)
    room = max([TITLE_WIDTH, *(picture.shape[1] for picture in pictures)])
    titles = [_fit(title, font, room - 12) for title in titles]
    width = max([picture.shape[1] for picture in pictures] + [int(font.getlength(title)) + 12 for title in titles])
    canvas = Image.new("RGB", (width, sum(picture.shape[0] + LINE for picture in pictures)), "white")
    draw, y = ImageDraw.Draw(canvas), 0
    for title, picture in zip(titles, pictures, strict=True):
        draw.text((6, y + 3), title, fill="black", font=font)
        canvas.paste(Image.fromarray(picture), (0, y + LINE))
        y += picture.shape[0] + LINE
    return canvas


def _fit(title: str, font: Any, width: int) -> str:
    """Cut the start of a title that is too long; its end says more."""
    cut = title
    while cut and font.getlength(cut) > width:
        title = title[1:]
        cut = "..." + title
    return cut
