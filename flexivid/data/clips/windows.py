"""Which frames make a clip. Pure arithmetic: no torch, no decoding.

A clip is a number of frames, ``stride`` source frames apart or, with ``fps``, 1 / fps seconds apart: then each is the
frame that is shown at that time, whatever the rate of the source. Everything that counts takes one video or a whole
table of them: numbers of frames may be arrays, and so may ``step``, the distance of a clip's frames in source frames.
"""

from typing import Literal, NamedTuple

import numpy as np

Windows = Literal["random", "uniform", "first", "all"]
Short = Literal["skip", "loop", "pad"]
Numbers = int | np.ndarray

MAX_TRIES = 20  # clips that are tried for one place, before the run fails
SLACK_FRAMES = 1e-3  # mean rates are stored in single precision
SLACK_SECONDS = 1e-3  # some containers (Matroska, FLV) round times to milliseconds


class ClipSettings(NamedTuple):
    """How clips are cut out of videos.

    >>> ClipSettings(stride=2).num_frames
    8
    """

    num_frames: int = 8  # frames of a clip
    size: tuple[int, int] = (32, 32)  # (height, width) in pixels
    stride: int = 1  # distance of the frames of a clip, in source frames
    seed: int = 0  # decides everything that is drawn at random
    fps: float | None = None  # frames a second of a clip; None takes them by ``stride``
    # where clips lie in a video. "random": anywhere, drawn anew in each epoch; "uniform": spread evenly, always the
    # same; "first": one after another from the first frame (one, unless ``clips_per_video`` says more); "all": as many
    # as fit, likewise
    windows: Windows = "random"
    clips_per_video: int | None = None  # clips of each video in an epoch; None: as many as fit without a common frame
    # what becomes of a video shorter than a clip. "skip": it has no clip; "loop": it starts again; "pad": its last
    # frame stays
    short: Short = "skip"
    flip: bool = False  # whether half of the clips, drawn at random, are mirrored left to right
    crop: Literal["centre", "random"] = "centre"  # of a picture of another shape; "random": drawn for each clip
    kernel: Literal["bicubic", "bilinear", "area", "lanczos"] = "bicubic"  # how pictures are resized
    square_pixels: bool = True  # whether pixels that are not square are made so, as video players do
    decoder: str = "auto"  # which must be exact for every file (see ``probe``), or "auto"


def refuse_settings(settings: ClipSettings) -> None:
    """Raise ``ValueError`` for settings that give no clips or that contradict each other.

    >>> refuse_settings(ClipSettings(num_frames=0))
    Traceback (most recent call last):
    ...
    ValueError: got data.num_frames=0; expected at least 1; raise data.num_frames
    """
    numbers = {"num_frames": settings.num_frames, "stride": settings.stride}
    for name, value in {**numbers, "clips_per_video": settings.clips_per_video}.items():
        if value is not None and value < 1:
            raise ValueError(f"got data.{name}={value}; expected at least 1; raise data.{name}")
    if min(settings.size) < 1:
        size = settings.size[0] if settings.size[0] == settings.size[1] else settings.size
        raise ValueError(f"got data.size={size}; expected pixels, at least 1; raise data.size")
    if settings.fps is not None and not settings.fps > 0:
        raise ValueError(f"got data.fps={settings.fps}; expected frames a second, more than 0; raise data.fps")
    if settings.fps is not None and settings.stride > 1:
        raise ValueError(
            f"got data.fps={settings.fps} and data.stride={settings.stride}; expected one of them; remove data.stride"
        )
    if settings.windows == "all" and settings.clips_per_video is not None:
        raise ValueError(
            f"got data.windows=all and data.clips_per_video={settings.clips_per_video}; expected one of them; "
            f"set data.windows=first for the first few"
        )


def step_of(source_fps: float | np.ndarray, settings: ClipSettings) -> float | np.ndarray:
    """Return the distance of a clip's frames in source frames; no whole number when ``fps`` is set.

    Where the rate of a video is unknown, 0, every frame is taken.

    >>> step_of(30.0, ClipSettings(stride=2)), step_of(np.array([30.0, 25.0, 0.0]), ClipSettings(fps=10)).tolist()
    (2, [3.0, 2.5, 1.0])
    """
    if settings.fps is None:
        return settings.stride
    rates = np.asarray(source_fps, dtype=np.float32)
    return np.where(rates > 0, rates / np.float32(settings.fps), np.float32(1))


def span_of(num_frames: Numbers, step: float | np.ndarray = 1) -> Numbers:
    """Return how many source frames a clip spans.

    >>> span_of(8, 2), int(span_of(8, 2.5))
    (15, 18)
    """
    if isinstance(step, int):
        return (num_frames - 1) * step + 1
    return np.floor((num_frames - 1) * step + SLACK_FRAMES).astype(np.int64) + 1


def num_windows(source_frames: Numbers, num_frames: Numbers, step: float | np.ndarray = 1) -> Numbers:
    """Return at how many frames of a video a clip can start; 0 or less when the video is too short.

    >>> num_windows(16, 8, 2), num_windows(np.array([16, 14]), 8, 2).tolist()
    (2, [2, 0])
    """
    return source_frames - span_of(num_frames, step) + 1


def clips_per_epoch(
    source_frames: np.ndarray, num_frames: Numbers, step: float | np.ndarray, settings: ClipSettings
) -> np.ndarray:
    """Return how many clips of each video belong to one epoch, int64.

    Without ``clips_per_video`` as many as follow each other without a common frame, so that each second of footage
    counts the same in a short video and in a film; at least one where a clip fits. "uniform" gives no more clips than
    there are windows, and "first" and "all" no more than follow each other. A video that is too short has none, or one
    unless such videos are skipped.

    >>> clips_per_epoch(np.array([14, 15, 40, 14315]), 8, 2, ClipSettings(stride=2)).tolist()
    [0, 1, 2, 894]
    """
    source_frames = np.asarray(source_frames)
    windows = np.asarray(num_windows(source_frames, num_frames, step))
    requested = settings.clips_per_video
    if settings.windows in ("first", "all"):
        counts = np.floor((windows - 1 + SLACK_FRAMES) / (num_frames * step)) + 1
        counts = counts if settings.windows == "all" else np.minimum(counts, requested or 1)
    elif requested is None:
        counts = np.maximum(1, np.floor((source_frames + SLACK_FRAMES) / (num_frames * step)))
    else:
        counts = np.minimum(requested, windows) if settings.windows == "uniform" else np.full(len(windows), requested)
    short = int(settings.short != "skip")
    return np.where(windows > 0, counts, np.where(source_frames > 0, short, 0)).astype(np.int64)


def start_of(num_windows: int, part: int, num_parts: int, *, step: float, settings: ClipSettings) -> int:
    """Return the fixed frame at which a clip starts; 0 in a video that is too short.

    A clip can start at ``num_windows`` frames, and is number ``part`` of the ``num_parts`` of its video. Where clips
    follow each other, they are ``step`` source frames apart.

    >>> uniform, everything = ClipSettings(windows="uniform"), ClipSettings(windows="all")
    >>> [start_of(100, i, 2, step=8, settings=uniform) for i in range(2)]
    [25, 75]
    >>> [start_of(100, i, 2, step=8, settings=everything) for i in range(2)]
    [0, 8]
    """
    if settings.windows == "uniform":
        return max(0, (2 * part + 1) * num_windows // (2 * num_parts))
    return max(0, min(round(part * step), num_windows - 1))


def by_step(start: int, num_frames: int, source_frames: int, step: float, *, short: Short = "skip") -> np.ndarray:
    """Return the source frames of a clip, ``step`` apart, (num_frames,) int64.

    Beyond the end, which only a video that is too short has, frames are looped or padded.

    >>> by_step(3, 4, 100, 2).tolist()
    [3, 5, 7, 9]
    >>> [by_step(0, 4, 3, 1, short=short).tolist() for short in ("loop", "pad")]
    [[0, 1, 2, 0], [0, 1, 2, 2]]
    """
    indices = start + np.floor(np.arange(num_frames) * step + SLACK_FRAMES).astype(np.int64)
    return indices % source_frames if short == "loop" else np.minimum(indices, source_frames - 1)


class Clock:
    """When the frames of one video are shown, in seconds, increasing. The last one stays as long as the mean of others.

    >>> clock = Clock(np.array([0.0, 0.1, 0.5, 0.6]))
    >>> clock.shown_at(np.array([0.3, 0.5, 0.79])).tolist(), round(clock.seconds, 3)
    ([1, 2, 3], 0.8)
    """

    def __init__(self, timestamps: np.ndarray) -> None:
        self.times = timestamps - timestamps[0]
        last = float(self.times[-1])
        self.slack = min(SLACK_SECONDS, last / (4 * len(self.times)))
        self.seconds = last * len(self.times) / max(1, len(self.times) - 1)

    def shown_at(self, seconds: np.ndarray) -> np.ndarray:
        """Return the number of the frame on show at each of some times since the first frame."""
        return np.maximum(0, np.searchsorted(self.times, seconds + self.slack, side="right") - 1)

    def num_windows(self, num_frames: int, fps: float) -> int:
        """Return at how many frames a clip can start; 0 when the video is too short."""
        latest = self.seconds - (num_frames - 1) / fps
        return int(np.searchsorted(self.times, latest - self.slack, side="left"))

    def clip(self, start: int, num_frames: int, *, settings: ClipSettings) -> np.ndarray:
        """Return the frames of a clip at ``settings.fps`` that starts with frame ``start``, (num_frames,) int64."""
        assert settings.fps is not None
        seconds = self.times[start] + np.arange(num_frames) / settings.fps
        if settings.short == "loop" and self.seconds > 0:
            over = seconds > self.seconds - self.slack
            seconds = np.where(over, seconds % self.seconds, seconds)
        return self.shown_at(seconds).astype(np.int64)
