"""The distance between two folders of videos, whatever made them: the same windows, size and rate on both sides."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from flexivid.data.sources.layout import Collection, Layout
from flexivid.data.sources.manifest import Manifest, Manifests, read_manifests
from flexivid.data.splits import index_collection
from flexivid.evaluation.clips import clip_settings, find_clips
from flexivid.evaluation.features import ClipFeatures, check_frames
from flexivid.metrics.extractors.extractor import build_extractor, for_frames
from flexivid.metrics.protocol import Protocol
from flexivid.metrics.scores import Scores, score
from flexivid.sampling.sample_folder import videos_in


@dataclass(frozen=True)
class PairRequest:
    """Two folders to compare, in plain data."""

    generated: str  # folder of videos
    reference: str  # folder of real ones
    output: str  # folder for the results
    metric: dict[str, Any]  # keywords of ``build_extractor``; ``name`` among them
    num_frames: int = 16  # frames of a clip
    size: tuple[int, int] | None = None  # (height, width); ``None`` = that of the generated videos
    rate: dict[str, float] = field(default_factory=dict)  # ``stride`` or ``fps`` of the clips, on both sides
    num_videos: int | None = None  # clips of the generated videos, at most; ``None`` = all
    num_reference: int | None = None  # likewise of the real ones
    split: str | None = None  # of the reference; ``None`` = held-out clips where there are as many as are compared
    layout: Layout | None = None  # how folders are read (see ``data.sources.layout``); ``None`` = by their names
    seed: int = 0  # of the bootstrap
    batch_size: int = 16  # clips in one call of the extractor


class Pair(NamedTuple):
    """The clips of both sides, and how they are compared."""

    generated: ClipFeatures
    real: ClipFeatures
    protocol: Protocol


def common_size(root: Manifests) -> tuple[int, int]:
    """Height and width of all videos of a folder; refuses sizes that differ."""
    videos = index_collection(root._replace(held_out=None))[0].videos
    sizes = np.unique(np.stack([videos.heights, videos.widths], axis=1), axis=0)
    if len(sizes) > 1:
        some = ", ".join(f"{height}x{width}" for height, width in sizes[:5].tolist())
        raise ValueError(f"got videos of {len(sizes)} sizes in {root} ({some}); expected one; choose one with --size")
    return (int(sizes[0, 0]), int(sizes[0, 1])) if len(sizes) else (1, 1)  # without videos, finding clips says why


def prepare_pair(request: PairRequest, device: torch.device) -> Pair:
    """Find the clips, load the extractor; ``ValueError`` if something does not fit."""
    extractor = for_frames(build_extractor(**request.metric, device=device), request.num_frames)
    check_frames(extractor, request.num_frames)
    roots = dict.fromkeys((request.generated, request.reference))
    listed = {root: _videos_of(root, request) for root in roots}
    sources = [listed[root] for root in (request.generated, request.reference)]
    height, width = request.size or common_size(sources[0])
    settings = clip_settings({}, (request.num_frames, height, width), **request.rate)
    clips = find_clips(sources[0], settings, num_clips=request.num_videos)
    count = request.num_reference
    held_out_from = None if request.split else count or len(clips)
    reference = find_clips(sources[1], settings, split=request.split, num_clips=count, held_out_from=held_out_from)
    root = Path(request.output) / "features"
    generated, real = (
        ClipFeatures(extractor, side, root, batch_size=request.batch_size) for side in (clips, reference)
    )
    protocol = real.protocol((request.num_frames, height, width), len(clips), seed=request.seed)
    return Pair(generated, real, protocol)


def _videos_of(root: str, request: PairRequest) -> Manifests:
    """Videos of a folder, or pictures as videos of one frame where clips have one.

    Of a folder of ``flexivid.sample`` only the samples, since its grid has another size.
    """
    if samples := videos_in(root):
        if len(budgets := {budget for budget in samples.values() if budget is not None}) > 1:
            warnings.warn(
                f"got samples of budgets {', '.join(f'{budget:g}' for budget in sorted(budgets))} in {root}; expected"
                " one, for all are measured together; sample each budget into a folder of its own",
                stacklevel=2,
            )
        return Manifests(Manifest.of([(path, -1, "") for path in samples], root=root), None, root)
    return read_manifests(Collection(root, request.layout or "auto", pictures=request.num_frames == 1))


def compare_pair(pair: Pair, *, on_block: Callable[[], None] = lambda: None) -> Scores:
    """Scores of the features of both sides; blocks in files are not made again."""

    def features(side: ClipFeatures) -> Iterator[torch.Tensor]:
        for block in side.each(side.blocks()):
            on_block()
            yield block

    real, generated = (torch.cat(list(features(side))) for side in (pair.real, pair.generated))
    return score(generated, real, seed=pair.protocol.seed)


def pair_progress(pair: Pair) -> dict[str, tuple[float, float]]:
    """Clips that are done, and all, by side."""
    sides = {"real clips": pair.real, "generated clips": pair.generated}
    return {name: (side.num_done, len(side.clips)) for name, side in sides.items()}
