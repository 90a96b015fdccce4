"""What samples of an evaluation should show: captions of the real clips where the model reads text, and their frames.

Each sample goes with a clip, so samples and real clips show the same things, and the distance is not one of subjects.
Any number of samples goes with clips from all over the collection, so this holds for few samples too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from flexivid.evaluation.clips import ClipSet, read_ends
from flexivid.media.pixels import to_unit
from flexivid.model.conditioning import Frames
from flexivid.model.flexidit import FlexiDiT
from flexivid.sampling.conditions import Conditions, conditions_for, is_given, read_prompts
from flexivid.sampling.pictures import Pictures, given_frames
from flexivid.sampling.settings import Settings

GOLDEN = (math.sqrt(5) - 1) / 2
KINDS = {"first": "the first frame", "last": "the last frame", "both": "the first and the last frame"}


class ClipFrames(NamedTuple):
    """What samples are given of real clips, by the numbers of these.

    ``frames`` are those of one clip, which show where frames are given; ``latents`` are the given latent frames of all,
    (n, c, k, h, w); ``source`` says in words what they are.
    """

    numbers: list[int]
    frames: Frames
    latents: Tensor
    source: str


def clip_frames(model: FlexiDiT, settings: Settings, clips: ClipSet, kind: str) -> ClipFrames:
    """The ``first`` or the ``last`` frames of clips, or ``both``, as the network is given them.

    ``ValueError`` if there is no such kind, the model takes no given frames, or they do not fit.
    """
    if kind not in KINDS:
        raise ValueError(f"got --given-frames {kind}; expected one of {', '.join(KINDS)}; choose one")
    frames, numbers, latents = None, [], []
    for number, ends in read_ends(clips):
        beginning, end = to_unit(ends).split(1, dim=1)
        frames = given_frames(
            model, settings, Pictures(None if kind == "last" else beginning, None if kind == "first" else end)
        )
        numbers.append(number)
        latents.append(frames.latent[:, :, is_given(frames)])
    if frames is None:
        raise ValueError(f"got {clips.root}, where no clip can be decoded; expected some; name others with --reference")
    source = f"{KINDS[kind]} of each real clip, {clips.fingerprint}"
    return ClipFrames(numbers, frames, torch.cat(latents), source)


def scattered(count: int) -> list[int]:
    """The numbers below ``count`` in an order of which any first ones lie evenly among all.

    Example:
        >>> scattered(12)
        [0, 5, 10, 2, 7, 4, 9, 1, 6, 11, 3, 8]
    """
    return sorted(range(count), key=lambda number: number * GOLDEN % 1)


def evaluation_conditions(
    model: FlexiDiT,
    num_videos: int,
    clips: ClipSet,
    *,
    labels: Sequence[int] | None = None,
    prompts_file: str | None = None,
    frames: ClipFrames | None = None,
) -> Conditions:
    """Classes in turn, and prompts where the model reads text: captions of scattered clips, or lines of a file in turn.

    Samples that are given frames of clips have their classes too, where there are some. ``ValueError`` if the model
    reads text and the clips have no captions, or it reads none and there is a file.
    """
    if prompts_file is not None and not model.config.text_channels:
        raise ValueError(f"got --prompts-file {prompts_file} for a model without text; expected none; leave it out")
    prompts, source, seen = None, "", ""
    order = scattered(len(clips) if frames is None else len(frames.numbers))
    numbers = order if frames is None else [frames.numbers[row] for row in order]
    reads_captions = model.config.text_channels > 0 and clips.dataset.has_captions
    if prompts_file is not None:
        prompts, source = read_prompts(None, prompts_file), "lines of a file"
    elif reads_captions:
        prompts, source = [clips.caption(number) for number in numbers], "captions of the reference"
        seen = clips.seen(prompts[:num_videos])
    elif model.config.text_channels and not model.config.num_classes:
        raise ValueError(
            f"got {clips.root} without captions for a model that reads text; expected a caption a clip; name prompts"
            " with --prompts-file, or other real videos with --reference"
        )
    if labels is None and model.config.num_classes and prompts_file is None and (reads_captions or frames):
        classes = [clips.label(number) for number in numbers]
        labels = classes if min(classes) >= 0 else None
    conditions = replace(conditions_for(model, num_videos, labels=labels, prompts=prompts), source=source, seen=seen)
    if frames is None:
        return conditions
    rows = [order[sample % len(order)] for sample in range(num_videos)]
    return replace(
        conditions, frames=frames.frames, own_frames=frames.latents[rows], frames_source=frames.source
    ).check(model)
