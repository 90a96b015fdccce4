"""Clips of videos as a map-style torch data set, addressed by (clip, epoch).

The same address always gives the same pixels: the window is drawn from (seed, epoch, clip) alone, whatever the number
of workers or ranks. Imports no Lightning.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from flexivid.data.clips import central_start, clips_per_epoch, random_start, window_indices
from flexivid.data.footage import Video
from flexivid.data.probe import Size, VideoError

MAX_SUBSTITUTES = 20  # clips tried in place of one whose file turns out to be damaged


class ClipSettings(NamedTuple):
    """How clips are cut out of videos.

    Args:
        num_frames: Frames of a clip.
        size: (height, width) in pixels.
        stride: Distance of the frames of a clip, in source frames.
        seed: Decides every random window.
        loop: Whether a video that is too short starts again; otherwise it has no clip.
        flip: Whether half of the clips, drawn at random, are mirrored left to right.
        fixed: Whether the windows are spread evenly over each video instead of drawn; nothing is mirrored then.

    >>> ClipSettings(stride=2).num_frames
    8
    """

    num_frames: int = 8
    size: Size = (32, 32)
    stride: int = 1
    seed: int = 0
    loop: bool = False
    flip: bool = False
    fixed: bool = False


class ClipDataset(Dataset[dict[str, Tensor]]):
    """Clips of videos; a long video counts for several clips of an epoch, one that is too short for none.

    An item is ``video``, (c, t, h, w) uint8, and ``label``, int64 (-1 without classes). If the file behind a clip turns
    out to be damaged only now, which can happen to videos that are not kept in memory, the next clip that can be
    decoded takes its place, and a warning names the file.

    Args:
        videos: The videos.
        settings: How clips are cut out of them.

    >>> from pathlib import Path
    >>> frames = np.arange(20, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    >>> video = Video(Path("a.mp4"), label=7, num_frames=20, fps=10.0, frames=frames)
    >>> dataset = ClipDataset([video], ClipSettings(num_frames=4, size=(1, 1), stride=2, fixed=True))
    >>> len(dataset), [dataset[clip, 0]["video"][0, :, 0, 0].tolist() for clip in range(2)]
    (2, [[3, 5, 7, 9], [10, 12, 14, 16]])
    """

    def __init__(self, videos: Sequence[Video], settings: ClipSettings) -> None:
        self.settings = settings
        counts = [
            clips_per_epoch(video.num_frames, settings.num_frames, stride=settings.stride, loop=settings.loop)
            for video in videos
        ]
        self.too_short = [video for video, count in zip(videos, counts, strict=True) if count == 0]
        self.videos = [video for video, count in zip(videos, counts, strict=True) if count > 0]
        self.counts = np.array([count for count in counts if count > 0], dtype=np.int64)
        self._ends = np.cumsum(self.counts)
        self._reported: set[str] = set()

    def __len__(self) -> int:
        return int(self.counts.sum())

    def __getitem__(self, address: tuple[int, int]) -> dict[str, Tensor]:
        clip, epoch = address
        for _ in range(MAX_SUBSTITUTES):
            try:
                return self._clip(clip, epoch)
            except VideoError as error:
                self._report(error)
                failure, clip = error, (clip + 1) % len(self)
        raise failure

    def _clip(self, clip: int, epoch: int) -> dict[str, Tensor]:
        settings = self.settings
        number = int(np.searchsorted(self._ends, clip, side="right"))
        video, count = self.videos[number], int(self.counts[number])
        rng = np.random.default_rng([settings.seed, epoch, clip])
        if settings.fixed:
            part = clip - int(self._ends[number]) + count
            start = central_start(
                video.num_frames, settings.num_frames, stride=settings.stride, part=part, num_parts=count
            )
        else:
            start = random_start(video.num_frames, settings.num_frames, stride=settings.stride, rng=rng)
        indices = window_indices(start, settings.num_frames, stride=settings.stride) % video.num_frames
        pixels = video.read(indices, size=settings.size)
        if settings.flip and not settings.fixed and rng.random() < 0.5:
            pixels = pixels[:, :, ::-1]
        pixels = np.ascontiguousarray(pixels.transpose(3, 0, 1, 2))  # t h w c -> c t h w
        return {"video": torch.from_numpy(pixels), "label": torch.tensor(video.label)}

    def _report(self, error: VideoError) -> None:
        if error.path not in self._reported:
            self._reported.add(error.path)
            warnings.warn(f"{error}; another clip takes the place of each clip of this file", stacklevel=2)
