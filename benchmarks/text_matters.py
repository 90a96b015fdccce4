"""Does the text matter? Samples of a prompt must be nearer to clips of that caption than to clips of another one.

    python benchmarks/text_matters.py --checkpoint RUN --reference videos --num-prompts 8 --num-videos 8

Takes the captions that most clips have, samples each from the same noises, and compares for every ordered pair (A, B):
is the mean of the samples of A nearer to the mean of the clips of A than to that of the clips of B? Distances are those
of features whose deviation over all clips is 1: of the motion network, or mean colours of a coarse grid and their
changes (``--features colour``), which no network has learned. The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from itertools import permutations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flexivid import generate, load
from flexivid.data.encoded.decode import real_clips_of
from flexivid.data.encoded.folder import is_encoded
from flexivid.data.sources.layout import Collection
from flexivid.evaluation.clips import (
    ClipSet,
    clip_settings,
    data_root,
    data_section,
    find_clips,
    read_blocks,
)
from flexivid.evaluation.features import extract
from flexivid.evaluation.run import run_folder
from flexivid.media.pixels import to_bytes, to_unit
from flexivid.metrics.extractors.extractor import build_extractor, for_frames
from flexivid.runtime.device import pick_device
from flexivid.sampling.encoders import use_sources
from flexivid.sampling.settings import Sampling, video_size

GRID = (2, 4, 4)  # cells of colours along frames, rows, columns
Features = Callable[[Tensor], Tensor]  # uint8 (b, 3, t, h, w) -> (b, d)


def colours(videos: Tensor) -> Tensor:
    """Mean colours of cells and how they change: uint8 (b, 3, t, h, w) -> (b, d)."""
    x = to_unit(videos)
    cells = F.adaptive_avg_pool3d(x, (min(GRID[0], x.shape[2]), *GRID[1:])).flatten(1)
    if x.shape[2] == 1:
        return cells
    return torch.cat([cells, F.adaptive_avg_pool3d(x.diff(dim=2).abs(), (1, *GRID[1:])).flatten(1)], dim=1)


def nearer_pairs(samples: dict[str, Tensor], clips: dict[str, Tensor]) -> dict[tuple[str, str], bool]:
    """For every pair (A, B), whether samples of A are nearer to clips of A than to those of B; features (n, d) of each.

    Example:
        >>> left, right = torch.zeros(2, 1), torch.ones(2, 1)
        >>> nearer_pairs({"a": left + 0.1, "b": left + 0.2}, {"a": left, "b": right})
        {('a', 'b'): True, ('b', 'a'): False}
    """
    scale = torch.cat(list(clips.values())).std(0).clamp_min(1e-6)
    centres = {words: features.mean(0) / scale for words, features in clips.items()}
    means = {words: features.mean(0) / scale for words, features in samples.items()}
    away = {(a, b): float((means[a] - centres[b]).norm()) for a in samples for b in clips}
    return {(a, b): away[a, a] < away[a, b] for a, b in permutations(samples, 2)}


def clip_features(clips: ClipSet, numbers: dict[str, list[int]], features: Features) -> dict[str, Tensor]:
    """Features of the clips of each caption."""
    decoded = read_blocks(clips, list(numbers.values()))
    return {words: features(videos) for words, (_, videos) in zip(numbers, decoded, strict=True)}


def common_captions(clips: ClipSet, count: int, most: int) -> dict[str, list[int]]:
    """The captions that most clips have, and up to so many clips of each."""
    captions = [clips.caption(number) for number in range(len(clips))]
    chosen = [words for words, _ in Counter(captions).most_common(count) if words]
    if len(chosen) < 2:
        raise SystemExit(f"got {len(chosen)} captions in {clips.root}; expected at least 2; name videos with captions")
    return {words: [i for i, own in enumerate(captions) if own == words][:most] for words in chosen}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Sample, compare, print a line a caption."""
    device = pick_device(options.device)
    model = use_sources(load(options.checkpoint, device=device), options.codec, options.text_encoder)
    size, run = video_size(model, Sampling().filled(model)), run_folder(options.checkpoint)
    section = data_section(run)
    root, layout = options.reference or data_root(run, section), section.get("layout", "auto")
    if is_encoded(root):
        real = real_clips_of(root)
        section, (root, layout) = real.settings._asdict(), real.collection
    clips = find_clips(Collection(root, layout), clip_settings(section, size), split=options.split)
    numbers = common_captions(clips, options.num_prompts, options.num_clips)
    extractor = for_frames(build_extractor("motion", device=device), size.t)
    features: Features = colours if options.features == "colour" else lambda videos: extract(extractor, videos)
    shared = {"num_videos": options.num_videos, "seed": options.seed, "guidance_scale": options.guidance_scale}
    null, samples, changes = generate(model, options.budget, **shared).videos, {}, []
    for words in numbers:
        videos = generate(model, options.budget, prompts=[words], **shared).videos
        samples[words] = features(to_bytes(videos))
        changes.append(float((videos - null).square().mean().sqrt()))
    pairs = nearer_pairs(samples, clip_features(clips, numbers, features))
    for words, change in zip(numbers, changes, strict=True):
        share = sum(near for (a, _), near in pairs.items() if a == words) / (len(numbers) - 1)
        print(f"{words!r}: nearer to its own clips than to {share:.0%} of others; {change:.3f} from the null text")
    share = sum(pairs.values()) / len(pairs)
    print(f"in all {share:.1%} of {len(pairs)} pairs; least difference from the null text {min(changes):.3f}")
    about = {"features": options.features, "split": clips.split, "budget": options.budget, **shared}
    return {"share": share, "pairs": len(pairs), "least_change_from_null": min(changes), "prompts": [*numbers], **about}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="folder of a trained model with text")
    parser.add_argument("--reference", help="videos with captions (default: those trained on)")
    parser.add_argument("--split", choices=["train", "held_out", "all"])
    parser.add_argument("--num-prompts", type=int, default=8)
    parser.add_argument("--num-videos", type=int, default=8, help="samples of each prompt")
    parser.add_argument("--num-clips", type=int, default=16, help="clips of each caption, at most")
    parser.add_argument("--features", choices=["motion", "colour"], default="motion")
    parser.add_argument("--guidance-scale", type=float, default=None)
    parser.add_argument("--budget", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    for name in ("--codec", "--text-encoder", "--device"):
        parser.add_argument(name)
    sys.stdout.write(json.dumps(measure(parser.parse_args())) + "\n")


if __name__ == "__main__":
    main()
