"""Features of pictures by a network of videos: the picture stands still for as few frames as the network takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from flexivid.metrics.extractors.extractor import Extractor
from flexivid.metrics.extractors.networks import Network


class _Still(nn.Module):
    """Repeats the only frame, then applies the usual preprocessing."""

    def __init__(self, prepare: Callable[[Tensor], Any], frames: int) -> None:
        super().__init__()
        self.prepare, self.frames = prepare, frames

    def forward(self, videos: Tensor) -> Any:
        return self.prepare(videos.expand(-1, -1, self.frames, -1, -1))


def for_frames(extractor: Extractor, num_frames: int) -> Extractor:
    """Return the extractor for videos of so many frames: for one frame, one that repeats it, with a name that says so.

    A distance of such features compares pictures. It is neither the FID of the literature, which is another network's,
    nor comparable with distances of videos.

    Example:
        >>> from flexivid.metrics.extractors.extractor import build_extractor
        >>> motion = build_extractor("motion")
        >>> for_frames(motion, 8) is motion, for_frames(motion, 1).metric_name
        (True, 'fvd[motion-still]')
    """
    if num_frames != 1 or extractor.min_frames <= 1:
        return extractor
    frames = extractor.min_frames
    words = f"the frame {frames} times; {extractor.preprocessing}"
    prepare: Any = _Still(extractor.prepare, frames)
    return Extractor(
        f"{extractor.name}-still", Network(extractor.network, prepare, extractor.num_features, 1, words)
    ).to(next((tensor.device for tensor in extractor.network.parameters()), "cpu"))
