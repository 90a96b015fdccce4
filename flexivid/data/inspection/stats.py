"""Statistics of a collection: lengths, sizes and rates of its videos, and the mean of their colours."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flexivid.data.decoding.reader import ClipRequest
from flexivid.data.index.videos import Videos
from flexivid.data.storage.errors import VideoError
from flexivid.data.workers.pool import DecodePool, outcomes

QUANTITIES = {  # name: unit
    "frames": "frames",
    "duration": "seconds",
    "fps": "frames a second",
    "aspect": "width / height",
    "width": "pixels",
    "height": "pixels",
}
PERCENTILES = (0, 5, 50, 95, 100)


def quantities(videos: Videos) -> dict[str, np.ndarray]:
    """Return each of ``QUANTITIES`` for every video, (n,) float64; nan where unknown.

    >>> quantities(Videos.of(["a.mp4"], num_frames=50, fps=0.0, width=640, height=480))["aspect"].round(3).tolist()
    [1.333]
    """
    columns = {
        "frames": videos.num_frames,
        "duration": videos.durations,
        "fps": np.where(videos.fps > 0, videos.fps, np.nan),
        "aspect": videos.widths / np.maximum(1, videos.heights),
        "width": videos.widths,
        "height": videos.heights,
    }
    return {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}


def summary(values: np.ndarray) -> dict[str, float]:
    """Return mean, extremes and percentiles of the finite values; an empty dict if there are none.

    >>> summary(np.array([1.0, 2.0, 6.0, np.nan]))
    {'mean': 3.0, 'min': 1.0, 'p5': 1.1, 'median': 2.0, 'p95': 5.6, 'max': 6.0}
    """
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return {}
    names = ("min", "p5", "median", "p95", "max")
    points = np.percentile(finite, PERCENTILES)
    numbers = {"mean": finite.mean(), **dict(zip(names, points, strict=True))}
    return {name: round(float(number), 4) for name, number in numbers.items()}


def sample_requests(videos: Videos, num_frames: int, *, seed: int = 0) -> Iterator[ClipRequest]:
    """Draw random frames at full size, each frame of the collection equally likely."""
    rng, ends = np.random.default_rng(seed), np.cumsum(videos.num_frames, dtype=np.int64)
    for number in np.sort(rng.integers(ends[-1], size=num_frames)):
        row = int(np.searchsorted(ends, number, side="right"))
        index = int(number - ends[row] + videos.num_frames[row] + videos.first[row])
        size = (int(videos.heights[row]), int(videos.widths[row]))
        yield ClipRequest(videos.path(row), videos.facts(row), np.array([index]), size)


def decoded(videos: Videos, num_frames: int, *, pool: DecodePool) -> Iterator[np.ndarray]:
    """Decode frames drawn by ``sample_requests``, (1, h, w, 3) uint8 each; frames that cannot be decoded are left out.

    >>> list(decoded(Videos.of(["nowhere.mp4"], num_frames=50, width=64, height=48), 1, pool=DecodePool(0)))
    []
    """
    for _, frames in outcomes(((None, request) for request in sample_requests(videos, num_frames)), pool):
        if not isinstance(frames, VideoError):
            yield frames


def channel_statistics(frames: Iterable[np.ndarray]) -> dict[str, list[float]]:
    """Return mean and deviation of red, green and blue in [0, 1] of uint8 (t, h, w, 3), each item weighing the same.

    >>> channel_statistics([np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 4, 4, 3), 255, np.uint8)])
    {'mean': [0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5]}
    """
    means, squares = [], []
    for clip in frames:
        pixels = clip.reshape(-1, 3) / 255.0
        means.append(pixels.mean(axis=0))
        squares.append((pixels**2).mean(axis=0))
    if not means:
        return {}
    mean, square = np.mean(means, axis=0), np.mean(squares, axis=0)
    deviation = np.sqrt(np.maximum(0, square - mean**2))
    return {"mean": mean.round(4).tolist(), "std": deviation.round(4).tolist()}


def write_histograms(path: str | Path, values: Mapping[str, np.ndarray]) -> Path:
    """Draw a histogram of each quantity into a PNG."""
    from matplotlib.figure import Figure  # takes a second to load

    figure = Figure(figsize=(12, 6.5), layout="constrained")
    for axes, (name, unit) in zip(figure.subplots(2, 3).flat, QUANTITIES.items(), strict=True):
        finite = values[name][np.isfinite(values[name])]
        is_wide = len(finite) > 0 and finite.min() > 0 and finite.max() > 50 * finite.min()
        bins: Any = np.geomspace(finite.min(), finite.max(), 31) if is_wide else 30
        axes.hist(finite, bins=bins, color="#4477aa")
        axes.set(title=name, xlabel=unit, ylabel="videos", xscale="log" if is_wide else "linear")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path
