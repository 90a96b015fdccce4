"""Does the distance grow with every way in which a video can be wrong, and with nothing else?

Held-out clips of the moving digits are parted at random into two halves; one stays as it is, the other is made worse by
degrees: the points are means over several partings, the bands their range. Two untouched halves give the floor, and
played backwards these clips are as likely as before. For "shape drift" and "gaps in strokes" both halves are drawn
anew, from held-out scans.

    python benchmarks/bench_sensitivity.py --plot docs/sensitivity.png

The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from motion_clips import FAULTS, digits, draw_clip
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from flexivid.data import open_video
from flexivid.metrics.extractors.extractor import Extractor, build_extractor
from flexivid.metrics.frechet import frechet_distance

ROOT = Path(__file__).resolve().parents[1]
Points = list[tuple[float, float, float, float]]  # strength, mean, lowest and highest distance


def noise(videos: np.ndarray, strength: float, rng: Generator) -> np.ndarray:
    """Add white noise of this deviation."""
    return np.clip(videos + strength * rng.standard_normal(videos.shape), 0, 1)


def blur(videos: np.ndarray, strength: float, rng: Generator) -> np.ndarray:
    """Blur by a Gaussian of this deviation in pixels."""
    return gaussian_filter(videos, (0, 0, strength, strength, 0))


def shuffle(videos: np.ndarray, strength: float, rng: Generator) -> np.ndarray:
    """Permute this share of each clip's frames."""
    worse = videos.copy()
    for clip, video in zip(worse, videos, strict=True):
        chosen = rng.choice(len(video), round(strength * len(video)), replace=False)
        clip[chosen] = video[rng.permutation(chosen)]
    return worse


def cut(videos: np.ndarray, strength: float, rng: Generator) -> np.ndarray:
    """Replace the second half of this share of the clips by that of the next one, ten on: of the same class."""
    worse, middle = videos.copy(), videos.shape[1] // 2
    chosen = rng.permutation(len(videos))[: round(strength * len(videos))]
    worse[chosen, middle:] = videos[(chosen + 10) % len(videos), middle:]
    return worse


def freeze(videos: np.ndarray, strength: float, rng: Generator) -> np.ndarray:
    """Hold a frame for this share of the clip, to its end."""
    last = round((1 - strength) * (videos.shape[1] - 1))
    return videos[:, np.minimum(np.arange(videos.shape[1]), last)]


def drawn(fault: str) -> Callable[[np.ndarray, float, Generator], np.ndarray]:
    """Return a function that draws as many clips from held-out scans, with this fault."""
    assert fault in FAULTS
    scans = digits.split_scans(seed=0)["held_out"]

    def draw(videos: np.ndarray, strength: float, rng: Generator) -> np.ndarray:
        shape = {"num_frames": videos.shape[1], "size": videos.shape[2], "plain": True}
        return np.stack([draw_clip(scans, rng, **shape, faults={fault: strength}).video for _ in videos])

    return draw


SWEEPS = {  # title: (how to make it worse, by how much)
    "noise, deviation": (noise, (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)),
    "blur, pixels": (blur, (0, 0.4, 0.5, 0.75, 1, 1.5, 2)),
    "shuffled frames": (shuffle, (0, 0.25, 0.5, 0.75, 1)),
    "clips with a cut": (cut, (0, 0.125, 0.25, 0.5, 0.75, 1)),
    "frozen frames": (freeze, (0, 0.25, 0.5, 0.75, 1)),
    "shape drift": (drawn("drift"), (0, 0.25, 0.5, 0.75, 1)),
    "gaps in strokes": (drawn("gaps"), (0, 0.25, 0.5, 0.75, 1)),
}


def read_clips(folder: Path, num_frames: int) -> np.ndarray:
    """Return the first frames of every clip, (n, t, h, w, 3) in [0, 1], by number: the last decimal is the class."""
    paths = sorted(folder.glob("*/*.mp4"), key=lambda path: path.stem)
    if not paths:
        raise FileNotFoundError(f"got no clips in {folder}; expected moving digits; run data/moving_digits.py first")
    clips = []
    for path in paths:
        with open_video(path) as reader:
            clips.append(reader.frames(range(num_frames)))
    return np.stack(clips).astype(np.float32) / 255


@torch.no_grad()
def features_of(extractor: Extractor, videos: np.ndarray) -> torch.Tensor:
    """Return the features of clips (n, t, h, w, 3) in [0, 1]."""
    tensor = torch.from_numpy(videos).float().movedim(-1, 1) * 2 - 1
    return torch.cat([extractor(part) for part in tensor.split(50)])


def partings(num_clips: int, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return random halves of the clips, each with as many of every class."""
    tens = [np.random.default_rng(seed).permutation(num_clips // 10) for seed in range(number)]
    indices = [(order[:, None] * 10 + np.arange(10)).reshape(2, -1) for order in tens]
    return [(half[0], half[1]) for half in indices]


def summary(strength: float, distances: list[float]) -> tuple[float, float, float, float]:
    """Return one point: mean, lowest and highest of the distances."""
    return strength, float(np.mean(distances)), min(distances), max(distances)


def missing_classes(features: torch.Tensor, halves: list[tuple[np.ndarray, np.ndarray]]) -> Points:
    """Replace the clips of some classes by clips of the others."""
    points = []
    for missing in (0, 2, 4, 6, 8):
        distances = []
        for a, b in halves:
            kept = b[b % 10 < 10 - missing]
            distances.append(frechet_distance(features[np.resize(kept, len(b))], features[a]))
        points.append(summary(missing, distances))
    return points


def measure(extractor: Extractor, clips: np.ndarray, number: int) -> dict[str, Points]:
    """Return the points of every sweep."""
    halves, clean = partings(len(clips), number), features_of(extractor, clips)
    sweeps = {}
    for title, (worsen, strengths) in SWEEPS.items():
        sweeps[title], reference = [], features_of(extractor, worsen(clips, 0, np.random.default_rng(2)))
        for strength in strengths:
            worse = features_of(extractor, worsen(clips, strength, np.random.default_rng(1)))
            distances = [frechet_distance(worse[b], reference[a]) for a, b in halves]
            sweeps[title].append(summary(strength, distances))
        print(title, [round(mean, 2) for _, mean, _, _ in sweeps[title]], file=sys.stderr, flush=True)
    backwards = features_of(extractor, clips[:, ::-1].copy())
    sweeps["missing classes"] = missing_classes(clean, halves)
    sweeps["backwards"] = [summary(1, [frechet_distance(backwards[b], clean[a]) for a, b in halves])]
    sweeps["floor"] = [summary(0, [frechet_distance(clean[b], clean[a]) for a, b in halves])]
    return sweeps


def plot(sweeps: dict[str, Points], label: str) -> Figure:
    """Draw a panel for each sweep over its own floor, and beside shuffled frames what playing backwards costs."""
    figure = Figure((11, 5.2), layout="constrained")
    panels = [title for title in sweeps if len(sweeps[title]) > 1]
    for axes, title in zip(figure.subplots(2, 4, sharey=True).flat, panels, strict=True):
        strengths, mean, low, high = zip(*sweeps[title], strict=True)
        axes.fill_between(strengths, low, high, alpha=0.25)
        axes.plot(strengths, mean, marker="o", markersize=3)
        axes.axhline(mean[0], color="grey", linewidth=1, label="two untouched halves")
        axes.set(xlabel=title, yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        if title == "shuffled frames":
            axes.axhline(sweeps["backwards"][0][1], color="black", linewidth=1, linestyle=":", label="played backwards")
            axes.legend(fontsize=8, loc="upper left")
    figure.supylabel(label)
    return figure


def main() -> None:
    """Measure, plot and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, default=ROOT / "data" / "moving_digits" / "held_out")
    parser.add_argument("--extractor", default="motion", help="a name that flexivid.metrics.build_extractor knows")
    parser.add_argument("--num-frames", type=int, default=8)
    parser.add_argument("--partings", type=int, default=5)
    parser.add_argument("--output", type=Path, help="also write the result here")
    parser.add_argument("--plot", type=Path, help="write a picture here")
    options = parser.parse_args()
    extractor = build_extractor(options.extractor)
    clips = read_clips(options.clips, options.num_frames)
    sweeps = measure(extractor, clips, options.partings)
    means = {title: [mean for _, mean, _, _ in points] for title, points in sweeps.items()}
    result = {
        "question": __doc__.splitlines()[0],
        "metric": extractor.metric_name,
        "fingerprint": extractor.fingerprint,
        "num_frames": options.num_frames,
        "is_monotone": {title: bool(np.all(np.diff(m) > 0)) for title, m in means.items() if len(m) > 1},
        "strength_mean_low_high": {t: [[round(v, 3) for v in point] for point in ps] for t, ps in sweeps.items()},
    }
    if options.plot:
        label = f"{extractor.metric_name}, {len(clips) // 2} against {len(clips) // 2} held-out clips"
        plot(sweeps, label).savefig(options.plot, dpi=110)
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
